"""The initial weights of `init=auto`: ImageNet's for all networks of a command if they can be had, else random ones."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parfocal.download import is_offline
from parfocal.errors import ParfocalError
from parfocal.models.architectures import get_architecture, resolve_architecture
from parfocal.models.pretrained import build_meta_weights
from parfocal.models.weight_files import PRETRAINED_HASHES, fetch_initial_weights, find_local_weights, get_address
from parfocal.recipe import format_value
from parfocal.recipe_schema import PRETRAINED_NORMALIZATIONS, NetworkConfig

_PRETRAINED = "imagenet"
_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Start:
    """A value for `init` in place of `auto`, with the reason; `to_fetch` are the networks whose weights are missing."""

    init: str
    reason: str
    to_fetch: tuple[str, ...] = ()


def find_start(networks: Sequence[NetworkConfig]) -> Start:
    """Resolve `init=auto` for networks that are to be compared, without asking the internet.

    All of them get ImageNet weights, or none does, so that a comparison is fair.
    """
    if misfit := next(filter(None, map(explain_misfit, networks)), ""):
        return Start("scratch", misfit)
    models = dict.fromkeys(network.model for network in networks)
    missing = tuple(model for model in models if find_local_weights(_configure(model)) is None)
    if not missing:
        return Start(_PRETRAINED, "the ImageNet weights are on this machine; set init=scratch to do without")
    if is_offline():
        return fetch_start(Start(_PRETRAINED, "", missing))
    return Start(_PRETRAINED, f"training would fetch {describe_download(missing)}", missing)


def fetch_start(start: Start) -> Start:
    """Download the missing weights of a start; return the start from scratch if one of them cannot be had."""
    for model in start.to_fetch:
        try:
            fetch_initial_weights(_configure(model))
        except ParfocalError as error:
            return Start("scratch", str(error))
    return Start(start.init, f"fetched the ImageNet weights of {', '.join(start.to_fetch)}")


def describe_download(models: Iterable[str]) -> str:
    """Return the size and the address of the ImageNet weights of networks."""
    return ", ".join(f"{_compute_megabytes(model)} MB from {get_address(_PRETRAINED, model)}" for model in models)


def explain_misfit(network: NetworkConfig) -> str:
    """Return why there are no ImageNet weights for a network, or an empty string if there are."""
    if network.model not in PRETRAINED_HASHES[_PRETRAINED]:
        return f"there are no ImageNet weights for {network.model}"
    if network.normalization not in PRETRAINED_NORMALIZATIONS:
        return f"ImageNet weights need another normalization than {network.normalization}"
    options = network.model_dump(include={"stem", "stride_in", "groups", "width_per_group", "conv_bias"})
    published = get_architecture(network.model)
    if resolve_architecture(network.model, **options) != published:
        changes = {key: value for key, value in options.items() if value not in (None, getattr(published, key))}
        listed = ", ".join(f"{key}={format_value(value)}" for key, value in changes.items())
        return f"there are no ImageNet weights for {listed}"
    return ""


def _configure(model: str) -> NetworkConfig:
    return NetworkConfig(model=model, init=_PRETRAINED)


def _compute_megabytes(model: str) -> int:
    """Return the size of a file of ImageNet weights: four bytes for each value."""
    shapes = (weight.shape for weight in build_meta_weights(model, _IMAGENET_CLASSES).values())
    return round(4 * sum(map(math.prod, shapes)) / 1e6)
