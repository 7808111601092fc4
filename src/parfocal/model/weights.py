"""Tensors on disk as safetensors: whole or absent, and nothing in them can run code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parfocal.errors import ParfocalError
from parfocal.files import atomic_write, explain_write_errors


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
