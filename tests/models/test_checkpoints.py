"""Weights are read by name from safetensors and PyTorch files, whose content never runs."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from parfocal.errors import ParfocalError
from parfocal.models.checkpoints import load_pth, read_tensors, write_tensors

WEIGHTS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}
WRAPPED = {f"module.{name}": value for name, value in WEIGHTS.items()}


class FileCreator:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        WRAPPED,
        {"epoch": 3, "state_dict": WEIGHTS, "optimizer": {"state": {}}},
        {"model": {f"_orig_mod.{name}": value for name, value in WRAPPED.items()}},
        {"state_dict": {f"model.{name}": value for name, value in WEIGHTS.items()}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_nested_and_prefixed_weights_are_found_under_their_names(
    tmp_path: Path, content: dict[str, Any], zipped: bool
) -> None:
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    weights = load_pth(tmp_path / "w.pth")
    assert weights.keys() == WEIGHTS.keys()
    assert all(weights[name].equal(value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_rejected_and_does_not_run_it(tmp_path: Path, zipped: bool) -> None:
    content = {"state_dict": WEIGHTS, "extra": FileCreator(tmp_path / "created")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ParfocalError, match="could run code when it is read"):
        load_pth(tmp_path / "w.pth")
    assert not (tmp_path / "created").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_truncated_or_altered_anywhere_is_one_error(tmp_path: Path, zipped: bool) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "w.pth").read_bytes()
    for length in range(0, len(content) - 1, 37):
        (tmp_path / "bad.pth").write_bytes(content[:length])
        with pytest.raises(ParfocalError, match=r"bad\.pth"):
            load_pth(tmp_path / "bad.pth")
    for position in range(0, len(content), 5):
        altered = content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :]
        (tmp_path / "bad.pth").write_bytes(altered)
        with contextlib.suppress(ParfocalError):
            load_pth(tmp_path / "bad.pth")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(1)], torch.ones(2)])
def test_a_file_without_named_weights_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ParfocalError, match="no named weights"):
        load_pth(tmp_path / "w.pth")


def test_tensors_and_metadata_are_read_as_they_were_written(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4, 2, 2).to(memory_format=torch.channels_last), "b": torch.tensor(5)}
    write_tensors(tmp_path / "t.safetensors", tensors, {"é": [1, None]})
    read, metadata = read_tensors(tmp_path / "t.safetensors")
    assert all(read[name].equal(tensor) for name, tensor in tensors.items())
    assert metadata == {"é": [1, None]}


def test_a_safetensors_file_without_metadata_is_rejected(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ParfocalError, match="Parfocal did not write it"):
        read_tensors(tmp_path / "a.safetensors")
