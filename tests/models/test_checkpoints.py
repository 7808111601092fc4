"""PyTorch files are read by name, and never run what they hold."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

from parfocal.errors import ParfocalError
from parfocal.models.checkpoints import load_pth

WEIGHTS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}
WRAPPED = {f"module.{name}": value for name, value in WEIGHTS.items()}


class Intruder:
    """An object whose reading makes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.place,))


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
def test_weights_are_found_under_their_public_names(tmp_path: Path, content: dict[str, Any], zipped: bool) -> None:
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = load_pth(tmp_path / "w.pth")
    assert found.keys() == WEIGHTS.keys()
    assert all(found[name].equal(value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_does_not(tmp_path: Path, zipped: bool) -> None:
    content = {"state_dict": WEIGHTS, "oversample": Intruder(tmp_path / "made")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ParfocalError, match="could run code when it is read"):
        load_pth(tmp_path / "w.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_or_altered_anywhere_is_one_message(tmp_path: Path, zipped: bool) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "w.pth").read_bytes()
    for length in range(0, len(whole) - 1, 37):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ParfocalError, match=r"cut\.pth"):
            load_pth(tmp_path / "cut.pth")
    for place in range(0, len(whole), 5):
        (tmp_path / "cut.pth").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(ParfocalError):
            load_pth(tmp_path / "cut.pth")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(1)], torch.ones(2)])
def test_a_file_without_named_weights_is_told(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ParfocalError, match="no weights by name"):
        load_pth(tmp_path / "w.pth")
