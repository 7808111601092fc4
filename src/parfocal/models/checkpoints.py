"""Weights on disk: safetensors files with metadata, and PyTorch files (`.pth`). Nothing in them can run code."""

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
from parfocal.io import explain_write_errors
from parfocal.manifest import verify_file, write_listed_file
from parfocal.run_files import DamagedFileError

_NESTED_KEYS = ("state_dict", "model_state_dict", "model")
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "network.")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and plain metadata as safetensors, atomically."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with explain_write_errors(path), write_listed_file(path) as temporary_path:
        try:
            save_file(content, temporary_path, metadata={"format": "pt", "parfocal": json.dumps(metadata)})
        except SafetensorError as error:
            # The library reports a full disk as a SafetensorError; the text contains the number of the OS error.
            number = str(error).rpartition("os error ")[2].rstrip(")")
            raise OSError(int(number) if number.isdigit() else 5, str(error)) from error
        _sort_metadata(temporary_path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata that `write_tensors` wrote; reject a file of a run that was changed afterwards."""
    verify_file(path)
    tensors, metadata = read_safetensors(path, "Train the run again.")
    if metadata is None:
        raise ParfocalError(f"{path} has no Parfocal metadata; Parfocal did not write it.")
    return tensors, metadata


def read_safetensors(path: Path, remedy: str = "Download it again.") -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read the tensors of any safetensors file, and its metadata if Parfocal wrote it."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("parfocal")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ParfocalError(f"{path} is not a complete safetensors file ({error}). {remedy}") from error
    try:
        metadata = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        raise DamagedFileError(path, "its metadata is not JSON", remedy) from None
    if metadata is not None and not isinstance(metadata, dict):
        raise DamagedFileError(path, "its metadata is not a JSON object", remedy)
    return tensors, metadata


@torch.no_grad()
def require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise an error that names the tensor of a file that holds NaN or infinity: a network with it answers nothing."""
    for name, tensor in tensors.items():
        # The sum is not finite if any value is not, and is seven times as fast; but large values can overflow it.
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            n_values = int((~torch.isfinite(tensor)).sum())
            raise ParfocalError(
                f"{path} cannot be used: {n_values:,} of {tensor.numel():,} values of {name} are not finite (NaN or "
                "infinity). Restore the file from a copy, or train again with a lower learning_rate."
            )


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, which the library writes in random order."""
    with path.open("r+b") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_bytes))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= n_bytes
        file.seek(8)
        file.write(text.ljust(n_bytes))


def load_pth(path: Path) -> dict[str, Tensor]:
    """Read the weights of a `.pth` file, also if they are nested or all names have the prefix of a wrapper."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise ParfocalError(
            f"{path} is damaged or contains more than tensors and plain values. Such a file could run code when it is "
            "read. Save the weights again: torch.save(network.state_dict(), PATH)."
        ) from None
    # Damaged bytes can raise any exception in PyTorch's reader.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ParfocalError(
            f"{path} is not a complete PyTorch file ({reason}). Download it or save it again."
        ) from None
    while isinstance(content, Mapping):
        nested = next((content[key] for key in _NESTED_KEYS if isinstance(content.get(key), Mapping)), None)
        if nested is None:
            break
        content = nested
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise ParfocalError(f"{path} contains no named weights. Save a network's state_dict().")
    while prefix := next((each for each in _WRAPPER_PREFIXES if all(name.startswith(each) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
