"""Label layouts of arrays: MedMNIST (`.npz`) and CIFAR-10 (pickles in a tar, read without running any code in them)."""

import io
import math
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parfocal.data.group_columns import find_heading
from parfocal.data.grouping import group_by_sheet
from parfocal.data.labels import parse_labels, resolve_class_names
from parfocal.data.npz import read_npz_array, read_npz_header
from parfocal.data.store import get_stores_folder
from parfocal.data.table import Table, build_rows
from parfocal.download import download
from parfocal.errors import ParfocalError
from parfocal.io import atomic_write
from parfocal.recipe import hash_content
from parfocal.recipe_schema import ColumnsConfig, DataConfig

ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_DIGEST = "md5:c58f30108f718f92721af3b95e74349a"

_SPLIT_KEYS = {"train": "train", "val": "valid", "test": "test"}
_ARCHIVE = "cifar-10-python.tar.gz"
_FOLDER = "cifar-10-batches-py"
_BATCH_NAMES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_MAX_MEMBER_BYTES = 200_000_000
_MAX_LABEL_BYTES = 1 << 28


def recognize_medmnist(source: Path) -> str:
    """Return what identifies a folder or file as MedMNIST, or an empty string."""
    file = _find_npz(source)
    return f"{file.name} with arrays of images and labels" if file else ""


def read_medmnist(source: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read `{train,val,test}_{images,labels}`; the path of an image is `file.npz#train_images/7`."""
    file = _find_npz(source)
    if file is None:
        raise ParfocalError(f"{source} does not contain exactly one .npz file. Give the file itself.")
    ids: list[str] = []
    texts: list[str] = []
    splits: list[str] = []
    extra: list[pd.DataFrame] = []
    try:
        with np.load(file, allow_pickle=False) as arrays:
            for key, split in _SPLIT_KEYS.items():
                if f"{key}_labels" in arrays.files:
                    split_texts = _read_label_texts(arrays, key, file)
                    ids += [f"{key}_images/{row}" for row in range(len(split_texts))]
                    extra.append(_read_extra_columns(arrays, key, len(split_texts), columns.group, file))
                    texts += split_texts
                    splits += [split] * len(split_texts)
    except ParfocalError:
        raise
    # A damaged archive can raise almost any exception.
    except Exception as error:
        raise ParfocalError(f"{file} is not a readable .npz file: {error}") from None
    if not ids:
        raise ParfocalError(f"{file} contains no train_images and train_labels, as MedMNIST files do.")
    labels, codes = parse_labels(texts, lambda position: f"{file}, label of {ids[position]}")
    paths = [Path(f"{file}#{image_id}") for image_id in ids]
    rows = build_rows(ids, paths, labels, splits, ids)
    table = Table(rows, resolve_class_names(codes, data.classes), codes, f"medmnist at {file}")
    names = pd.concat(extra).fillna("")
    return group_by_sheet(table, names, (), columns.group if columns.group in names.columns else "")


def _read_extra_columns(arrays: Any, key: str, n_rows: int, column: str, file: Path) -> pd.DataFrame:
    """Return the arrays that name the group of each image, such as `train_patients`, without the name of the split."""
    names = [name.removeprefix(f"{key}_") for name in arrays.files if name.startswith(f"{key}_")]
    values: dict[str, list[str]] = {}
    for name in names:
        if name not in ("images", "labels") and (name == column or find_heading(name)):
            array = read_npz_array(file, f"{key}_{name}").reshape(-1)
            if len(array) != n_rows:
                raise ParfocalError(f"{file}: {key}_{name} has {len(array)} values for {n_rows} images.")
            values[name] = [value.decode() if isinstance(value, bytes) else str(value) for value in array.tolist()]
    return pd.DataFrame(values, index=range(n_rows))


def _read_label_texts(arrays: Any, key: str, file: Path) -> list[str]:
    """Return the labels of a split of an open `.npz` file as text; they must be as many as its images."""
    images = f"{key}_images"
    labels = f"{key}_labels"
    if images not in arrays.files:
        raise ParfocalError(f"{file} has {labels}, but no {images}. Add them, or remove the labels.")
    n_images = (read_npz_header(arrays.zip, f"{images}.npy")[0] or (0,))[0]
    shape, dtype = read_npz_header(arrays.zip, f"{labels}.npy")
    n_labels = shape[0] if shape else 0
    n_columns = math.prod(shape[1:])
    if n_columns != 1:
        raise ParfocalError(f"{file}: {labels} has {n_columns} columns, but an image can have only one class.")
    if n_images != n_labels:
        raise ParfocalError(f"{file} has {n_images} {images}, but {n_labels} {labels}. Each image needs one label.")
    if n_labels * dtype.itemsize > _MAX_LABEL_BYTES:
        raise ParfocalError(f"{file}: {labels} needs {n_labels * dtype.itemsize / 1e9:.1f} GB, too much for labels.")
    return [str(value) for value in read_npz_array(file, labels).reshape(-1).tolist()]


def _find_npz(source: Path) -> Path | None:
    if source.suffix == ".npz":
        return source
    files = sorted(source.glob("*.npz"))
    return files[0] if len(files) == 1 else None


def recognize_cifar10(source: Path) -> str:
    """Return what identifies a folder or file as CIFAR-10, or an empty string."""
    batches = _find_batches(source)
    return f"{batches.name} of CIFAR-10" if batches else ""


def read_cifar10(source: Path, data: DataConfig, columns: ColumnsConfig) -> Table:
    """Read the archive or its unpacked folder; download the archive into a folder that has neither.

    The images are converted to an `.npz` file with the arrays of MedMNIST, next to the Stores.
    """
    batches = _find_batches(source) or download(ARCHIVE_URL, source / _ARCHIVE, ARCHIVE_DIGEST)
    files = [batches, *sorted(batches.glob("*"))] if batches.is_dir() else [batches]
    stamps = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    npz_file = get_stores_folder() / f"cifar10-{hash_content(stamps)}.npz"
    if not npz_file.is_file():
        _convert_to_npz(batches, npz_file)
    table = read_medmnist(npz_file, data.model_copy(update={"classes": ()}), columns)
    with np.load(npz_file, allow_pickle=False) as arrays:
        names = arrays["classes"].tolist()
    own_names = tuple(names[int(code)] for code in table.codes)
    return replace(
        table, classes=resolve_class_names(table.codes, data.classes, own_names), source=f"cifar10 at {batches}"
    )


def _find_batches(source: Path) -> Path | None:
    """Return the archive, or the folder of unpacked batches, that the source is or contains."""
    if source.is_file():
        return source if source.name == _ARCHIVE else None
    if (source / "data_batch_1").is_file():
        return source
    return next((source / name for name in (_FOLDER, _ARCHIVE) if (source / name).exists()), None)


def _convert_to_npz(source: Path, file: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    try:
        pickles = _read_pickles(source)
        for split, names in _BATCH_NAMES.items():
            batches = [_load_pickle(pickles[name]) for name in names]
            images = np.concatenate([batch[b"data"].to_numpy() for batch in batches]).reshape(-1, 3, 32, 32)
            labels = np.array([label for batch in batches for label in batch[b"labels"]], np.uint8)
            if len(labels) != len(images):
                raise ValueError("the numbers of images and labels differ")
            arrays[f"{split}_images"] = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
            arrays[f"{split}_labels"] = labels[:, None]
        class_names = [bytes(name).decode() for name in _load_pickle(pickles["batches.meta"])[b"label_names"]]
        arrays["classes"] = np.array(class_names)
        if arrays["train_labels"].max() >= len(class_names):
            raise ValueError("there are more classes than class names")
    # A damaged pickle can raise almost any exception.
    except Exception as error:
        raise ParfocalError(
            f"{source} is not CIFAR-10 as published ({error}). Delete it and download it again."
        ) from None
    with atomic_write(file) as temporary, temporary.open("wb") as npz_file:
        np.savez(npz_file, **arrays)  # pyright: ignore[reportArgumentType]


def _read_pickles(source: Path) -> dict[str, bytes]:
    """Return the bytes of the batches by name."""
    names = [*_BATCH_NAMES["train"], *_BATCH_NAMES["test"], "batches.meta"]
    if source.is_dir():
        return {name: (source / name).read_bytes() for name in names}
    pickles: dict[str, bytes] = {}
    with tarfile.open(source) as tar:
        for member in tar:
            name = Path(member.name).name
            content = tar.extractfile(member) if name in names and member.size < _MAX_MEMBER_BYTES else None
            if content:
                pickles[name] = content.read()
    return pickles


class _PickledArray:
    """Replaces a NumPy array while a pickle is read: keeps its pickled state."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def to_numpy(self) -> np.ndarray:
        """Return the array; ValueError if it is not uint8."""
        _, shape, dtype, is_fortran_order, data = self.state
        if dtype.name not in (b"u1", "u1"):
            raise ValueError(f"pixels are of type {dtype.name}")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_fortran_order else "C")


class _PickledDtype:
    """Replaces a NumPy dtype while a pickle is read."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Ignore the byte order; uint8 has none."""


_ALLOWED_GLOBALS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _PickledArray,
    "numpy._core.multiarray._reconstruct": _PickledArray,
    "numpy.ndarray": _PickledArray,
    "numpy.dtype": _PickledDtype,
    "_codecs.encode": lambda text, encoding: text.encode("latin-1"),
}


class _SafeUnpickler(pickle.Unpickler):
    """Unpickles plain values and arrays; rejects any other global before it is imported."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _ALLOWED_GLOBALS:
            raise ValueError(f"it contains {name}, which could run code")
        return _ALLOWED_GLOBALS[name]


def _load_pickle(data: bytes) -> Any:
    return _SafeUnpickler(io.BytesIO(data), encoding="bytes").load()
