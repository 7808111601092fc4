"""Store: the preprocessed pixels of a table on disk, a memory-mapped uint8 array (N, H, W, 3), and its index.

A Store's key is a hash of the files and of the recipe's `images` section, so changing either gives another Store. The
pixels are a `.npy` array, or JPEGs of high quality in sequence.
"""

import json
import os
import shutil
import zlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from filelock import FileLock

from parfocal.data.decode import ImageInfo, Pixels, build_index_row, get_container_file, prepare_image
from parfocal.data.encode import encode_image
from parfocal.data.parallel import catch_unreadable, map_ordered
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.io import explain_write_errors, get_cache_folder, write_json
from parfocal.progress import print_line, print_warning
from parfocal.recipe import hash_content
from parfocal.recipe_schema import ImagesConfig

FORMAT = 4
"""Increase this number whenever the same recipe and files would give other pixels or another index."""

_FLUSH_EVERY = 256
_TEXT_COLUMNS = {"path": str, "digest": str, "notes": str, "error": str}
_NO_SUBSAMPLING = 0x111111


class JpegArray:
    """JPEGs that can be indexed like an array of images; each is decoded when it is accessed."""

    def __init__(self, encoded: np.ndarray, index: pd.DataFrame, size: int) -> None:
        self.shape = (len(index), size, size, 3)
        self._encoded = encoded
        self._starts = index["start"].to_numpy(np.int64)
        self._lengths = index["length"].to_numpy(np.int64)

    def __getitem__(self, position: Any) -> np.ndarray:
        if not np.isscalar(position):
            return np.stack([self[row] for row in np.arange(self.shape[0])[position]])
        start = int(self._starts[position])
        data = self._encoded[start : start + int(self._lengths[position])]
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # pyright: ignore


ImageArray = np.ndarray | JpegArray
"""An array of images, or an object that is indexed in the same way."""


@dataclass(frozen=True)
class Store:
    """Preprocessed pixels on disk.

    `index` has a row for each file: path, width, height, bytes, digest, notes, error (the reason if the file cannot
    be read), and the start, length and crc32 of its pixels in the pixel file.
    """

    folder: Path
    config: ImagesConfig
    index: pd.DataFrame

    @cached_property
    def pixels(self) -> ImageArray:
        """The images, (N, size, size, 3) uint8, memory-mapped and read-only."""
        path = _get_pixels_path(self.folder, self.config)
        if self.config.store == "raw":
            return np.load(path, mmap_mode="r")
        return JpegArray(np.memmap(path, np.uint8, mode="r"), self.index, self.config.size)


def get_stores_folder() -> Path:
    """Return the folder of all Stores: $PARFOCAL_STORES, or a folder in the user's cache."""
    return get_cache_folder("stores", "PARFOCAL_STORES")


def prepare(table: Table, config: ImagesConfig, *, workers: int | None = None) -> Store:
    """Decode and preprocess every file of the table once, or open the Store that already holds these images.

    After an interruption, it resumes where it stopped. If two processes need the same Store, only the first builds it.
    A damaged Store is built again.
    """
    paths = table.paths
    folder = _get_folder(paths, config)
    if store := _open_if_complete(folder, config):
        return store
    with explain_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            # Another process may have built it in the meantime.
            store = _open_if_complete(folder, config)
            if store is None:
                shutil.rmtree(folder, ignore_errors=True)
                _build_store(folder, paths, config, workers)
                store = _open_if_complete(folder, config)
    if store is None:
        raise ParfocalError(f"{folder} was damaged right after it was written. Check the disk.")
    return store


def find_store(table: Table, config: ImagesConfig) -> Store | None:
    """Open the Store of a table if it is complete; never build it."""
    return _open_if_complete(_get_folder(table.paths, config), config)


def _get_folder(paths: list[str], config: ImagesConfig) -> Path:
    stamps: list[list[object]] = []
    for path in paths:
        try:
            status = get_container_file(path).stat()
            stamps.append([path, status.st_size, status.st_mtime_ns])
        except OSError:
            stamps.append([path, None])
    return get_stores_folder() / hash_content({"format": FORMAT, "images": config.model_dump(), "files": stamps})


def _get_pixels_path(folder: Path, config: ImagesConfig) -> Path:
    return folder / ("pixels.npy" if config.store == "raw" else "pixels.jpegs")


def _open_if_complete(folder: Path, config: ImagesConfig) -> Store | None:
    """Open a Store if it is complete; if the pixel file was modified since it was built, verify every checksum."""
    try:
        header = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        index_crc32 = zlib.crc32((folder / "index.csv").read_bytes())
        index = pd.read_csv(folder / "index.csv", keep_default_na=False, dtype=_TEXT_COLUMNS)
        pixels_path = _get_pixels_path(folder, config)
        status = pixels_path.stat()
        is_complete = index_crc32 == header["index_crc32"] and status.st_size == header["bytes"]
        if is_complete and status.st_mtime_ns != header["modified_ns"]:
            data = np.memmap(pixels_path, np.uint8, mode="r")
            images = zip(index["start"], index["length"], index["crc32"], strict=True)
            is_complete = all(
                zlib.crc32(data[start : start + length].tobytes()) == crc32 for start, length, crc32 in images
            )
        if is_complete:
            return Store(folder, config, index)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError):
        pass
    print_warning(f"The Store {folder} is damaged and will be built again.")
    return None


def _build_store(folder: Path, paths: list[str], config: ImagesConfig, workers: int | None) -> None:
    """Fill a draft folder, or continue an interrupted draft, then rename it: a Store is complete or absent."""
    draft = folder.with_suffix(".part")
    draft.mkdir(exist_ok=True)
    rows = _read_draft_rows(draft, config)
    n_files = len(paths) - len(rows)
    needed = n_files * config.size**2 * 3
    free = shutil.disk_usage(draft).free
    if config.store == "raw" and needed > free:
        if not any(draft.iterdir()):
            draft.rmdir()
        raise ParfocalError(
            f"{n_files:,} images of {config.size}×{config.size} need {needed / 1e9:.1f} GB, {folder.parent} has "
            f"{free / 1e9:.1f} GB free. Free some space, set $PARFOCAL_STORES, or choose a smaller size or store=jpeg."
        )
    try:
        _write_pixels(draft, rows, paths, config, workers)
        pd.DataFrame(rows).to_csv(draft / "index.csv", index=False)
        (draft / "rows.jsonl").unlink()
        status = _get_pixels_path(draft, config).stat()
        header = {
            "format": FORMAT,
            "images": config.model_dump(),
            "files": len(paths),
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "index_crc32": zlib.crc32((draft / "index.csv").read_bytes()),
        }
        write_json(draft / "store.json", header)
        draft.replace(folder)
    except (OSError, ParfocalError):
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _read_draft_rows(draft: Path, config: ImagesConfig) -> list[dict[str, Any]]:
    """Return the index rows of an interrupted draft whose pixels are certain to be in the pixel file."""
    try:
        size = _get_pixels_path(draft, config).stat().st_size
        lines = (draft / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows: list[dict[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["start"] + row["length"] > size:
            break
        rows.append(row)
    return rows


def _write_pixels(
    draft: Path, rows: list[dict[str, Any]], paths: list[str], config: ImagesConfig, workers: int | None
) -> None:
    """Append the pixels of every remaining file, and its row to `rows`; flush both to the disk at intervals."""
    black = np.zeros((config.size, config.size, 3), np.uint8)
    stream = BytesIO()
    if config.store == "raw":
        shape = (len(paths), config.size, config.size, 3)
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    header = stream.getvalue()
    end = rows[-1]["start"] + rows[-1]["length"] if rows else len(header)
    if rows:
        print_line(f"Resuming: {len(rows):,} of {len(paths):,} images are already prepared.")
    jpeg_options = [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _NO_SUBSAMPLING]

    def read(path: str) -> tuple[Pixels, ImageInfo]:
        return prepare_image(Path(path), config)

    with (
        _get_pixels_path(draft, config).open("ab") as pixel_file,
        (draft / "rows.jsonl").open("w", encoding="utf-8") as row_file,
    ):
        if not rows:
            pixel_file.truncate(0)
            pixel_file.write(header)
        pixel_file.truncate(end)
        row_file.writelines(json.dumps(row) + "\n" for row in rows)
        remaining = paths[len(rows) :]
        results = map_ordered(remaining, catch_unreadable(read), "Preparing", workers, len(rows))
        for n_written, (path, result) in enumerate(zip(remaining, results, strict=True), start=1):
            pixels, info = (black, result) if isinstance(result, str) else result
            data = pixels.tobytes() if config.store == "raw" else encode_image(pixels, ".jpg", jpeg_options)
            pixel_file.write(data)
            row = {**build_index_row(path, info), "start": end, "length": len(data), "crc32": zlib.crc32(data)}
            end += len(data)
            rows.append(row)
            row_file.write(json.dumps(row) + "\n")
            if n_written % _FLUSH_EVERY == 0:
                _flush_to_disk(pixel_file, row_file)
        _flush_to_disk(pixel_file, row_file)


def _flush_to_disk(*files: Any) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
