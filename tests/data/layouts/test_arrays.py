"""Layouts of arrays: MedMNIST, gray and color, and CIFAR-10, whose pickles run no code."""

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
from parfocal.data.layouts import arrays, read
from parfocal.data.store import prepare
from parfocal.errors import ParfocalError
from parfocal.recipe_schema import ImagesConfig
from tests.cells import SMALL_RECIPE
from tests.web import run_web_server

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES_PER_BATCH = 20


def _write_medmnist(file: Path, gray: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    members: dict[str, np.ndarray] = {}
    for split, n_images in (("train", 30), ("val", 8), ("test", 6)):
        labels = np.arange(n_images) % 3
        images = rng.integers(0, 120, (n_images, 28, 28, 3)) + 60 * labels[:, None, None, None]
        members[f"{split}_images"] = (images[..., 0] if gray else images).astype(np.uint8)
        members[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez_compressed(file, **members)  # pyright: ignore[reportArgumentType]
    return members


@pytest.mark.parametrize("gray", [False, True])
def test_medmnist_arrays_are_read(tmp_path: Path, gray: bool) -> None:
    members = _write_medmnist(tmp_path / "set.npz", gray)
    for source in (tmp_path, tmp_path / "set.npz"):
        table = read(source)
        assert {split: len(table.get_positions(split)) for split in table.splits} == {
            "train": 30,
            "valid": 8,
            "test": 6,
        }
        assert table.classes == ("0", "1", "2")
    store = prepare(table, ImagesConfig(size=28))
    position = table.find_positions_in(store.index)[table.get_positions("valid")[3]]
    expected = members["val_images"][3]
    np.testing.assert_array_equal(store.pixels[position], expected[..., None].repeat(3, -1) if gray else expected)
    assert parfocal.check(table, ImagesConfig(size=28))


def test_a_network_trains_on_medmnist(tmp_path: Path) -> None:
    _write_medmnist(tmp_path / "set.npz")
    (run,) = parfocal.train(
        tmp_path, out=tmp_path / "runs", **{**SMALL_RECIPE, "size": 28, "crop_size": 28, "epochs": 1}
    )
    assert run.read_metrics()["test"]["count"] == 6


def test_other_npz_files_are_rejected_with_a_reason(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ParfocalError, match="contains no train_images and train_labels"):
        read(tmp_path / "other.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ParfocalError, match=r"is not a readable \.npz file"):
        read(tmp_path / "bad.npz")
    images = np.zeros((2, 4, 4), np.uint8)
    labels = np.zeros((2, 14), np.uint8)
    np.savez(tmp_path / "multi.npz", train_images=images, train_labels=labels)
    with pytest.raises(ParfocalError, match="train_labels has 14 columns"):
        read(tmp_path / "multi.npz")


def _build_batches(protocol: int = 2) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    batches: dict[str, Any] = {"batches.meta": {b"label_names": [name.encode() for name in NAMES]}}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        data = rng.integers(0, 256, (IMAGES_PER_BATCH, 3072)).astype(np.uint8)
        batches[name] = {b"data": data, b"labels": [row % 10 for row in range(IMAGES_PER_BATCH)]}
    return {name: pickle.dumps(batch, protocol=protocol) for name, batch in batches.items()}


def _build_tar(pickles: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in pickles.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("as_archive", [True, False])
def test_cifar10_is_read_from_the_archive_and_from_its_folder(tmp_path: Path, protocol: int, as_archive: bool) -> None:
    pickles = _build_batches(protocol)
    if as_archive:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(_build_tar(pickles))
    else:
        (tmp_path / "cifar-10-batches-py").mkdir()
        for name, data in pickles.items():
            (tmp_path / "cifar-10-batches-py" / name).write_bytes(data)
    for table in (read(tmp_path), read(tmp_path)):
        assert table.classes == NAMES
        assert table.count_classes("train") == dict.fromkeys(NAMES, 10)
        assert table.count_classes("test") == dict.fromkeys(NAMES, 2)
        assert "cifar10 at" in table.source
    table = read(tmp_path)
    store = prepare(table, ImagesConfig(size=32))
    row = table.get_positions("train")[IMAGES_PER_BATCH + 3]
    image = pickle.loads(pickles["data_batch_2"])[b"data"][3]
    np.testing.assert_array_equal(
        store.pixels[table.find_positions_in(store.index)[row]], image.reshape(3, 32, 32).transpose(1, 2, 0)
    )
    assert table.rows["label"].iloc[row] == 3


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    pickles = _build_batches()
    images = np.arange(IMAGES_PER_BATCH * 3072).astype(np.uint8).reshape(IMAGES_PER_BATCH, 3072)
    pickles["test_batch"] = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01M\x14\x00M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", images.size)
        + images.tobytes()
        + b"tbU\x06labels](K\x07"
        + b"K\x07" * (IMAGES_PER_BATCH - 1)
        + b"eu."
    )
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(_build_tar(pickles))
    table = read(tmp_path)
    assert table.count_classes("test")["horse"] == IMAGES_PER_BATCH
    store = prepare(table, ImagesConfig(size=32))
    position = table.find_positions_in(store.index)[table.get_positions("test")[1]]
    np.testing.assert_array_equal(store.pixels[position], images[1].reshape(3, 32, 32).transpose(1, 2, 0))


class TouchOnUnpickle:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_is_rejected(tmp_path: Path) -> None:
    pickles = _build_batches() | {"data_batch_3": pickle.dumps({b"data": TouchOnUnpickle(tmp_path / "touched")})}
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(_build_tar(pickles))
    with pytest.raises(ParfocalError, match=r"it contains .*which could run code"):
        read(tmp_path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("fault", ["truncated", "missing batch", "float pixels", "too few labels"])
def test_a_damaged_archive_is_an_error(tmp_path: Path, fault: str) -> None:
    pickles = _build_batches()
    if fault == "missing batch":
        del pickles["test_batch"]
    elif fault != "truncated":
        data = np.zeros((IMAGES_PER_BATCH, 3072), np.float32 if fault == "float pixels" else np.uint8)
        pickles["test_batch"] = pickle.dumps({b"data": data, b"labels": [0] * 3})
    archive = _build_tar(pickles)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive[:5000] if fault == "truncated" else archive)
    with pytest.raises(ParfocalError, match=r"cifar-10-python\.tar\.gz is not CIFAR-10 as published"):
        read(tmp_path)


@pytest.mark.usefixtures("online")
def test_cifar10_is_downloaded_only_if_the_recipe_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _build_tar(_build_batches())
    with pytest.raises(ParfocalError, match="contains no labels"):
        read(tmp_path)
    with run_web_server() as site:
        site.files["/cifar.tar.gz"] = archive
        monkeypatch.setattr(arrays, "ARCHIVE_URL", f"{site.url}/cifar.tar.gz")
        with pytest.raises(ParfocalError, match="is not the expected file"):
            read(tmp_path, format="cifar10")
        monkeypatch.setattr(arrays, "ARCHIVE_DIGEST", f"md5:{hashlib.md5(archive).hexdigest()}")
        assert len(read(tmp_path, format="cifar10")) == 6 * IMAGES_PER_BATCH
    assert (tmp_path / "cifar-10-python.tar.gz").read_bytes() == archive
