"""How a Store's pixels lie on disk: raw, mapped as one array, or as JPEGs of high quality behind one another."""
# MERGED: """Store: the prepared pixels of a table, one memory-mapped uint8 array (N, H, W, 3) and its index.
#
# Its key is a hash of the image part of the recipe and of the files, so a changed recipe or file is another Store.
# """

import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from filelock import FileLock

from parfocal.data import store as packing
from parfocal.data.decode import ImageInfo, Pixels, build_index_row, get_container_file, prepare_image
from parfocal.data.parallel import map_ordered
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.io import explain_write_errors, get_cache_folder, write_json
from parfocal.progress import print_line
from parfocal.recipe import hash_content
from parfocal.schema import ImagesConfig

_NO_SUBSAMPLING = 0x111111


class JpegArray:
    """JPEGs that read like an array of images; each is decoded by the thread that asks for it."""

    def __init__(self, encoded: np.ndarray, index: pd.DataFrame, size: int) -> None:
        self.shape = (len(index), size, size, 3)
        self._encoded = encoded
        self._starts = index["start"].to_numpy(np.int64)
        self._lengths = index["length"].to_numpy(np.int64)

    def __getitem__(self, position: Any) -> np.ndarray:
        if not np.isscalar(position) and not isinstance(position, np.integer):
            return np.stack([self[one] for one in np.arange(self.shape[0])[position]])
        start = int(self._starts[position])
        data = self._encoded[start : start + int(self._lengths[position])]
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # pyright: ignore


def get_pixels_path(folder: Path, config: ImagesConfig) -> Path:
    """Return the file in which a Store's pixels lie."""
    return folder / ("pixels.npy" if config.store == "raw" else "pixels.jpegs")


def build_header(n_images: int, config: ImagesConfig) -> bytes:
    """Return what the file begins with: for raw pixels what makes it a `.npy` that any program reads."""
    if config.store == "jpeg":
        return b""
    content = BytesIO()
    shape = (n_images, config.size, config.size, 3)
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return content.getvalue()


def encode_image(pixels: np.ndarray, config: ImagesConfig) -> bytes:
    """Return one framed image as the bytes that are kept."""
    if config.store == "raw":
        return pixels.tobytes()
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        config.jpeg_quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        _NO_SUBSAMPLING,
    ]
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)[1].tobytes()


def open_pixels(folder: Path, config: ImagesConfig, index: pd.DataFrame) -> np.ndarray | JpegArray:
    """Open a Store's pixels as something that reads like an array (N, size, size, 3)."""
    if config.store == "raw":
        return np.load(get_pixels_path(folder, config), mmap_mode="r")
    return JpegArray(np.memmap(get_pixels_path(folder, config), np.uint8, mode="r"), index, config.size)


def verify_checksums(folder: Path, config: ImagesConfig, index: pd.DataFrame) -> bool:
    """Say whether every image's bytes are still those that were written."""
    content = np.memmap(get_pixels_path(folder, config), np.uint8, mode="r")
    pieces = zip(index["start"], index["length"], index["check"], strict=True)
    return all(zlib.crc32(content[start : start + length].tobytes()) == check for start, length, check in pieces)


FORMAT = 2
"""Raised when the same recipe and files would give other pixels."""

_FLUSH_EVERY = 256
_TEXT_COLUMNS = {"path": str, "digest": str, "notes": str, "error": str}


ImageArray = np.ndarray | packing.JpegArray
"""Images one behind another: an array, or what reads like one."""


@dataclass(frozen=True)
class Store:
    """Prepared pixels on disk.

    `index` has one row a file: path, width, height, bytes, digest, notes, error where it failed, and where and how its
    pixels lie in the file of pixels (start, length, check).
    """

    folder: Path
    config: ImagesConfig
    index: pd.DataFrame

    @cached_property
    def pixels(self) -> ImageArray:
        """The images, (N, size, size, 3) uint8, mapped into memory and read-only."""
        return packing.open_pixels(self.folder, self.config, self.index)

    def get_positions(self, table: Table) -> np.ndarray:
        """Return for each row of a table the place of its image in the Store."""
        return table.find_positions_in(self.index)


def get_stores_folder() -> Path:
    """Return where Stores are kept: $PARFOCAL_STORES, or the user's cache."""
    return get_cache_folder("stores", "PARFOCAL_STORES")


def prepare(table: Table, config: ImagesConfig, *, workers: int | None = None) -> Store:
    """Decode and frame every file of the table once, or open the Store that holds just that already.

    Interrupted, it goes on where it was. Two processes that want the same Store make it once. A damaged Store is made
    anew.
    """
    paths = table.paths
    folder = _get_folder(paths, config)
    if store := _open_if_complete(folder, config):
        return store
    with explain_write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            # Another process may have made it while this one waited.
            store = _open_if_complete(folder, config)
            if store is None:
                shutil.rmtree(folder, ignore_errors=True)
                _build_store(folder, paths, config, workers or os.cpu_count() or 1)
                store = _open_if_complete(folder, config)
    if store is None:
        raise ParfocalError(f"{folder} was damaged as soon as it was made. Check the disk.")
    return store


def find_store(table: Table, config: ImagesConfig) -> Store | None:
    """Open the Store of a table if it is complete; never build it."""
    return _open_if_complete(_get_folder(table.paths, config), config)


def _get_folder(paths: list[str], config: ImagesConfig) -> Path:
    stamps = [_read_file_stamp(path) for path in paths]
    return get_stores_folder() / hash_content({"format": FORMAT, "images": config.model_dump(), "files": stamps})


def _read_file_stamp(path: str) -> list[object]:
    try:
        status = get_container_file(path).stat()
    except OSError:
        return [path, None]
    return [path, status.st_size, status.st_mtime_ns]


def _open_if_complete(folder: Path, config: ImagesConfig) -> Store | None:
    """Open a Store if it is there and as it was written; pixels touched since then are checked in full."""
    try:
        header = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        text = (folder / "index.csv").read_bytes()
        index = pd.read_csv(folder / "index.csv", keep_default_na=False, dtype=_TEXT_COLUMNS)
        status = packing.get_pixels_path(folder, config).stat()
        untouched = [status.st_size, status.st_mtime_ns] == [header["bytes"], header["changed"]]
        right = zlib.crc32(text) == header["index"] and status.st_size == header["bytes"]
        if right and (untouched or packing.verify_checksums(folder, config, index)):
            return Store(folder, config, index)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError):
        pass
    print_line(f"The prepared pixels in {folder} are damaged and are made anew.")
    return None


def _build_store(folder: Path, paths: list[str], config: ImagesConfig, workers: int) -> None:
    """Fill a draft beside the folder, then give it its name; a draft that was left behind is gone on with."""
    draft = folder.with_suffix(".part")
    draft.mkdir(exist_ok=True)
    done = _read_draft_rows(draft, config)
    _check_disk_space(draft, len(paths) - len(done), config)
    try:
        _write_pixels(draft, done, paths, config, workers)
        index = pd.DataFrame(done)
        index.to_csv(draft / "index.csv", index=False)
        (draft / "rows.jsonl").unlink()
        status = packing.get_pixels_path(draft, config).stat()
        content = {
            "format": FORMAT,
            "images": config.model_dump(),
            "files": len(paths),
            "bytes": status.st_size,
            "changed": status.st_mtime_ns,
            "index": zlib.crc32((draft / "index.csv").read_bytes()),
        }
        write_json(draft / "store.json", content)
        draft.replace(folder)
    except (OSError, ParfocalError):
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _read_draft_rows(draft: Path, config: ImagesConfig) -> list[dict[str, Any]]:
    """Return the rows that an interrupted draft holds for certain: those whose pixels are in the file."""
    try:
        size = packing.get_pixels_path(draft, config).stat().st_size
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


def _check_disk_space(draft: Path, n_files: int, config: ImagesConfig) -> None:
    """Refuse before hours of work what the disk cannot hold."""
    if config.store == "jpeg":
        return
    needed, free = n_files * config.size**2 * 3, shutil.disk_usage(draft).free
    if needed > free:
        draft.rmdir() if not any(draft.iterdir()) else None
        raise ParfocalError(
            f"{n_files:,} images of {config.size}×{config.size} need {needed / 1e9:.1f} GB, {draft.parent} has "
            f"{free / 1e9:.1f} GB free. Free some space, set $PARFOCAL_STORES, or choose a smaller size or store=jpeg."
        )


def _write_pixels(
    draft: Path, done: list[dict[str, Any]], paths: list[str], config: ImagesConfig, workers: int
) -> None:
    """Append the pixels of every file that is not done yet, and its row; every so often both are made safe."""
    blank = np.zeros((config.size, config.size, 3), np.uint8)
    header = packing.build_header(len(paths), config)
    end = done[-1]["start"] + done[-1]["length"] if done else len(header)
    if done:
        print_line(f"Going on with {len(done):,} of {len(paths):,} images prepared before.")
    with (
        packing.get_pixels_path(draft, config).open("ab") as file,
        (draft / "rows.jsonl").open("w", encoding="utf-8") as rows,
    ):
        if not done:
            file.truncate(0)
            file.write(header)
        file.truncate(end)
        rows.writelines(json.dumps(row) + "\n" for row in done)
        remaining = paths[len(done) :]
        outcomes = map_ordered(remaining, _build_worker(config), "Preparing", workers, len(done))
        for number, (path, (pixels, outcome)) in enumerate(zip(remaining, outcomes, strict=True), start=1):
            packed = packing.encode_image(blank if pixels is None else pixels, config)
            file.write(packed)
            row = {**build_index_row(path, outcome), "start": end, "length": len(packed), "check": zlib.crc32(packed)}
            end += len(packed)
            done.append(row)
            rows.write(json.dumps(row) + "\n")
            if number % _FLUSH_EVERY == 0:
                _flush_to_disk(file, rows)
        _flush_to_disk(file, rows)


def _flush_to_disk(*files: Any) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _build_worker(config: ImagesConfig) -> Callable[[str], tuple[Pixels | None, ImageInfo | str]]:
    def prepared(path: str) -> tuple[Pixels | None, ImageInfo | str]:
        try:
            return prepare_image(Path(path), config)
        except UnreadableImageError as reason:
            return None, str(reason)

    return prepared
