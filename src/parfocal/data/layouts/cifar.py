"""CIFAR-10 as published: pickled batches in a tar, read without running anything that they hold."""

import io
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.layouts.classes import named
from parfocal.data.layouts.medmnist import read_medmnist
from parfocal.data.store import stores_folder
from parfocal.data.table import Table
from parfocal.download import download
from parfocal.errors import ParfocalError
from parfocal.files import whole
from parfocal.parts import ColumnsPart, DataPart
from parfocal.recipe import digest

PUBLISHED_AT = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
DIGEST = "md5:c58f30108f718f92721af3b95e74349a"

_TAR, _FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_LARGEST = 200_000_000


def recognise_cifar10(source: Path) -> str:
    """Say why a folder or file is CIFAR-10, or nothing."""
    found = _place(source)
    return f"{found.name} of CIFAR-10" if found else ""


def read_cifar10(source: Path, data: DataPart, columns: ColumnsPart) -> Table:
    """Read the tar or the folder it unpacks to; a folder without either gets the tar from where it is published.

    The images are laid out anew beside the Stores, as an `.npz` of the same form as MedMNIST's.
    """
    place = _place(source) or download(PUBLISHED_AT, source / _TAR, DIGEST)
    inside = [place, *sorted(place.glob("*"))] if place.is_dir() else [place]
    stamps = [[str(one.resolve()), one.stat().st_size, one.stat().st_mtime_ns] for one in inside]
    arrays = stores_folder() / f"cifar10-{digest(stamps)}.npz"
    if not arrays.is_file():
        _lay_out(place, arrays)
    table = read_medmnist(arrays, data.model_copy(update={"classes": ()}), columns)
    with np.load(arrays, allow_pickle=False) as content:
        names = content["classes"].tolist()
    classes = data.classes or tuple(names[int(code)] for code in table.codes)
    return replace(table, classes=named(table.codes, classes), source=f"cifar10 at {place}")


def _place(source: Path) -> Path | None:
    """Return the tar, or the folder of unpacked batches, that a source is or holds."""
    if source.is_file():
        return source if source.name == _TAR else None
    if (source / "data_batch_1").is_file():
        return source
    return next((source / name for name in (_FOLDER, _TAR) if (source / name).exists()), None)


def _lay_out(place: Path, file: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    try:
        batches = _batches(place)
        for split, members in _BATCHES.items():
            held = [_loaded(batches[member]) for member in members]
            planes = np.concatenate([one[b"data"].pixels() for one in held]).reshape(-1, 3, 32, 32)
            arrays[f"{split}_images"] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
            arrays[f"{split}_labels"] = np.array([label for one in held for label in one[b"labels"]], np.uint8)[:, None]
            if len(arrays[f"{split}_labels"]) != len(planes):
                raise ValueError("images and labels are not as many")
        names = [bytes(name).decode() for name in _loaded(batches["batches.meta"])[b"label_names"]]
        arrays["classes"] = np.array(names)
        if arrays["train_labels"].max() >= len(names):
            raise ValueError("there are more classes than names")
    # What damaged pickles make the reader raise is not to be foretold.
    except Exception as error:
        raise ParfocalError(
            f"{place} is not CIFAR-10's as published ({error}). Delete it and fetch it again."
        ) from None
    with whole(file) as beside, beside.open("wb") as written:
        np.savez(written, **arrays)  # pyright: ignore[reportArgumentType]


def _batches(place: Path) -> dict[str, bytes]:
    """Return the batches' bytes by name."""
    names = [name for members in _BATCHES.values() for name in members] + ["batches.meta"]
    if place.is_dir():
        return {name: (place / name).read_bytes() for name in names}
    found: dict[str, bytes] = {}
    with tarfile.open(place) as tar:
        for member in tar:
            name = Path(member.name).name
            content = tar.extractfile(member) if name in names and member.size < _LARGEST else None
            if content:
                found[name] = content.read()
    return found


class _Array:
    """Stands for a NumPy array while a pickle is read: what it was, and its bytes."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def pixels(self) -> np.ndarray:
        """Return the array, if it is of bytes."""
        _, shape, kind, by_columns, content = self.state
        if kind.name not in (b"u1", "u1"):
            raise ValueError(f"pixels are of type {kind.name}")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


class _Kind:
    """Stands for a NumPy type while a pickle is read."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Take no notice of byte order; there is none in single bytes."""


_ALLOWED: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Kind,
    "_codecs.encode": lambda text, coding: text.encode("latin-1"),
}


class _Reader(pickle.Unpickler):
    """Reads plain values and arrays; anything else that a pickle names is refused before it is looked up."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        place = f"{module_name}.{global_name}"
        if place not in _ALLOWED:
            raise ValueError(f"it names {place}, which could run code")
        return _ALLOWED[place]


def _loaded(content: bytes) -> Any:
    return _Reader(io.BytesIO(content), encoding="bytes").load()
