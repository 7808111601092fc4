"""MedMNIST's arrays, grey and in colour."""
# MERGED: """CIFAR-10's tar: pixels, classes and splits; nothing in it is run; and it is fetched where it is wanted."""

import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parfocal
from parfocal.data.layouts import arrays as cifar
from parfocal.data.layouts import read
from parfocal.data.store import prepare
from parfocal.errors import ParfocalError
from parfocal.schema import ImagesConfig
from tests.cells import SMALL_RECIPE
from tests.web import run_web_server


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
    (run,) = parfocal.train(
        tmp_path, out=tmp_path / "runs", **{**SMALL_RECIPE, "size": 28, "crop_size": 28, "epochs": 1}
    )
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


NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES_PER_BATCH = 20


def _build_batches(protocol: int = 2) -> dict[str, bytes]:
    dice = np.random.default_rng(0)
    batches: dict[str, Any] = {"batches.meta": {b"label_names": [name.encode() for name in NAMES]}}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        data = dice.integers(0, 256, (IMAGES_PER_BATCH, 3072)).astype(np.uint8)
        batches[name] = {b"data": data, b"labels": [place % 10 for place in range(IMAGES_PER_BATCH)]}
    return {name: pickle.dumps(content, protocol=protocol) for name, content in batches.items()}


def _build_tar(content: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return written.getvalue()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("packed", [True, False])
def test_pixels_classes_and_splits_are_as_published(tmp_path: Path, protocol: int, packed: bool) -> None:
    content = _build_batches(protocol)
    if packed:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(_build_tar(content))
    else:
        (tmp_path / "cifar-10-batches-py").mkdir()
        for name, data in content.items():
            (tmp_path / "cifar-10-batches-py" / name).write_bytes(data)
    for table in (read(tmp_path), read(tmp_path)):
        assert table.classes == NAMES
        assert table.count_classes("train") == dict.fromkeys(NAMES, 10)
        assert table.count_classes("test") == dict.fromkeys(NAMES, 2)
        assert "cifar10 at" in table.source
    table = read(tmp_path)
    store = prepare(table, ImagesConfig(size=32))
    row = table.get_positions("train")[IMAGES_PER_BATCH + 3]
    planes = pickle.loads(content["data_batch_2"])[b"data"][3]
    np.testing.assert_array_equal(
        store.pixels[store.get_positions(table)[row]], planes.reshape(3, 32, 32).transpose(1, 2, 0)
    )
    assert table.rows["label"].iloc[row] == 3


def test_pickles_of_python_2_as_published_are_read(tmp_path: Path) -> None:
    content = _build_batches()
    images = np.arange(IMAGES_PER_BATCH * 3072).astype(np.uint8).reshape(IMAGES_PER_BATCH, 3072)
    content["test_batch"] = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01M\x14\x00M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", images.size)
        + images.tobytes()
        + b"tbU\x06labels](K\x07"
        + b"K\x07" * (IMAGES_PER_BATCH - 1)
        + b"eu."
    )
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(_build_tar(content))
    table = read(tmp_path)
    assert table.count_classes("test")["horse"] == IMAGES_PER_BATCH
    store = prepare(table, ImagesConfig(size=32))
    place = store.get_positions(table)[table.get_positions("test")[1]]
    np.testing.assert_array_equal(store.pixels[place], images[1].reshape(3, 32, 32).transpose(1, 2, 0))


class TouchOnUnpickle:
    """An object whose reading makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_tar_that_would_run_code_does_not(tmp_path: Path) -> None:
    content = _build_batches() | {"data_batch_3": pickle.dumps({b"data": TouchOnUnpickle(tmp_path / "made")})}
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(_build_tar(content))
    with pytest.raises(ParfocalError, match=r"it names .*which could run code"):
        read(tmp_path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("fault", ["cut", "without a batch", "other pixels", "fewer labels"])
def test_a_damaged_tar_is_one_message(tmp_path: Path, fault: str) -> None:
    content = _build_batches()
    if fault == "without a batch":
        del content["test_batch"]
    elif fault != "cut":
        data = np.zeros((IMAGES_PER_BATCH, 3072), np.float32 if fault == "other pixels" else np.uint8)
        content["test_batch"] = pickle.dumps({b"data": data, b"labels": [0] * 3})
    packed = _build_tar(content)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(packed[:5000] if fault == "cut" else packed)
    with pytest.raises(ParfocalError, match=r"cifar-10-python\.tar\.gz is not CIFAR-10's as published"):
        read(tmp_path)


def test_it_is_fetched_into_a_folder_that_is_to_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = _build_tar(_build_batches())
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ParfocalError, match="holds no labels"):
        read(tmp_path)
    with run_web_server() as site:
        site.files["/cifar.tar.gz"] = packed
        monkeypatch.setattr(cifar, "ARCHIVE_URL", f"{site.url}/cifar.tar.gz")
        with pytest.raises(ParfocalError, match="is not the file that was expected"):
            read(tmp_path, format="cifar10")
        monkeypatch.setattr(cifar, "ARCHIVE_DIGEST", f"md5:{hashlib.md5(packed).hexdigest()}")
        assert len(read(tmp_path, format="cifar10")) == 6 * IMAGES_PER_BATCH
    assert (tmp_path / "cifar-10-python.tar.gz").read_bytes() == packed
