"""Initial weights for transfer learning: torchvision's ImageNet weights, the Hugging Face Hub, a file, or a run."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parfocal.download import compute_file_hash, download
from parfocal.errors import ParfocalError, UsageError, find_similar, join_limited
from parfocal.io import get_cache_folder
from parfocal.manifest import file_exists, verify_file
from parfocal.models.architectures import ARCHITECTURES, resolve_architecture
from parfocal.models.checkpoints import load_pth, read_safetensors, require_finite
from parfocal.models.classifier import ORDINAL_HEAD_PREFIX, Classifier, get_network_options
from parfocal.models.resnet import build_resnet
from parfocal.recipe_schema import NetworkConfig
from parfocal.run import Run, find_runs

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
"""The first digits of the SHA-256 of torchvision's files, which are in their names: `resnet18-f37072fd.pth`."""

_PRETRAINED_URL = "https://download.pytorch.org/models"
_FIRST_CONV = "conv1.weight"
_HEAD_PREFIXES = ("fc.", ORDINAL_HEAD_PREFIX)
_MAX_ROWS = 12


@dataclass(frozen=True)
class LoadReport:
    """Which weights of a file were loaded into a network, by name.

    `adapted` is the first convolution if it was adapted to another number of input channels, `newly_initialized` lists
    the weights of the network that are not in the file, and `unused` the weights of the file that are not in the
    network.
    """

    init: str
    file: str
    file_hash: str
    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    newly_initialized: tuple[str, ...]
    unused: tuple[str, ...]

    def describe(self) -> str:
        """Describe in a line what was loaded."""
        n_loaded = len(self.loaded) + len(self.adapted)
        counts = f"{n_loaded} of {n_loaded + len(self.newly_initialized)} weights"
        lists = {"adapted": self.adapted, "newly initialized": self.newly_initialized, "unused": self.unused}
        details = [f"{label}: {join_limited(names, 3)}" for label, names in lists.items() if names]
        return f"Started from {self.file}: {'; '.join([counts, *details])}."


def fetch_initial_weights(config: NetworkConfig) -> Path | None:
    """Return the file of a recipe's `init`, downloaded if necessary; None for random weights."""
    if config.init == "scratch":
        return None
    if config.init in PRETRAINED_HASHES:
        hashes = PRETRAINED_HASHES[config.init]
        if config.model not in hashes:
            raise UsageError(
                f"There are no {config.init} weights for {config.model}; they are available for {', '.join(hashes)}."
            )
        path = _get_cached_path(config.init, config.model)
        return download(f"{_PRETRAINED_URL}/{path.name}", path, f"sha256:{hashes[config.model]}")
    if config.init.startswith("hf:"):
        return _download_from_hub(config.init.removeprefix("hf:"))
    path = Path(config.init).expanduser()
    if path.is_dir():
        return _find_run_weights(path, config.model)
    if not path.is_file():
        similar = find_similar(config.init, ("scratch", *PRETRAINED_HASHES))
        hint = f"Did you mean {similar!r}? " if similar else ""
        raise UsageError(
            f"init={config.init} does not exist. {hint}Valid are scratch, {', '.join(PRETRAINED_HASHES)}, "
            "hf:OWNER/REPOSITORY, a .pth or .safetensors file, or a run folder."
        )
    return path


def validate_initial_weights(config: NetworkConfig) -> None:
    """Reject a network that cannot be built; download its initial weights and reject those that do not fit."""
    resolve_architecture(config.model, stem=config.stem, groups=config.groups, width_per_group=config.width_per_group)
    path = fetch_initial_weights(config)
    if path is None:
        return
    file_weights, metadata = _read_weights(path, config)
    network_weights = _build_meta_weights(config.model, **get_network_options(config))
    _match_weights(config, path, network_weights, file_weights, metadata is None)


def load_initial_weights(classifier: Classifier, config: NetworkConfig) -> LoadReport | None:
    """Load the initial weights of a recipe into a classifier; return None if the recipe trains from scratch."""
    path = fetch_initial_weights(config)
    if path is None:
        return None
    network_weights = classifier.named_weights()
    file_weights, metadata = _read_weights(path, config)
    # The head of a foreign file is compared by its shape only.
    same_head = metadata is None or all(
        metadata.get(key, "none") == classifier.metadata[key] for key in ("classes", "ordinal_head")
    )
    report = _match_weights(config, path, network_weights, file_weights, same_head)
    with torch.no_grad():
        for name in report.loaded:
            network_weights[name].copy_(file_weights[name])
        for name in report.adapted:
            # Spread evenly over the input channels, so that gray images keep their features.
            in_channels = network_weights[name].shape[1]
            total = file_weights[name].float().sum(dim=1, keepdim=True)
            network_weights[name].copy_((total / in_channels).expand(-1, in_channels, -1, -1))
    return report


def is_cached(init: str, model: str) -> bool:
    """Return whether the pretrained weights of a network are in the cache, so that no download is needed."""
    return _get_cached_path(init, model).is_file()


def _get_cached_path(init: str, model: str) -> Path:
    return get_cache_folder("weights", "PARFOCAL_WEIGHTS") / f"{model}-{PRETRAINED_HASHES[init][model]}.pth"


def _download_from_hub(repository: str) -> Path:
    """Download `model.safetensors` of a repository; its Git LFS pointer contains the hash."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"init=hf:{repository} is not of the form hf:OWNER/REPOSITORY.")
    url = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repository}"
    path = get_cache_folder("weights", "PARFOCAL_WEIGHTS") / repository.replace("/", "--") / "model.safetensors"
    pointer = path.with_name("model.safetensors.note")
    if not path.exists() and not pointer.exists():
        try:
            download(f"{url}/raw/main/model.safetensors", pointer)
        except ParfocalError:
            # The download of the file itself then reports the error, and the file can be placed without the pointer.
            return download(f"{url}/resolve/main/model.safetensors", path)
    found = re.search(rb"sha256:[0-9a-f]{64}", pointer.read_bytes()[:1000]) if pointer.exists() else None
    return download(f"{url}/resolve/main/model.safetensors", path, found[0].decode() if found else "")


def _find_run_weights(folder: Path, model: str) -> Path:
    """Return the weights of a run, or of the only run with the same network in a folder of runs."""
    all_runs = [Run(folder)] if (folder / "recipe.yaml").is_file() else find_runs(folder)
    runs = all_runs if len(all_runs) == 1 else [run for run in all_runs if run.recipe.network.model == model]
    if not all_runs:
        raise UsageError(f"init={folder} is not a run folder and contains no runs. Name a run folder.")
    if len(runs) != 1:
        raise UsageError(
            f"init={folder} contains {len(all_runs)} runs, {len(runs)} of them of {model}. "
            f"Name one run: {join_limited(run.folder for run in all_runs)}."
        )
    if not file_exists(runs[0].weights_path):
        raise ParfocalError(f"{runs[0].folder} has no weights yet. Let it finish an epoch first.")
    return runs[0].weights_path


def _read_weights(path: Path, config: NetworkConfig) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read the weights of a file, and the metadata if Parfocal wrote it.

    Names and shapes do not show another normalization or another `stride_in`, so they are checked here.
    """
    if (path.parent / "recipe.yaml").is_file():
        verify_file(path)
    weights, metadata = read_safetensors(path) if path.suffix == ".safetensors" else (load_pth(path), None)
    require_finite(path, weights)
    recipe = (metadata or {}).get("recipe") or {}
    trained_with = recipe.get("network") if isinstance(recipe, dict) else None
    if not isinstance(trained_with, dict):
        trained_with = {}
    for key in ("normalization", "stride_in"):
        trained_value = trained_with.get(key)
        value = getattr(config, key)
        if trained_value not in (None, value):
            raise UsageError(
                f"{path} was trained with {key}={trained_value}, but the recipe has {key}={value}. "
                f"Set {key}={trained_value}."
            )
    return weights, metadata


def _match_weights(
    config: NetworkConfig,
    path: Path,
    network_weights: Mapping[str, Tensor],
    file_weights: Mapping[str, Tensor],
    same_head: bool,
) -> LoadReport:
    """Match weights by name and shape; reject a file if less than half of it fits."""
    network_weights = _drop_counters(network_weights)
    file_weights = _drop_counters(file_weights)
    loaded = [
        name
        for name, weight in network_weights.items()
        if name in file_weights
        and file_weights[name].shape == weight.shape
        and (same_head or not name.startswith(_HEAD_PREFIXES))
    ]
    # A first convolution that differs only in the number of input channels is adapted.
    adapted: list[str] = []
    if _FIRST_CONV in file_weights and _FIRST_CONV not in loaded:
        shape = network_weights[_FIRST_CONV].shape
        file_shape = file_weights[_FIRST_CONV].shape
        if len(file_shape) == 4 and (file_shape[0], *file_shape[2:]) == (shape[0], *shape[2:]):
            adapted = [_FIRST_CONV]
    matched = {*loaded, *adapted}
    if 2 * len(matched) < max(len(network_weights), len(file_weights)):
        raise ParfocalError(_format_mismatch(config, path, network_weights, file_weights, matched))
    return LoadReport(
        init=config.init,
        file=str(path.resolve()),
        file_hash=compute_file_hash(path),
        loaded=tuple(loaded),
        adapted=tuple(adapted),
        newly_initialized=tuple(name for name in network_weights if name not in matched),
        unused=tuple(name for name in file_weights if name not in matched),
    )


def _drop_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the counters of batch norms, which older files lack and nothing depends on."""
    return {name: weight for name, weight in weights.items() if not name.endswith("num_batches_tracked")}


def _build_meta_weights(model: str, **options: Any) -> dict[str, Tensor]:
    """Return the weights of a network with names and shapes, but without values."""
    with torch.device("meta"):
        return build_resnet(model, n_classes=2, **options).state_dict()


def _format_mismatch(
    config: NetworkConfig,
    path: Path,
    network_weights: Mapping[str, Tensor],
    file_weights: Mapping[str, Tensor],
    matched: set[str],
) -> str:
    names = [name for name in dict.fromkeys([*network_weights, *file_weights]) if name not in matched]
    rows = [
        (name, _format_shape(file_weights.get(name)), _format_shape(network_weights.get(name)))
        for name in names[:_MAX_ROWS]
    ]
    name_width, shape_width, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    table = "\n".join(f"  {name:<{name_width}}  {shape:<{shape_width}}  {other}" for name, shape, other in rows)
    more = f"\n  and {len(names) - _MAX_ROWS} more" if len(names) > _MAX_ROWS else ""
    backbone = _get_backbone_shapes(file_weights)
    candidates = (name for name in ARCHITECTURES if _get_backbone_shapes(_build_meta_weights(name)) == backbone)
    model = next(candidates, "")
    advice = f"The file looks like model={model}." if model else "The file is of another kind of network."
    return (
        f"{path} does not fit {config.model}: {len(matched)} of its {len(file_weights)} weights match "
        f"{len(matched)} of the {len(network_weights)} weights of the network. {advice} "
        f"Weights that do not match (name, shape in the file, shape in the network):\n{table}{more}"
    )


def _format_shape(tensor: Tensor | None) -> str:
    return "–" if tensor is None else "×".join(map(str, tensor.shape)) or "one value"


def _get_backbone_shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by name, except for the head and the first convolution."""
    return {
        name: tuple(weight.shape)
        for name, weight in _drop_counters(weights).items()
        if name != _FIRST_CONV and not name.startswith(_HEAD_PREFIXES)
    }
