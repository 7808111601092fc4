"""Every choice that decides a run: validated, saved with the run, and hashable.

A recipe is YAML in five parts. On the command line a key may be written alone (`epochs=3`) or in full
(`training.epochs=3`), for no key stands in two parts.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from parfocal.errors import UsageError, nearest
from parfocal.files import write_text

Waiver = Literal[
    "patient_overlap",
    "identical_across_splits",
    "conflicting_labels",
    "duplicate_rows",
    "unreadable_images",
    "missing_files",
]
WAIVERS: tuple[str, ...] = get_args(Waiver)


class Part(BaseModel):
    """What all parts of a recipe share: unknown keys are refused and values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Format = Literal[
    "auto", "leukemia-lab", "fundus-lab", "cnmc", "eyepacs", "aptos", "cifar10", "medmnist", "columns", "folders"
]


class DataPart(Part):
    """How labels are read, and which faults are accepted."""

    format: Format = Field(default="auto", description="how the labels are laid out")
    classes: tuple[str, ...] = Field(default=(), description="names of the classes, in the order of their codes")
    allow: tuple[Waiver, ...] = Field(default=(), description="faults accepted knowingly; printed on the report")


class ColumnsPart(Part):
    """Which columns of a sheet say what; the usual names are found without."""

    path: str = Field(default="", description="the image: a path, or a name that is found below the folder")
    label: tuple[str, ...] = Field(default=(), description="what it shows; several columns are one-hot")
    group: str = Field(default="", description="the patient")
    split: str = Field(default="", description="train, valid or test, or the number of a fold")
    digest: str = Field(default="", description="a digest of the file, to find doubles of images that are not there")
    folder: str = Field(default="", description="where the images lie, if not beside the sheet")
    group_from: str = Field(default="", description="regular expression on an image's id that finds the patient")


class SplitPart(Part):
    """Who trains, validates and tests, where the data does not say; always whole patients, the class mix kept."""

    keep: bool = Field(default=True, description="take the data's own splits; false makes them anew")
    valid: float = Field(default=0.15, gt=0, lt=0.9, description="share for validation, where the data brings none")
    test: float = Field(default=0.0, ge=0, lt=0.9, description="share for the test split, where the data brings none")
    folds: int = Field(default=0, ge=0, le=100, description="make this many folds instead; one of them validates")
    fold: int = Field(default=0, ge=0, description="which fold validates, of the data's own folds or those made")
    file: str = Field(default="", description="take the splits from this table.csv of an earlier run")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(f"folds={self.folds} has no fold={self.fold}")
        if self.valid + self.test >= 1:
            raise ValueError(f"valid={self.valid:g} and test={self.test:g} leave nothing to train on")
        return self


class ImagesPart(Part):
    """What the Store holds: every image framed to one size, once."""

    crop_disc: bool = Field(default=False, description="find the fundus disc and trim the black surround, first")
    centre_crop: int = Field(default=0, ge=0, le=8192, description="then take the centre at the image's own scale")
    fit: Literal["squash", "crop", "pad", "none"] = Field(
        default="squash",
        description="then squash to the square, crop the longer side, pad the shorter with black, or keep the scale",
    )
    size: int = Field(default=256, ge=8, le=4096, description="side of the stored square, in pixels")
    enhance: Literal["none", "clahe", "local_average"] = Field(
        default="none", description="then even the contrast by tiles, or take the local mean colour away"
    )
    stain: Literal["none", "reinhard", "macenko"] = Field(
        default="none", description="then bring smears to one stain; black stays black"
    )
    stain_mean: tuple[float, float, float] = Field(
        default=(18.0, 27.6, -22.4), description="reinhard's reference: mean L*a*b*"
    )
    stain_deviation: tuple[float, float, float] = Field(
        default=(4.0, 2.9, 3.3), description="reinhard's reference: deviation of L*a*b*"
    )
    stain_vectors: tuple[float, float, float, float, float, float] = Field(
        default=(0.5626, 0.7201, 0.4062, 0.2159, 0.8012, 0.5581),
        description="macenko's reference: density of red, green and blue of the nuclear stain, then of the other",
    )
    stain_most: tuple[float, float] = Field(
        default=(1.9705, 1.0308), description="macenko's reference: the 99th percentile of each stain's amount"
    )
    store: Literal["raw", "jpeg"] = Field(
        default="raw", description="keep pixels as they are, or as JPEG of high quality where the disk is too small"
    )
    quality: int = Field(default=95, ge=95, le=100, description="of store=jpeg, always without chroma subsampling")


Step = Literal[
    "rotate", "flip", "zoom", "stretch", "shear", "shift", "brightness", "contrast", "saturation", "hue", "grey"
]
Group = Literal["all", "random_order", "one_of"]


class ViewsPart(Part):
    """How an image is looked at: its centre in evaluation, drawn anew for each epoch in training."""

    crop: int = Field(default=224, ge=8, le=4096, description="side of the square the network sees")
    evaluation: Literal["centre", "five", "ten"] = Field(
        default="centre", description="look at the centre, or average centre and corners, or these and their flips"
    )
    place: Literal["centre", "random"] = Field(default="centre", description="where training crops")
    pad: int = Field(default=0, ge=0, le=1024, description="how far random crops reach over the edge, in pixels")
    resized: float = Field(
        default=0, ge=0, lt=1, description="crop at least this share of the area and resize it; 0: no"
    )
    aspect: float = Field(default=1.33, ge=1, le=4, description="of resized crops: sides up to this ratio")
    rotate: float = Field(default=0, ge=0, le=180, description="turned by up to this many degrees either way")
    flip_horizontal: float = Field(default=0, ge=0, le=1, description="probability of a left–right flip")
    flip_vertical: float = Field(default=0, ge=0, le=1, description="probability of a top–bottom flip")
    zoom: float = Field(default=0, ge=0, lt=1, description="scaled by 1 ± this share")
    stretch: float = Field(default=0, ge=0, lt=1, description="aspect changed by 1 ± this share")
    shift: float = Field(default=0, ge=0, le=1, description="moved by up to this share of the side")
    shear: float = Field(default=0, ge=0, le=60, description="sheared by up to this many degrees")
    brightness: float = Field(default=0, ge=0, le=1, description="multiplied by 1 ± this share")
    contrast: float = Field(default=0, ge=0, le=1, description="spread about mid-grey by 1 ± this share")
    saturation: float = Field(default=0, ge=0, le=1, description="spread about each pixel's grey by 1 ± this share")
    hue: float = Field(
        default=0, ge=0, le=0.5, description="turned about the grey axis by up to this share of the circle"
    )
    grey: float = Field(default=0, ge=0, le=1, description="probability of losing all colour")
    chances: dict[Step, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={}, description="probability of single steps, {rotate: 0.5, hue: 0.2}; else each is always taken"
    )
    geometry: Group = Field(default="all", description="geometric steps: all, in random order, or one of them")
    geometry_chance: float = Field(default=1, ge=0, le=1, description="probability of any geometric step")
    colours: Group = Field(default="all", description="colour steps: all, in random order, or one of them")
    colours_chance: float = Field(default=1, ge=0, le=1, description="probability of any colour step")
    erase: float = Field(default=0, ge=0, le=1, description="probability of blackening a box")
    erase_area: float = Field(default=0.2, gt=0, lt=1, description="largest share of the view a box covers")
    also: str = Field(default="", description="last step of one's own, module:function, image -> image")


class NetworkPart(Part):
    """Which network, and how its pixels are scaled."""

    model: str = Field(default="resnet18", description="a network of the table in `parfocal.model.resnet`")
    normalise: Literal["none", "half", "imagenet", "standardise", "whiten"] = Field(
        default="imagenet",
        description="pixels as 0–1, as −1–1, by ImageNet's mean and deviation, by those of train, or whitened (ZCA)",
    )
    stem: Literal["imagenet", "small"] | None = Field(default=None, description="7×7/2 with pooling, or one 3×3/1")
    stride_in: Literal["3x3", "1x1"] = Field(default="3x3", description="the convolution of a bottleneck that halves")
    groups: int | None = Field(default=None, ge=1, description="groups of the 3×3 convolutions")
    group_width: int | None = Field(
        default=None, ge=1, description="channels of a group, at 64 channels of the first stage"
    )
    zero_last_norm: bool = Field(default=False, description="start every block as the identity")
    dropout: float = Field(default=0, ge=0, lt=1, description="dropped before the head")
    init: str = Field(
        default="scratch",
        description="first weights: scratch, imagenet, imagenet-v2, hf:OWNER/REPOSITORY, a file, or an earlier run",
    )

    @model_validator(mode="after")
    def _fits_published_weights(self) -> Self:
        if self.init in ("imagenet", "imagenet-v2"):
            if self.normalise in ("none", "whiten"):
                raise ValueError(f"init={self.init} saw pixels scaled by normalise=imagenet, not {self.normalise}")
            if self.stride_in != "3x3":
                raise ValueError(f"init={self.init} was trained with stride_in=3x3, not {self.stride_in}")
        return self


class TrainingPart(Part):
    """How the weights are found."""

    epochs: int = Field(default=20, ge=1, description="passes over the training split")
    batch: int = Field(default=32, ge=1, description="images a step")
    optimiser: Literal["sgd", "adam", "adamw"] = Field(
        default="sgd", description="rule that turns gradients into steps"
    )
    learning_rate: float = Field(default=0.05, gt=0, description="highest learning rate of the schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD, and the first moment of Adam")
    nesterov: bool = Field(default=False, description="look-ahead momentum, SGD only")
    weight_decay: float = Field(default=0.0, ge=0, description="how strongly weights are drawn to zero")
    decay: Literal["all", "weights"] = Field(
        default="all", description="what decays: everything learnt, or all but norms and biases"
    )
    scale_rate: Literal["none", "linear", "square_root"] = Field(
        default="none", description="scale the learning rate with the images of a step, relative to 32"
    )
    schedule: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = Field(
        default="cosine", description="how the learning rate goes on after warm-up"
    )
    warmup: float = Field(
        default=0,
        ge=0,
        description="epochs over which the learning rate climbs from near zero; one_cycle takes 30 % of the run for 0",
    )
    fall: float = Field(
        default=0.1, gt=0, lt=1, description="of step and plateau: what the learning rate is multiplied by"
    )
    fall_after: int = Field(
        default=10, ge=1, description="of step: every so many epochs; of plateau: after so many that were no better"
    )
    clip: float = Field(default=0, ge=0, description="largest norm of the gradients; 0: no limit")
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients are gathered for one step")
    loss: Literal["cross_entropy", "focal", "regression", "cumulative_link"] = Field(
        default="cross_entropy",
        description="what is made small; the last two are for ordered classes, such as grades",
    )
    smoothing: float = Field(default=0, ge=0, lt=1, description="share of the truth spread evenly over all classes")
    focus: float = Field(default=2, ge=0, description="of focal: how much less images count that are answered well")
    distance: Literal["smooth_l1", "squared"] = Field(
        default="smooth_l1", description="of regression: how a grade's distance from the truth counts"
    )
    class_weights: Literal["none", "balanced", "square_root", "effective_number"] = Field(
        default="none", description="how much more images of rare classes count, given how often they are shown"
    )
    logit_adjustment: float = Field(
        default=0, ge=0, description="strength with which the classes' shares are added in training and so not learnt"
    )
    ema: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="judge and keep a moving average of the weights, of which each step keeps so much",
    )
    patience: int = Field(
        default=0, ge=0, description="end after so many epochs without a better selected figure; 0: never"
    )
    sampling: Literal["natural", "balanced", "square_root", "decay", "factors", "extra"] = Field(
        default="natural", description="each image once, classes alike, by square root, from alike to natural, …"
    )
    factors: tuple[float, ...] = Field(default=(), description="of sampling=factors: how often each class is shown")
    extra: float = Field(
        default=0.5,
        ge=0,
        le=20,
        description="of sampling=extra: longer by this share, from all but the largest class",
    )
    mixup: float = Field(default=0, ge=0, le=10, description="strength of MixUp, which blends pairs of images")
    cutmix: float = Field(default=0, ge=0, le=10, description="strength of CutMix, which swaps boxes between images")
    precision: Literal["auto", "bf16", "float32"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    resident: float = Field(
        default=0.5, ge=0, le=0.95, description="on a graphics card: keep the pixels there if they fit in this share"
    )
    select: Literal["accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc", "loss"] = Field(
        default="accuracy", description="figure on the validation split that chooses the best epoch"
    )
    freeze: Literal["none", "head", "stage4", "stage3", "stage2", "stage1"] = Field(
        default="none", description="train only the head, or the head and the stages down to this one"
    )
    unfreeze: int = Field(default=0, ge=0, description="of freeze: one more stage trains every so many epochs; 0: no")
    rate_factor: float = Field(
        default=1, gt=0, le=1, description="learning rate multiplied by this for each stage below the head"
    )
    test_curve: bool = Field(default=False, description="also measure the test split each epoch, for the curve only")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.warmup > self.epochs:
            raise ValueError(f"warmup={self.warmup:g} is longer than epochs={self.epochs}")
        if self.nesterov and (self.optimiser != "sgd" or self.momentum == 0):
            raise ValueError("nesterov=true needs optimiser=sgd and a momentum above 0")
        if self.unfreeze and self.freeze == "none":
            raise ValueError(f"unfreeze={self.unfreeze} needs a freeze, such as freeze=head")
        if self.loss == "regression" and (self.smoothing or self.logit_adjustment):
            raise ValueError("smoothing and logit_adjustment need a loss of classes, and regression is not")
        return self


class Recipe(Part):
    """Everything that decides a run; made by `recipe()` or `variants()`."""

    name: str = Field(default="custom", description="what the recipe is called")
    about: str = Field(default="", description="what it is for, in a sentence")
    seed: int = Field(default=0, ge=0, description="of weights, order and views")
    data: DataPart = DataPart()
    columns: ColumnsPart = ColumnsPart()
    split: SplitPart = SplitPart()
    images: ImagesPart = ImagesPart()
    views: ViewsPart = ViewsPart()
    network: NetworkPart = NetworkPart()
    training: TrainingPart = TrainingPart()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.training.freeze != "none" and self.network.init == "scratch":
            raise ValueError(f"freeze={self.training.freeze} would hold random weights; say init=imagenet or another")
        if self.views.crop > self.images.size:
            raise ValueError(f"crop={self.views.crop} is larger than size={self.images.size}")
        return self

    def digest(self) -> str:
        """Return a short hash of every choice."""
        return digest(self.model_dump(mode="json"))

    def save(self, path: Path) -> None:
        """Write the recipe as YAML, fully resolved."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def digest(content: object) -> str:
    """Return a short, stable hash of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def packaged() -> dict[str, Path]:
    """Return the recipes that come with Parfocal, by name."""
    folder = Path(str(resources.files("parfocal"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe(source: str | Path | Recipe | None = None, **changes: Any) -> Recipe:
    """Return the recipe called `source` (a packaged name or a YAML file), with keys changed: `epochs=3`."""
    if isinstance(source, Recipe):
        content = source.model_dump(mode="json")
    else:
        content = _read(source) if source is not None else {}
    for key, value in changes.items():
        place = _place(key)
        target = content
        for step in place[:-1]:
            target = target.setdefault(step, {})
        target[place[-1]] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(_explain(error)) from None


def variants(source: str | Path | Recipe | None = None, **changes: Any) -> dict[str, Recipe]:
    """Return one recipe for each combination of values given as lists, by run name.

    `model=["resnet18", "resnet50"], seed=[0, 1]` gives `resnet18-seed0`, `resnet18-seed1`, …
    """
    several = {key: value for key, value in changes.items() if isinstance(value, list) and not _takes_list(key)}
    fixed = {key: value for key, value in changes.items() if key not in several}
    found: dict[str, Recipe] = {}
    for combination in itertools.product(*several.values()):
        chosen = dict(zip(several, combination, strict=True))
        one = recipe(source, **fixed, **chosen)
        others = [
            f"{_place(key)[-1]}{_in_a_name(value)}" for key, value in chosen.items() if _place(key)[-1] != "model"
        ]
        name = "-".join([one.network.model, *others])
        if name in found:
            raise UsageError(f"{name} is asked for twice. Name each value once.")
        found[name] = one
    return found


def _in_a_name(value: object) -> str:
    """Write a value so that a folder can be called after it, also where it is a path."""
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-")


def parse_changes(words: Iterable[str]) -> dict[str, Any]:
    """Turn `key=value` words into changes; a comma makes a list, and everything else is read as YAML."""
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is not of the form key=value.")
        _place(key)
        try:
            value = yaml.safe_load(f"[{text}]" if "," in text and text[0] not in "[{" else text)
        except yaml.YAMLError:
            raise UsageError(f"The value in {word!r} cannot be read.") from None
        changes[key] = [value] if _takes_list(key) and not isinstance(value, list) else value
    return changes


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the keys on which two recipes differ, with both values."""
    first, second = _flat(one.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
    return {key: (first.get(key), second.get(key)) for key in first if first.get(key) != second.get(key)}


def keys() -> dict[str, tuple[str, ...]]:
    """Return every key of a recipe by its short name, with the path to it."""
    places: dict[str, tuple[str, ...]] = {}
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Part):
            places.update({leaf: (name, leaf) for leaf in field.annotation.model_fields})
        else:
            places[name] = (name,)
    return places


def described() -> list[tuple[str, str, str]]:
    """Return every key of a recipe in full, its default as one would write it, and what it means with its choices."""
    rows: list[tuple[str, str, str]] = []
    for place in keys().values():
        holder = Recipe if len(place) == 1 else type(Recipe.model_fields[place[0]].default)
        field = holder.model_fields[place[-1]]
        default = "" if field.default in (None, (), {}) else yaml.safe_dump(field.default).splitlines()[0].strip("'")
        choices = [one for one in _literals(field.annotation) if isinstance(one, str)]
        meaning = f"{field.description} ({', '.join(choices)})" if choices else str(field.description)
        rows.append((".".join(place), default, meaning))
    return rows


def _literals(annotation: Any) -> list[Any]:
    """Return the words of a Literal, also where it stands in a union or a tuple."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for inner in get_args(annotation) for word in _literals(inner)]


def _takes_list(key: str) -> bool:
    """Say whether a key's value is itself a list, so that commas in it make no variants."""
    place = _place(key)
    holder = Recipe if len(place) == 1 else type(Recipe.model_fields[place[0]].default)
    return get_origin(holder.model_fields[place[-1]].annotation) is tuple


def _place(key: str) -> tuple[str, ...]:
    places = keys()
    if key in places:
        return places[key]
    full = {".".join(place): place for place in places.values()}
    if key in full:
        return full[key]
    raise UsageError(f"A recipe has no key {key!r}. {nearest(key, full if '.' in key else places)}")


def _read(source: str | Path) -> dict[str, Any]:
    known = packaged()
    path = known.get(str(source), Path(source))
    if not path.is_file():
        raise UsageError(
            f"There is no recipe {str(source)!r}, neither packaged nor a file. {nearest(str(source), known)}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no recipe: it should be `key: value` lines in the parts of a recipe.")
    return {"name": path.stem, **content}


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value})
    return flat


def _meant(place: str) -> str:
    """Say where a misplaced key of a recipe's file belongs, or what is near a misspelt one."""
    if place in keys():
        return f"It belongs to the part {keys()[place][0]!r}."
    return nearest(place, [".".join(full) for full in keys().values()] if "." in place else Recipe.model_fields)


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for fault in error.errors():
        place = ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"A recipe has no key {place!r}. {_meant(place)}")
        elif fault["type"] == "literal_error":
            choices = [
                choice.strip("'") for choice in fault.get("ctx", {})["expected"].replace(" or ", ", ").split(", ")
            ]
            text = f"{place}={fault['input']} is not a choice. {nearest(str(fault['input']), choices)}"
            lines.append(text if "Valid are" in text else f"{text} Valid are: {', '.join(choices)}.")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            lines.append(
                f"{place}={fault['input']}: {message}." if place and fault["type"] != "value_error" else f"{message}."
            )
    return "\n".join(dict.fromkeys(lines))
