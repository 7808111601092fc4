"""Where a network's first weights come from: chance, published weights, a file, or an earlier run."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parfocal.download import digest_of, download
from parfocal.errors import ParfocalError, UsageError, listing, nearest
from parfocal.files import cache_folder
from parfocal.model import resnet
from parfocal.model.classifier import LINK, Classifier
from parfocal.model.pickled import read_pickled
from parfocal.model.weights import read_tensors_of_others
from parfocal.parts import NetworkPart
from parfocal.run import Run, runs_in

PUBLISHED: dict[str, dict[str, str]] = {
    "imagenet": {
        "resnet18": "f37072fd",
        "resnet34": "b627a593",
        "resnet50": "0676ba61",
        "resnet101": "63fe2227",
        "resnet152": "394f9c45",
        "resnext50_32x4d": "7cdf4587",
        "wide_resnet50_2": "95faca4d",
    },
    "imagenet-v2": {
        "resnet50": "11ad3fa6",
        "resnet101": "cd907fc2",
        "resnet152": "f82ba261",
        "resnext50_32x4d": "1a0047aa",
        "wide_resnet50_2": "9ba9bcbe",
    },
}
"""The beginning of the SHA-256 of torchvision's files, which their names carry: `resnet18-f37072fd.pth`."""

_PUBLISHED_AT = "https://download.pytorch.org/models"
_FIRST, _HEAD = "conv1.weight", ("fc.", LINK)
_LINES = 12


@dataclass(frozen=True)
class Fit:
    """Which weights of a file a network took, by name.

    `adapted` is the first convolution brought to another number of channels, `left_as_new` what the network keeps of
    its own fresh weights, `not_used` what the file holds beyond.
    """

    init: str
    file: str
    digest: str
    fitted: tuple[str, ...]
    adapted: tuple[str, ...]
    left_as_new: tuple[str, ...]
    not_used: tuple[str, ...]

    def line(self) -> str:
        """Say in one line what was taken."""
        taken = len(self.fitted) + len(self.adapted)
        told = [("adapted", self.adapted), ("new", self.left_as_new), ("not used", self.not_used)]
        rest = "".join(f"; {word}: {listing(names, 3)}" for word, names in told if names)
        return f"Started from {self.file}: {taken} of {taken + len(self.left_as_new)} weights{rest}."


def start_file(part: NetworkPart) -> Path | None:
    """Return the file that a recipe's `init` means, fetched where it is published; None to start from scratch."""
    resnet.look_up(part.model)
    if part.init == "scratch":
        return None
    if part.init in PUBLISHED:
        return _published(part)
    if part.init.startswith("hf:"):
        return _from_hub(part.init.removeprefix("hf:"))
    place = Path(part.init).expanduser()
    if place.is_dir():
        return _of_run(place, part.model)
    if not place.is_file():
        raise UsageError(
            f"init={part.init} is not there. {nearest(part.init, ('scratch', *PUBLISHED))} "
            "Or say hf:OWNER/REPOSITORY, or name a .pth or .safetensors file or a run folder."
        )
    return place


def require_start(part: NetworkPart) -> None:
    """Refuse a network that cannot be built; fetch what it starts from, and refuse what does not fit it."""
    resnet.shape_of(part.model, stem=part.stem, groups=part.groups, group_width=part.group_width)
    if file := start_file(part):
        with torch.device("meta"):
            options = part.model_dump(exclude={"model", "normalise", "init"})
            own = resnet.build(part.model, classes=2, **options).state_dict()
        tensors, about = _read(file, part)
        _fit(part, file, own, tensors, about is None)


def start(classifier: Classifier, part: NetworkPart) -> Fit | None:
    """Give a network the weights that its recipe starts from; None where it starts from scratch."""
    file = start_file(part)
    if file is None:
        return None
    own = classifier.named_weights()
    tensors, about = _read(file, part)
    fit = _fit(part, file, own, tensors, _same_head(about, classifier.about))
    with torch.no_grad():
        for name in fit.fitted:
            own[name].copy_(tensors[name])
        for name in fit.adapted:
            own[name].copy_(_in_channels(tensors[name], own[name].shape[1]))
    return fit


def at_hand(init: str, model: str) -> bool:
    """Say whether the published weights of a network are there already, so that nothing needs to be fetched."""
    return _published_file(init, model).is_file()


def _published(part: NetworkPart) -> Path:
    names = PUBLISHED[part.init]
    if part.model not in names:
        raise UsageError(
            f"There are no {part.init} weights for {part.model}; they are published for {', '.join(names)}."
        )
    file = _published_file(part.init, part.model)
    return download(f"{_PUBLISHED_AT}/{file.name}", file, f"sha256:{names[part.model]}")


def _published_file(init: str, model: str) -> Path:
    return cache_folder("weights", "PARFOCAL_WEIGHTS") / f"{model}-{PUBLISHED[init][model]}.pth"


def _from_hub(repository: str) -> Path:
    """Fetch `model.safetensors` of a repository; the hub's note in its place says the hash."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"init=hf:{repository} is not of the form hf:OWNER/REPOSITORY.")
    at = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repository}"
    folder = cache_folder("weights", "PARFOCAL_WEIGHTS") / repository.replace("/", "--")
    file, note = folder / "model.safetensors", folder / "model.safetensors.note"
    if not file.exists() and not note.exists():
        try:
            download(f"{at}/raw/main/model.safetensors", note)
        except ParfocalError:
            # The file itself then says what is wrong; it can also be placed by hand without the note.
            return download(f"{at}/resolve/main/model.safetensors", file)
    found = re.search(rb"sha256:[0-9a-f]{64}", note.read_bytes()[:1000]) if note.exists() else None
    return download(f"{at}/resolve/main/model.safetensors", file, found[0].decode() if found else "")


def _of_run(folder: Path, model: str) -> Path:
    """Return the weights of a run, or of the one run with the same network among several."""
    inside = [Run(folder)] if (folder / "recipe.yaml").is_file() else runs_in(folder)
    runs = inside if len(inside) == 1 else [run for run in inside if run.recipe.network.model == model]
    if len(runs) != 1:
        held = f"holds {len(inside)} runs, {len(runs)} of them of {model}" if inside else "is not a run folder"
        raise UsageError(f"init={folder} {held}. Name one run. Runs there: {listing(run.folder for run in inside)}.")
    if not runs[0].weights.is_file():
        raise ParfocalError(f"{runs[0].folder} has no weights yet. Let it finish an epoch first.")
    return runs[0].weights


def _read(file: Path, part: NetworkPart) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read a file's weights and, where Parfocal wrote it, the data about them.

    What names and shapes do not show is refused here: weights that saw other pixels, or halve them elsewhere.
    """
    tensors, about = read_tensors_of_others(file) if file.suffix == ".safetensors" else (read_pickled(file), None)
    trained = (about or {}).get("recipe", {}).get("network", {})
    for key in ("normalise", "stride_in"):
        was, now = trained.get(key), getattr(part, key)
        if was not in (None, now):
            raise UsageError(f"{file} was trained with {key}={was}, the recipe has {key}={now}. Say {key}={was}.")
    return tensors, about


def _fit(
    part: NetworkPart,
    file: Path,
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    same_head: bool,
) -> Fit:
    own, given = _weights(own), _weights(given)
    fitted = [name for name in own if name in given and given[name].shape == own[name].shape]
    fitted = [name for name in fitted if same_head or not name.startswith(_HEAD)]
    adapted = [_FIRST] if _FIRST in given and _differs_in_channels(given[_FIRST], own[_FIRST]) else []
    taken = {*fitted, *adapted}
    left, unused = [name for name in own if name not in taken], [name for name in given if name not in taken]
    if 2 * len(taken) < max(len(own), len(given)):
        raise ParfocalError(_misfit(part, file, own, given, taken))
    return Fit(
        part.init, str(file.resolve()), digest_of(file), tuple(fitted), tuple(adapted), tuple(left), tuple(unused)
    )


def _same_head(about: Mapping[str, Any] | None, own: Mapping[str, Any]) -> bool:
    """Say whether a file's head means what the network's does; of a foreign file only its shape is known."""
    return about is None or all(about.get(key, "none") == own[key] for key in ("classes", "link"))


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the counters of norms, which older files do not have and nothing depends on."""
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def _differs_in_channels(given: Tensor, own: Tensor) -> bool:
    alike = given.ndim == 4 and given.shape[0] == own.shape[0] and given.shape[2:] == own.shape[2:]
    return alike and given.shape[1] != own.shape[1]


def _in_channels(weight: Tensor, channels: int) -> Tensor:
    """Spread a first convolution evenly over another number of channels; a grey image gives what it gave before."""
    total = weight.float().sum(dim=1, keepdim=True)
    return (total / channels).expand(-1, channels, -1, -1)


def _misfit(
    part: NetworkPart, file: Path, own: Mapping[str, Tensor], given: Mapping[str, Tensor], taken: set[str]
) -> str:
    names = [name for name in dict.fromkeys([*own, *given]) if name not in taken]
    rows = [(name, _shape(given.get(name)), _shape(own.get(name))) for name in names[:_LINES]]
    widths = [max(len(row[place]) for row in rows) for place in range(2)]
    table = "\n".join(f"  {name:<{widths[0]}}  {file:<{widths[1]}}  {network}" for name, file, network in rows)
    more = f"\n  and {len(names) - _LINES} more" if len(names) > _LINES else ""
    likely = _likely(given)
    advice = f"They look like those of model={likely}." if likely else "They are of another kind of network."
    return (
        f"{file} does not fit {part.model}: {len(taken)} of its {len(given)} weights are used, for {len(taken)} of the "
        f"network's {len(own)}. {advice} What does not fit (name, in the file, in the network):\n{table}{more}"
    )


def _shape(tensor: Tensor | None) -> str:
    return "–" if tensor is None else "×".join(map(str, tensor.shape)) or "one value"


def _likely(given: Mapping[str, Tensor]) -> str:
    """Return the network whose weights have just these names and shapes, but for the head and the first convolution."""
    shapes = _body(given)
    for name in resnet.ARCHITECTURES:
        with torch.device("meta"):
            if _body(_weights(resnet.build(name, classes=2).state_dict())) == shapes:
                return name
    return ""


def _body(state: Mapping[str, Tensor]) -> dict[str, Sequence[int]]:
    return {name: tuple(value.shape) for name, value in state.items() if name != _FIRST and not name.startswith(_HEAD)}
