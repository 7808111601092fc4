"""MedMNIST's `.npz`: images and labels of every split as arrays in one file, grey or in colour."""
# MERGED: """CIFAR-10 as published: pickled batches in a tar, read without running anything that they hold."""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.layouts.classes import natural_sort_key, resolve_class_names
from parfocal.data.store import get_stores_folder
from parfocal.data.table import Table, build_rows
from parfocal.download import download
from parfocal.errors import ParfocalError
from parfocal.io import atomic_write
from parfocal.recipe import hash_content
from parfocal.schema import ColumnsConfig, DataConfig

_SPLIT_KEYS = {"train": "train", "val": "valid", "test": "test"}


def recognize_medmnist(source: Path) -> str:
    """Say why a folder or file is MedMNIST's, or nothing."""
    file = _find_npz(source)
    return f"{file.name} with arrays of images and labels" if file else ""


def read_medmnist(source: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `{train,val,test}_{images,labels}`; an image's path is `file.npz#train_images/7`."""
    file = _find_npz(source)
    if file is None:
        raise ParfocalError(f"{source} holds no single .npz file. Name the file itself.")
    ids: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    try:
        with np.load(file, allow_pickle=False) as arrays:
            for key, split in _SPLIT_KEYS.items():
                if f"{key}_labels" not in arrays.files:
                    continue
                texts = _read_labels(arrays[f"{key}_labels"], file, key)
                ids += [f"{key}_images/{number}" for number in range(len(texts))]
                labels += texts
                splits += [split] * len(texts)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ParfocalError(f"{file} is not a readable .npz file: {error}") from None
    if not ids:
        raise ParfocalError(f"{file} holds no train_images and train_labels, as MedMNIST's files do.")
    codes = tuple(sorted(set(labels), key=natural_sort_key))
    place = {code: number for number, code in enumerate(codes)}
    paths = [Path(f"{file}#{one}") for one in ids]
    rows = build_rows(ids, paths, [place[text] for text in labels], splits, ids)
    return Table(rows, resolve_class_names(codes, data.classes), codes, f"medmnist at {file}")


def _find_npz(source: Path) -> Path | None:
    if source.suffix == ".npz":
        return source
    found = sorted(source.glob("*.npz"))
    return found[0] if len(found) == 1 else None


def _read_labels(array: np.ndarray, file: Path, key: str) -> list[str]:
    flat = array.reshape(len(array), -1)
    if flat.shape[1] != 1:
        raise ParfocalError(f"{file}: {key}_labels has {flat.shape[1]} columns; one class an image is read here.")
    return [str(value) for value in flat[:, 0].tolist()]


ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_DIGEST = "md5:c58f30108f718f92721af3b95e74349a"

_ARCHIVE, _FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
_BATCH_NAMES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_MAX_MEMBER_BYTES = 200_000_000


def recognize_cifar10(source: Path) -> str:
    """Say why a folder or file is CIFAR-10, or nothing."""
    found = _find_batches(source)
    return f"{found.name} of CIFAR-10" if found else ""


def read_cifar10(source: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read the tar or the folder it unpacks to; a folder without either gets the tar from where it is published.

    The images are laid out anew beside the Stores, as an `.npz` of the same form as MedMNIST's.
    """
    place = _find_batches(source) or download(ARCHIVE_URL, source / _ARCHIVE, ARCHIVE_DIGEST)
    inside = [place, *sorted(place.glob("*"))] if place.is_dir() else [place]
    stamps = [[str(one.resolve()), one.stat().st_size, one.stat().st_mtime_ns] for one in inside]
    arrays = get_stores_folder() / f"cifar10-{hash_content(stamps)}.npz"
    if not arrays.is_file():
        _convert_to_npz(place, arrays)
    table = read_medmnist(arrays, data.model_copy(update={"classes": ()}), columns)
    with np.load(arrays, allow_pickle=False) as content:
        names = content["classes"].tolist()
    classes = data.classes or tuple(names[int(code)] for code in table.codes)
    return replace(table, classes=resolve_class_names(table.codes, classes), source=f"cifar10 at {place}")


def _find_batches(source: Path) -> Path | None:
    """Return the tar, or the folder of unpacked batches, that a source is or holds."""
    if source.is_file():
        return source if source.name == _ARCHIVE else None
    if (source / "data_batch_1").is_file():
        return source
    return next((source / name for name in (_FOLDER, _ARCHIVE) if (source / name).exists()), None)


def _convert_to_npz(source: Path, file: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    try:
        batches = _read_batches(source)
        for split, members in _BATCH_NAMES.items():
            held = [_load_pickle(batches[member]) for member in members]
            planes = np.concatenate([one[b"data"].to_numpy() for one in held]).reshape(-1, 3, 32, 32)
            arrays[f"{split}_images"] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
            arrays[f"{split}_labels"] = np.array([label for one in held for label in one[b"labels"]], np.uint8)[:, None]
            if len(arrays[f"{split}_labels"]) != len(planes):
                raise ValueError("images and labels are not as many")
        names = [bytes(name).decode() for name in _load_pickle(batches["batches.meta"])[b"label_names"]]
        arrays["classes"] = np.array(names)
        if arrays["train_labels"].max() >= len(names):
            raise ValueError("there are more classes than names")
    # What damaged pickles make the reader raise is not to be foretold.
    except Exception as error:
        raise ParfocalError(
            f"{source} is not CIFAR-10's as published ({error}). Delete it and fetch it again."
        ) from None
    with atomic_write(file) as beside, beside.open("wb") as written:
        np.savez(written, **arrays)  # pyright: ignore[reportArgumentType]


def _read_batches(source: Path) -> dict[str, bytes]:
    """Return the batches' bytes by name."""
    names = [name for members in _BATCH_NAMES.values() for name in members] + ["batches.meta"]
    if source.is_dir():
        return {name: (source / name).read_bytes() for name in names}
    found: dict[str, bytes] = {}
    with tarfile.open(source) as tar:
        for member in tar:
            name = Path(member.name).name
            content = tar.extractfile(member) if name in names and member.size < _MAX_MEMBER_BYTES else None
            if content:
                found[name] = content.read()
    return found


class _PickledArray:
    """Stands for a NumPy array while a pickle is read: what it was, and its bytes."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def to_numpy(self) -> np.ndarray:
        """Return the array, if it is of bytes."""
        _, shape, kind, by_columns, content = self.state
        if kind.name not in (b"u1", "u1"):
            raise ValueError(f"pixels are of type {kind.name}")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


class _PickledDtype:
    """Stands for a NumPy type while a pickle is read."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Take no notice of byte order; there is none in single bytes."""


_ALLOWED_GLOBALS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _PickledArray,
    "numpy._core.multiarray._reconstruct": _PickledArray,
    "numpy.ndarray": _PickledArray,
    "numpy.dtype": _PickledDtype,
    "_codecs.encode": lambda text, coding: text.encode("latin-1"),
}


class _SafeUnpickler(pickle.Unpickler):
    """Reads plain values and arrays; anything else that a pickle names is refused before it is looked up."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        place = f"{module_name}.{global_name}"
        if place not in _ALLOWED_GLOBALS:
            raise ValueError(f"it names {place}, which could run code")
        return _ALLOWED_GLOBALS[place]


def _load_pickle(content: bytes) -> Any:
    return _SafeUnpickler(io.BytesIO(content), encoding="bytes").load()
