"""Store: the prepared pixels of a table, one memory-mapped uint8 array (N, H, W, 3) and its index.

Its key is a hash of the image part of the recipe and of the files, so a changed recipe or file is another Store.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from parfocal.data import packing
from parfocal.data.arrays import file_of
from parfocal.data.decode import Facts, Pixels, Unreadable, index_row, prepare_image
from parfocal.data.passes import in_order
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.files import cache_folder, explained, write_json
from parfocal.parts import ImagesPart
from parfocal.progress import say
from parfocal.recipe import digest

FORMAT = 2
"""Raised when the same recipe and files would give other pixels."""

_KEPT_EVERY = 256
_TEXT = {"path": str, "digest": str, "notes": str, "error": str}


Stack = np.ndarray | packing.Packed
"""Images one behind another: an array, or what reads like one."""


@dataclass(frozen=True)
class Store:
    """Prepared pixels on disk.

    `index` has one row a file: path, width, height, bytes, digest, notes, error where it failed, and where and how its
    pixels lie in the file of pixels (start, length, check).
    """

    folder: Path
    images: ImagesPart
    index: pd.DataFrame

    @cached_property
    def pixels(self) -> Stack:
        """The images, (N, size, size, 3) uint8, mapped into memory and read-only."""
        return packing.opened(self.folder, self.images, self.index)

    def places(self, table: Table) -> np.ndarray:
        """Return for each row of a table the place of its image in the Store."""
        return table.places_in(self.index)


def stores_folder() -> Path:
    """Return where Stores are kept: $PARFOCAL_STORES, or the user's cache."""
    return cache_folder("stores", "PARFOCAL_STORES")


def prepare(table: Table, images: ImagesPart, *, workers: int | None = None) -> Store:
    """Decode and frame every file of the table once, or open the Store that holds just that already.

    Interrupted, it goes on where it was. Two processes that want the same Store make it once. A damaged Store is made
    anew.
    """
    paths = table.paths
    key = digest({"format": FORMAT, "images": images.model_dump(), "files": [_stamp(path) for path in paths]})
    folder = stores_folder() / key
    if store := _whole(folder, images):
        return store
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            # Another process may have made it while this one waited.
            store = _whole(folder, images)
            if store is None:
                shutil.rmtree(folder, ignore_errors=True)
                _make(folder, paths, images, workers or os.cpu_count() or 1)
                store = _whole(folder, images)
    if store is None:
        raise ParfocalError(f"{folder} was damaged as soon as it was made. Check the disk.")
    return store


def _stamp(path: str) -> list[object]:
    try:
        status = file_of(path).stat()
    except OSError:
        return [path, None]
    return [path, status.st_size, status.st_mtime_ns]


def _whole(folder: Path, images: ImagesPart) -> Store | None:
    """Open a Store if it is there and as it was written; pixels touched since then are checked in full."""
    try:
        header = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        text = (folder / "index.csv").read_bytes()
        index = pd.read_csv(folder / "index.csv", keep_default_na=False, dtype=_TEXT)
        status = packing.place(folder, images).stat()
        untouched = [status.st_size, status.st_mtime_ns] == [header["bytes"], header["changed"]]
        right = zlib.crc32(text) == header["index"] and status.st_size == header["bytes"]
        if right and (untouched or packing.checked(folder, images, index)):
            return Store(folder, images, index)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError):
        pass
    say(f"The prepared pixels in {folder} are damaged and are made anew.")
    return None


def _make(folder: Path, paths: list[str], images: ImagesPart, workers: int) -> None:
    """Fill a draft beside the folder, then give it its name; a draft that was left behind is gone on with."""
    draft = folder.with_suffix(".part")
    draft.mkdir(exist_ok=True)
    done = _kept(draft, images)
    _refuse_if_too_large(draft, len(paths) - len(done), images)
    try:
        _fill(draft, done, paths, images, workers)
        index = pd.DataFrame(done)
        index.to_csv(draft / "index.csv", index=False)
        (draft / "rows.jsonl").unlink()
        status = packing.place(draft, images).stat()
        content = {
            "format": FORMAT,
            "images": images.model_dump(),
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


def _kept(draft: Path, images: ImagesPart) -> list[dict[str, Any]]:
    """Return the rows that an interrupted draft holds for certain: those whose pixels are in the file."""
    try:
        size = packing.place(draft, images).stat().st_size
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


def _refuse_if_too_large(draft: Path, files: int, images: ImagesPart) -> None:
    """Refuse before hours of work what the disk cannot hold."""
    if images.store == "jpeg":
        return
    needed, free = files * images.size**2 * 3, shutil.disk_usage(draft).free
    if needed > free:
        draft.rmdir() if not any(draft.iterdir()) else None
        raise ParfocalError(
            f"{files:,} images of {images.size}×{images.size} need {needed / 1e9:.1f} GB, {draft.parent} has "
            f"{free / 1e9:.1f} GB free. Free some space, set $PARFOCAL_STORES, or choose a smaller size or store=jpeg."
        )


def _fill(draft: Path, done: list[dict[str, Any]], paths: list[str], images: ImagesPart, workers: int) -> None:
    """Append the pixels of every file that is not done yet, and its row; every so often both are made safe."""
    blank = np.zeros((images.size, images.size, 3), np.uint8)
    header = packing.header(len(paths), images)
    end = done[-1]["start"] + done[-1]["length"] if done else len(header)
    if done:
        say(f"Going on with {len(done):,} of {len(paths):,} images prepared before.")
    with packing.place(draft, images).open("ab") as file, (draft / "rows.jsonl").open("w", encoding="utf-8") as rows:
        if not done:
            file.truncate(0)
            file.write(header)
        file.truncate(end)
        rows.writelines(json.dumps(row) + "\n" for row in done)
        remaining = paths[len(done) :]
        outcomes = in_order(remaining, _work(images), "Preparing", workers, len(done))
        for number, (path, (pixels, outcome)) in enumerate(zip(remaining, outcomes, strict=True), start=1):
            packed = packing.packed(blank if pixels is None else pixels, images)
            file.write(packed)
            row = {**index_row(path, outcome), "start": end, "length": len(packed), "check": zlib.crc32(packed)}
            end += len(packed)
            done.append(row)
            rows.write(json.dumps(row) + "\n")
            if number % _KEPT_EVERY == 0:
                _make_safe(file, rows)
        _make_safe(file, rows)


def _make_safe(*files: Any) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def _work(images: ImagesPart) -> Callable[[str], tuple[Pixels | None, Facts | str]]:
    def prepared(path: str) -> tuple[Pixels | None, Facts | str]:
        try:
            return prepare_image(Path(path), images)
        except Unreadable as reason:
            return None, str(reason)

    return prepared
