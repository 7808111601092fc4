"""MedMNIST's arrays, grey and in colour."""

from pathlib import Path

import numpy as np
import pytest

import parfocal
from parfocal.data.readers import read
from parfocal.data.store import prepare
from parfocal.errors import ParfocalError
from parfocal.parts import ImagesConfig
from tests.cells import SMALL_RECIPE


def _write(file: Path, grey: bool = False, counts: tuple[int, ...] = (30, 8, 6)) -> dict[str, np.ndarray]:
    dice, arrays = np.random.default_rng(0), {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        labels = np.arange(count) % 3
        images = dice.integers(0, 120, (count, 28, 28, 3)) + 60 * labels[:, None, None, None]
        arrays[f"{split}_images"] = (images[..., 0] if grey else images).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez_compressed(file, **arrays)
    return arrays


@pytest.mark.parametrize("grey", [False, True])
def test_arrays_become_rows_and_pixels(tmp_path: Path, grey: bool) -> None:
    arrays = _write(tmp_path / "set.npz", grey)
    for source in (tmp_path, tmp_path / "set.npz"):
        table = read(source)
        assert {split: len(table.get_positions(split)) for split in table.splits} == {
            "train": 30,
            "valid": 8,
            "test": 6,
        }
        assert table.classes == ("0", "1", "2")
    store = prepare(table, ImagesConfig(size=28))
    place = store.get_positions(table)[table.get_positions("valid")[3]]
    expected = arrays["val_images"][3]
    np.testing.assert_array_equal(store.pixels[place], expected[..., None].repeat(3, -1) if grey else expected)
    assert parfocal.check(table, ImagesConfig(size=28))


def test_a_network_trains_on_them(tmp_path: Path) -> None:
    _write(tmp_path / "set.npz")
    (run,) = parfocal.train(tmp_path, out=tmp_path / "runs", **{**SMALL_RECIPE, "size": 28, "crop": 28, "epochs": 1})
    assert run.read_metrics()["test"]["count"] == 6


def test_arrays_that_are_not_these_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ParfocalError, match="holds no train_images and train_labels"):
        read(tmp_path / "other.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ParfocalError, match=r"is not a readable \.npz file"):
        read(tmp_path / "bad.npz")
    images, labels = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 14), np.uint8)
    np.savez(tmp_path / "multi.npz", train_images=images, train_labels=labels)
    with pytest.raises(ParfocalError, match="train_labels has 14 columns"):
        read(tmp_path / "multi.npz")
