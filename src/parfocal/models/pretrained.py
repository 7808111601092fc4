"""Where a network's first weights come from: chance, published weights, a file, or an earlier run."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parfocal.download import compute_file_hash, download
from parfocal.errors import ParfocalError, UsageError, did_you_mean, join_limited
from parfocal.io import get_cache_folder
from parfocal.models import resnet
from parfocal.models.checkpoints import load_pth, read_safetensors
from parfocal.models.classifier import ORDINAL_HEAD_PREFIX, Classifier
from parfocal.run import Run, find_runs
from parfocal.schema import NetworkConfig

PRETRAINED_HASHES: dict[str, dict[str, str]] = {
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

_PRETRAINED_URL = "https://download.pytorch.org/models"
_FIRST_CONV, _HEAD_PREFIXES = "conv1.weight", ("fc.", ORDINAL_HEAD_PREFIX)
_MAX_ROWS = 12


@dataclass(frozen=True)
class LoadReport:
    """Which weights of a file a network took, by name.

    `adapted` is the first convolution brought to another number of channels, `left_as_new` what the network keeps of
    its own fresh weights, `not_used` what the file holds beyond.
    """

    init: str
    file: str
    file_hash: str
    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    newly_initialized: tuple[str, ...]
    unused: tuple[str, ...]

    def describe(self) -> str:
        """Say in one line what was taken."""
        taken = len(self.loaded) + len(self.adapted)
        told = [("adapted", self.adapted), ("new", self.newly_initialized), ("not used", self.unused)]
        rest = "".join(f"; {word}: {join_limited(names, 3)}" for word, names in told if names)
        return f"Started from {self.file}: {taken} of {taken + len(self.newly_initialized)} weights{rest}."


def fetch_initial_weights(config: NetworkConfig) -> Path | None:
    """Return the file that a recipe's `init` means, fetched where it is published; None to start from scratch."""
    resnet.get_architecture(config.model)
    if config.init == "scratch":
        return None
    if config.init in PRETRAINED_HASHES:
        return _download_pretrained(config)
    if config.init.startswith("hf:"):
        return _download_from_hub(config.init.removeprefix("hf:"))
    place = Path(config.init).expanduser()
    if place.is_dir():
        return _find_run_weights(place, config.model)
    if not place.is_file():
        raise UsageError(
            f"init={config.init} is not there. {did_you_mean(config.init, ('scratch', *PRETRAINED_HASHES))} "
            "Or say hf:OWNER/REPOSITORY, or name a .pth or .safetensors file or a run folder."
        )
    return place


def validate_initial_weights(config: NetworkConfig) -> None:
    """Refuse a network that cannot be built; fetch what it starts from, and refuse what does not fit it."""
    resnet.resolve_architecture(
        config.model, stem=config.stem, groups=config.groups, width_per_group=config.width_per_group
    )
    if file := fetch_initial_weights(config):
        with torch.device("meta"):
            options = config.model_dump(exclude={"model", "normalization", "init"})
            own = resnet.build_resnet(config.model, n_classes=2, **options).state_dict()
        tensors, about = _read_weights(file, config)
        _match_weights(config, file, own, tensors, about is None)


def load_initial_weights(classifier: Classifier, config: NetworkConfig) -> LoadReport | None:
    """Give a network the weights that its recipe starts from; None where it starts from scratch."""
    file = fetch_initial_weights(config)
    if file is None:
        return None
    own = classifier.named_weights()
    tensors, about = _read_weights(file, config)
    fit = _match_weights(config, file, own, tensors, _has_same_head(about, classifier.metadata))
    with torch.no_grad():
        for name in fit.loaded:
            own[name].copy_(tensors[name])
        for name in fit.adapted:
            own[name].copy_(_adapt_channels(tensors[name], own[name].shape[1]))
    return fit


def is_cached(init: str, model: str) -> bool:
    """Say whether the published weights of a network are there already, so that nothing needs to be fetched."""
    return _get_cached_path(init, model).is_file()


def _download_pretrained(config: NetworkConfig) -> Path:
    names = PRETRAINED_HASHES[config.init]
    if config.model not in names:
        raise UsageError(
            f"There are no {config.init} weights for {config.model}; they are published for {', '.join(names)}."
        )
    file = _get_cached_path(config.init, config.model)
    return download(f"{_PRETRAINED_URL}/{file.name}", file, f"sha256:{names[config.model]}")


def _get_cached_path(init: str, model: str) -> Path:
    return get_cache_folder("weights", "PARFOCAL_WEIGHTS") / f"{model}-{PRETRAINED_HASHES[init][model]}.pth"


def _download_from_hub(repository: str) -> Path:
    """Fetch `model.safetensors` of a repository; the hub's note in its place says the hash."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"init=hf:{repository} is not of the form hf:OWNER/REPOSITORY.")
    at = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repository}"
    folder = get_cache_folder("weights", "PARFOCAL_WEIGHTS") / repository.replace("/", "--")
    file, note = folder / "model.safetensors", folder / "model.safetensors.note"
    if not file.exists() and not note.exists():
        try:
            download(f"{at}/raw/main/model.safetensors", note)
        except ParfocalError:
            # The file itself then says what is wrong; it can also be placed by hand without the note.
            return download(f"{at}/resolve/main/model.safetensors", file)
    found = re.search(rb"sha256:[0-9a-f]{64}", note.read_bytes()[:1000]) if note.exists() else None
    return download(f"{at}/resolve/main/model.safetensors", file, found[0].decode() if found else "")


def _find_run_weights(folder: Path, model: str) -> Path:
    """Return the weights of a run, or of the one run with the same network among several."""
    inside = [Run(folder)] if (folder / "recipe.yaml").is_file() else find_runs(folder)
    runs = inside if len(inside) == 1 else [run for run in inside if run.recipe.network.model == model]
    if len(runs) != 1:
        held = f"holds {len(inside)} runs, {len(runs)} of them of {model}" if inside else "is not a run folder"
        raise UsageError(
            f"init={folder} {held}. Name one run. Runs there: {join_limited(run.folder for run in inside)}."
        )
    if not runs[0].weights_path.is_file():
        raise ParfocalError(f"{runs[0].folder} has no weights yet. Let it finish an epoch first.")
    return runs[0].weights_path


def _read_weights(path: Path, config: NetworkConfig) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read a file's weights and, where Parfocal wrote it, the data about them.

    What names and shapes do not show is refused here: weights that saw other pixels, or halve them elsewhere.
    """
    tensors, about = read_safetensors(path) if path.suffix == ".safetensors" else (load_pth(path), None)
    trained = (about or {}).get("recipe", {}).get("network", {})
    for key in ("normalization", "stride_in"):
        was, now = trained.get(key), getattr(config, key)
        if was not in (None, now):
            raise UsageError(f"{path} was trained with {key}={was}, the recipe has {key}={now}. Say {key}={was}.")
    return tensors, about


def _match_weights(
    config: NetworkConfig,
    path: Path,
    network_weights: Mapping[str, Tensor],
    file_weights: Mapping[str, Tensor],
    same_head: bool,
) -> LoadReport:
    network_weights, file_weights = _drop_counters(network_weights), _drop_counters(file_weights)
    fitted = [
        name
        for name in network_weights
        if name in file_weights and file_weights[name].shape == network_weights[name].shape
    ]
    fitted = [name for name in fitted if same_head or not name.startswith(_HEAD_PREFIXES)]
    adapted = (
        [_FIRST_CONV]
        if _FIRST_CONV in file_weights and _differs_in_channels(file_weights[_FIRST_CONV], network_weights[_FIRST_CONV])
        else []
    )
    taken = {*fitted, *adapted}
    left, unused = (
        [name for name in network_weights if name not in taken],
        [name for name in file_weights if name not in taken],
    )
    if 2 * len(taken) < max(len(network_weights), len(file_weights)):
        raise ParfocalError(_format_mismatch(config, path, network_weights, file_weights, taken))
    return LoadReport(
        config.init,
        str(path.resolve()),
        compute_file_hash(path),
        tuple(fitted),
        tuple(adapted),
        tuple(left),
        tuple(unused),
    )


def _has_same_head(file_metadata: Mapping[str, Any] | None, network_metadata: Mapping[str, Any]) -> bool:
    """Say whether a file's head means what the network's does; of a foreign file only its shape is known."""
    return file_metadata is None or all(
        file_metadata.get(key, "none") == network_metadata[key] for key in ("classes", "ordinal_head")
    )


def _drop_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the counters of norms, which older files do not have and nothing depends on."""
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def _differs_in_channels(file_weight: Tensor, network_weight: Tensor) -> bool:
    alike = (
        file_weight.ndim == 4
        and file_weight.shape[0] == network_weight.shape[0]
        and file_weight.shape[2:] == network_weight.shape[2:]
    )
    return alike and file_weight.shape[1] != network_weight.shape[1]


def _adapt_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Spread a first convolution evenly over another number of channels; a grey image gives what it gave before."""
    total = weight.float().sum(dim=1, keepdim=True)
    return (total / in_channels).expand(-1, in_channels, -1, -1)


def _format_mismatch(
    config: NetworkConfig,
    path: Path,
    network_weights: Mapping[str, Tensor],
    file_weights: Mapping[str, Tensor],
    loaded: set[str],
) -> str:
    names = [name for name in dict.fromkeys([*network_weights, *file_weights]) if name not in loaded]
    rows = [
        (name, _format_shape(file_weights.get(name)), _format_shape(network_weights.get(name)))
        for name in names[:_MAX_ROWS]
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(2)]
    table = "\n".join(f"  {name:<{widths[0]}}  {file:<{widths[1]}}  {network}" for name, file, network in rows)
    more = f"\n  and {len(names) - _MAX_ROWS} more" if len(names) > _MAX_ROWS else ""
    likely = _guess_architecture(file_weights)
    advice = f"They look like those of model={likely}." if likely else "They are of another kind of network."
    return (
        f"{path} does not fit {config.model}: {len(loaded)} of its {len(file_weights)} weights are used, for {len(loaded)} of the "
        f"network's {len(network_weights)}. {advice} What does not fit (name, in the file, in the network):\n{table}{more}"
    )


def _format_shape(tensor: Tensor | None) -> str:
    return "–" if tensor is None else "×".join(map(str, tensor.shape)) or "one value"


def _guess_architecture(file_weights: Mapping[str, Tensor]) -> str:
    """Return the network whose weights have just these names and shapes, but for the head and the first convolution."""
    shapes = _get_backbone_shapes(file_weights)
    for name in resnet.ARCHITECTURES:
        with torch.device("meta"):
            if _get_backbone_shapes(_drop_counters(resnet.build_resnet(name, n_classes=2).state_dict())) == shapes:
                return name
    return ""


def _get_backbone_shapes(state: Mapping[str, Tensor]) -> dict[str, Sequence[int]]:
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if name != _FIRST_CONV and not name.startswith(_HEAD_PREFIXES)
    }
