"""Initial weights for transfer learning: read them, recognize their network, and load what fits by name and shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parfocal.download import compute_file_hash
from parfocal.errors import ParfocalError, UsageError, join_limited
from parfocal.manifest import verify_file
from parfocal.models.architectures import ARCHITECTURES, resolve_architecture
from parfocal.models.checkpoints import load_pth, read_safetensors, require_finite
from parfocal.models.classifier import ORDINAL_HEAD_PREFIX, Classifier, get_network_options
from parfocal.models.resnet import build_resnet
from parfocal.models.weight_files import PRETRAINED_HASHES, fetch_initial_weights, find_local_weights
from parfocal.recipe_schema import NetworkConfig

_FIRST_CONV = "conv1.weight"
_FIRST_BIAS = "conv1.bias"
_SMALL_KERNEL = 3
"""The side of the first convolution of a small stem."""

_NETWORK_KEYS = ("normalization", "stem", "stride_in", "groups", "width_per_group")
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


def recognize_network(config: NetworkConfig) -> dict[str, Any]:
    """Return the network keys, `model` first, that the weights of `init` belong to; empty if that is not known.

    `config.model` chooses among the runs of a folder, and among published weights. Nothing is downloaded.
    """
    path = None if config.init in PRETRAINED_HASHES else find_local_weights(config)
    if path is None:
        return {}
    weights, metadata = _read_file(path)
    trained_with = _get_trained_network(metadata)
    model = str(trained_with.get("model") or _recognize_model(weights))
    if model not in ARCHITECTURES:
        return {}
    keys = {key: trained_with[key] for key in _NETWORK_KEYS if trained_with.get(key) is not None}
    has_small_stem = _FIRST_CONV in weights and weights[_FIRST_CONV].shape[-1] == _SMALL_KERNEL
    if has_small_stem and ARCHITECTURES[model].stem != "small":
        keys["stem"] = "small"
    if _FIRST_BIAS in weights:
        keys["conv_bias"] = True
    return {"model": model, **keys}


def validate_initial_weights(config: NetworkConfig) -> None:
    """Reject a network that cannot be built; download its initial weights and reject those that do not fit."""
    resolve_architecture(config.model, stem=config.stem, groups=config.groups, width_per_group=config.width_per_group)
    path = fetch_initial_weights(config)
    if path is None:
        return
    file_weights, metadata = _read_weights(path, config)
    network_weights = build_meta_weights(config.model, **get_network_options(config))
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


def build_meta_weights(model: str, n_classes: int = 2, **options: Any) -> dict[str, Tensor]:
    """Return the weights of a network with names and shapes, but without values."""
    with torch.device("meta"):
        return build_resnet(model, n_classes, **options).state_dict()


def _read_weights(path: Path, config: NetworkConfig) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read the weights of a file, and the metadata if Parfocal wrote it.

    Names and shapes do not show another normalization or another `stride_in`, and a bias that is missing or left out
    would change the features unnoticed, so they are checked here.
    """
    weights, metadata = _read_file(path)
    trained_with = _get_trained_network(metadata)
    for key in ("normalization", "stride_in"):
        trained_value = trained_with.get(key)
        value = getattr(config, key)
        if trained_value not in (None, value):
            raise UsageError(
                f"{path} was trained with {key}={trained_value}, but the recipe has {key}={value}. "
                f"Set {key}={trained_value}."
            )
    has_bias = _FIRST_BIAS in weights
    if _FIRST_CONV in weights and has_bias != config.conv_bias:
        raise UsageError(
            f"The convolutions of {path} have {'a' if has_bias else 'no'} bias, unlike those of the recipe. "
            f"Set conv_bias={str(has_bias).lower()}."
        )
    return weights, metadata


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read the weights of a file, which must be finite, and the metadata if Parfocal wrote it."""
    if (path.parent / "recipe.yaml").is_file():
        verify_file(path)
    weights, metadata = read_safetensors(path) if path.suffix == ".safetensors" else (load_pth(path), None)
    require_finite(path, weights)
    return weights, metadata


def _get_trained_network(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Return the section `network` of the recipe that weights were trained with; empty if it is unknown."""
    recipe = (metadata or {}).get("recipe") or {}
    network = recipe.get("network") if isinstance(recipe, dict) else None
    return network if isinstance(network, dict) else {}


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
    model = _recognize_model(file_weights)
    advice = f"The file looks like model={model}." if model else "The file is of another kind of network."
    return (
        f"{path} does not fit {config.model}: {len(matched)} of its {len(file_weights)} weights match "
        f"{len(matched)} of the {len(network_weights)} weights of the network. {advice} "
        f"Weights that do not match (name, shape in the file, shape in the network):\n{table}{more}"
    )


def _recognize_model(weights: Mapping[str, Tensor]) -> str:
    """Return the name of the network that has these weights, by names and shapes, or an empty string."""
    backbone = _get_backbone_shapes(weights)
    conv_bias = _FIRST_BIAS in weights
    for name in ARCHITECTURES:
        if _get_backbone_shapes(build_meta_weights(name, conv_bias=conv_bias)) == backbone:
            return name
    return ""


def _format_shape(tensor: Tensor | None) -> str:
    return "–" if tensor is None else "×".join(map(str, tensor.shape)) or "one value"


def _get_backbone_shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by name, except for the head and the first convolution."""
    return {
        name: tuple(weight.shape)
        for name, weight in _drop_counters(weights).items()
        if name != _FIRST_CONV and not name.startswith(_HEAD_PREFIXES)
    }
