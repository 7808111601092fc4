"""Every choice that decides a run: validated, saved with the run, and hashable.

A recipe is YAML in the parts of `parts.py`. On the command line a key may be written alone (`epochs=3`) or in full
(`training.epochs=3`), for no key stands in two parts.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from parfocal.errors import UsageError, did_you_mean
from parfocal.io import write_text
from parfocal.recipe_file import AUTO, read_recipe_file, read_yaml
from parfocal.schema import (
    ColumnsConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ImagesConfig,
    MachineConfig,
    NetworkConfig,
    SplitConfig,
    TrainingConfig,
    ViewsConfig,
)

_RECIPE_KEY = "recipe"
"""The key by which an experiment compares several recipes."""


class Recipe(Config):
    """Everything that decides a run; made by `recipe()` or `variants()`."""

    name: str = Field(default="custom", description="what the recipe is called")
    about: str = Field(default="", description="what it is for, in a sentence")
    # scikit-learn, which makes the folds, takes no larger one.
    seed: int = Field(default=0, ge=0, lt=2**32, description="of weights, order and views")
    data: DataConfig = DataConfig()
    columns: ColumnsConfig = ColumnsConfig()
    split: SplitConfig = SplitConfig()
    images: ImagesConfig = ImagesConfig()
    views: ViewsConfig = ViewsConfig()
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    machine: MachineConfig = MachineConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.training.freeze != "none" and self.network.init == "scratch":
            raise ValueError(f"freeze={self.training.freeze} would hold random weights; say init=imagenet or another")
        if self.views.crop_size > self.images.size:
            raise ValueError(f"crop_size={self.views.crop_size} is larger than size={self.images.size}")
        return self

    def compute_hash(self) -> str:
        """Return a short hash of every choice."""
        return hash_content(self.model_dump(mode="json"))

    def save(self, path: Path) -> None:
        """Write the recipe as YAML, fully resolved."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def hash_content(content: object) -> str:
    """Return a short, stable hash of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_recipe(source: str | Path | Recipe | None = None, **changes: Any) -> Recipe:
    """Return the recipe called `source` (a packaged name or a YAML file), with keys changed: `epochs=3`.

    What the file says of single networks is taken for the one that is chosen.
    """
    content: dict[str, Any] = {}
    if isinstance(source, Recipe):
        content = source.model_dump(mode="json")
    elif source is not None:
        file = read_recipe_file(source)
        content = file.choices
        own, changes = content.get("network"), _shorten_keys(changes)
        written = own.get("model") if isinstance(own, dict) else None
        model = changes.get("model", written or NetworkConfig().model)
        changes = {**_shorten_keys(file.networks.get(str(model), {})), **changes}
    for key, value in changes.items():
        place = _resolve_key(key)
        target = content
        for step in place[:-1]:
            target = target.setdefault(step, {})
        target[place[-1]] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(_format_validation_error(error)) from None


def expand_recipes(
    source: str | Path | Recipe | None = None,
    *,
    experiment: str = "",
    load: Callable[..., Recipe] = load_recipe,
    **changes: Any,
) -> dict[str, Recipe]:
    """Return one recipe for each combination of values given as lists, by run name.

    `model=["resnet18", "resnet50"], seed=[0, 1]` gives `resnet18-seed0`, `resnet18-seed1`, …; an `experiment` of the
    recipe's file brings lists of its own, which `changes` override. `make` makes each one of (source, changes).
    """
    asked = {**_read_experiment(source, experiment), **_shorten_keys(changes)}
    several = {
        key: value
        for key, value in asked.items()
        if isinstance(value, list) and (key == _RECIPE_KEY or not _takes_list(key))
    }
    fixed = {key: value for key, value in asked.items() if key not in several}
    found: dict[str, Recipe] = {}
    for combination in itertools.product(*several.values()):
        chosen = dict(zip(several, combination, strict=True))
        values = {**fixed, **chosen}
        one = load(values.pop(_RECIPE_KEY, source), **values)
        others = [
            f"{'' if key == _RECIPE_KEY else key}{_format_for_name(value)}"
            for key, value in chosen.items()
            if key != "model"
        ]
        name = "-".join([one.network.model, *others])
        if name in found:
            raise UsageError(f"{name} is asked for twice. Name each value once.")
        found[name] = one
    return found


def _read_experiment(source: str | Path | Recipe | None, name: str) -> dict[str, Any]:
    """Return the values and lists of values that a recipe's file has under the name of an experiment."""
    if not name:
        return {}
    if source is None or isinstance(source, Recipe):
        raise UsageError(f"experiment={name} needs the recipe that has it; `parfocal recipes` lists them.")
    known = {} if source == AUTO else read_recipe_file(source).experiments
    if name not in known:
        hint = did_you_mean(name, known) if known else "It has none; `parfocal recipes` lists those that have."
        raise UsageError(f"The recipe {source} has no experiment {name!r}. {hint}")
    return {key if key == _RECIPE_KEY else _resolve_key(key)[-1]: value for key, value in known[name].items()}


def _shorten_keys(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Write each key alone, so that a key in full and the same key alone are one."""
    return {_resolve_key(key)[-1]: value for key, value in changes.items()}


def validate_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes under their short keys, each value as a recipe holds it, or refuse it for itself alone."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        place = _resolve_key(key)
        field = _find_field(place)
        try:
            kind = Annotated[field.annotation, field]  # pyright: ignore[reportInvalidTypeForm]
            found[place[-1]] = TypeAdapter[Any](kind).validate_python(value)  # pyright: ignore[reportArgumentType]
        except ValidationError as error:
            raise UsageError(_format_validation_error(error, ".".join(place))) from None
    return found


def _format_for_name(value: object) -> str:
    """Write a value so that a folder can be called after it, also where it is a path."""
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-")


def parse_changes(arguments: Iterable[str]) -> dict[str, Any]:
    """Turn `key=value` words into changes; a comma makes a list, and everything else is read as YAML."""
    changes: dict[str, Any] = {}
    for word in arguments:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is not of the form key=value.")
        if key == "experiment":
            changes[key] = text
            continue
        _resolve_key(key)
        try:
            value = read_yaml(f"[{text}]" if "," in text and text[0] not in "[{" else text)
        except (yaml.YAMLError, ValueError):
            raise UsageError(f"The value in {word!r} cannot be read.") from None
        changes[key] = [value] if _takes_list(key) and not isinstance(value, list) else value
    return changes


def find_differences(base: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the keys on which two recipes differ, with both values."""
    first, second = _flatten(base.model_dump(mode="json")), _flatten(other.model_dump(mode="json"))
    return {key: (first.get(key), second.get(key)) for key in first if first.get(key) != second.get(key)}


def list_keys() -> dict[str, tuple[str, ...]]:
    """Return every key of a recipe by its short name, with the path to it."""
    places: dict[str, tuple[str, ...]] = {}
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            places.update({leaf: (name, leaf) for leaf in field.annotation.model_fields})
        else:
            places[name] = (name,)
    return places


def describe_keys() -> list[tuple[str, str, str]]:
    """Return every key of a recipe in full, its default as one would write it, and what it means with its choices."""
    rows: list[tuple[str, str, str]] = []
    for place in list_keys().values():
        field = _find_field(place)
        default = "" if field.default in (None, (), {}) else yaml.safe_dump(field.default).splitlines()[0].strip("'")
        choices = [one for one in _find_literals(field.annotation) if isinstance(one, str)]
        meaning = f"{field.description} ({', '.join(choices)})" if choices else str(field.description)
        rows.append((".".join(place), default, meaning))
    return rows


def _find_literals(annotation: Any) -> list[Any]:
    """Return the words of a Literal, also where it stands in a union or a tuple."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for inner in get_args(annotation) for word in _find_literals(inner)]


def _takes_list(key: str) -> bool:
    """Say whether a key's value is itself a list, so that commas in it make no variants."""
    return get_origin(_find_field(_resolve_key(key)).annotation) is tuple


def _find_field(key_path: tuple[str, ...]) -> FieldInfo:
    holder = Recipe if len(key_path) == 1 else type(Recipe.model_fields[key_path[0]].default)
    return holder.model_fields[key_path[-1]]


def _resolve_key(key: str) -> tuple[str, ...]:
    places = list_keys()
    if key in places:
        return places[key]
    full = {".".join(place): place for place in places.values()}
    if key in full:
        return full[key]
    if key == "experiment":
        raise UsageError("An experiment is several runs; `parfocal train` and nothing else takes experiment=….")
    raise UsageError(f"A recipe has no key {key!r}. {did_you_mean(key, full if '.' in key else places)}")


def _flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value})
    return flat


def _suggest_key(key: str) -> str:
    """Say where a misplaced key of a recipe's file belongs, or what is near a misspelt one."""
    if key in list_keys():
        return f"It belongs to the part {list_keys()[key][0]!r}."
    return did_you_mean(key, [".".join(full) for full in list_keys().values()] if "." in key else Recipe.model_fields)


def _format_validation_error(error: ValidationError, key_path: str = "") -> str:
    lines: list[str] = []
    for fault in error.errors():
        place = key_path or ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"A recipe has no key {place!r}. {_suggest_key(place)}")
        elif fault["type"] == "literal_error":
            choices = [
                choice.strip("'") for choice in fault.get("ctx", {})["expected"].replace(" or ", ", ").split(", ")
            ]
            text = f"{place}={fault['input']} is not a choice. {did_you_mean(str(fault['input']), choices)}"
            lines.append(text if "Valid are" in text else f"{text} Valid are: {', '.join(choices)}.")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            lines.append(
                f"{place}={fault['input']}: {message}." if place and fault["type"] != "value_error" else f"{message}."
            )
    return "\n".join(dict.fromkeys(lines))
