"""Tensors of a PyTorch file (`.pth`), without running anything that it holds."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from parfocal.errors import ParfocalError

_NESTED_KEYS = ("state_dict", "model_state_dict", "model")
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "network.")


def load_pth(path: Path) -> dict[str, Tensor]:
    """Read the weights of a `.pth` file, also where it nests them or a wrapper's name stands before each of theirs."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise ParfocalError(
            f"{path} is damaged, or holds more than tensors and plain values, and such a file could run code when it "
            "is read. Save it again where it was made: torch.save(network.state_dict(), ...)."
        ) from None
    # What damaged bytes make PyTorch's reader raise is not to be foretold.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ParfocalError(f"{path} is not a whole PyTorch file ({reason}). Fetch or save it again.") from None
    while isinstance(content, Mapping) and (
        inner := next((key for key in _NESTED_KEYS if _has_mapping(content, key)), None)
    ):
        content = content[inner]
    tensors = dict(content) if isinstance(content, Mapping) else {}
    tensors = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ParfocalError(f"{path} holds no weights by name. Save a network's state_dict().")
    return _strip_prefixes(tensors)


def _has_mapping(content: Mapping[object, object], key: str) -> bool:
    return isinstance(content.get(key), Mapping)


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while wrapping := next((one for one in _WRAPPER_PREFIXES if all(name.startswith(one) for name in tensors)), None):
        tensors = {name.removeprefix(wrapping): value for name, value in tensors.items()}
    return tensors
