"""MedMNIST's `.npz`: images and labels of every split as arrays in one file, grey or in colour."""

import zipfile
from pathlib import Path

import numpy as np

from parfocal.data.layouts.classes import natural_sort_key, resolve_class_names
from parfocal.data.table import Table, build_rows
from parfocal.errors import ParfocalError
from parfocal.parts import ColumnsConfig, DataConfig

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
