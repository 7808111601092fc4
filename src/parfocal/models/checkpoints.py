"""Tensors on disk as safetensors: whole or absent, and nothing in them can run code."""
# MERGED: """Tensors of a PyTorch file (`.pth`), without running anything that it holds."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parfocal.errors import ParfocalError
from parfocal.io import atomic_write, explain_write_errors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and plain data about them."""
    content = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with explain_write_errors(path), atomic_write(path) as beside:
        try:
            save_file(content, beside, metadata={"format": "pt", "parfocal": json.dumps(metadata)})
        except SafetensorError as error:
            # The library reports a full disk as an error of its own; the number is the operating system's.
            number = str(error).rpartition("os error ")[2].rstrip(")")
            raise OSError(int(number) if number.isdigit() else 5, str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and the plain data about them, as written by `write_tensors`."""
    tensors, about = read_safetensors(path, "Train the run again.")
    if about is None:
        raise ParfocalError(f"{path} holds tensors but no description of them; Parfocal did not write it.")
    return tensors, about


def read_safetensors(path: Path, remedy: str = "Fetch it again.") -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read tensors of any safetensors file, and the plain data about them if Parfocal wrote it."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("parfocal")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ParfocalError(f"{path} is not a whole safetensors file ({error}). {remedy}") from error
    return tensors, json.loads(text) if text is not None else None


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
