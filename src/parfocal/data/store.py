"""Store: the prepared pixels of a table, one memory-mapped uint8 array (N, H, W, 3) and its index.

Its key is a hash of the image part of the recipe and of the files, so a changed recipe or file is another Store.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from parfocal.data.decode import Facts, Pixels, Unreadable, prepare_image
from parfocal.data.table import Table
from parfocal.files import explained, write_json
from parfocal.progress import progress
from parfocal.recipe import ImagesPart, digest

FORMAT = 1
"""Raised when the same recipe and files would give other pixels."""


@dataclass(frozen=True)
class Store:
    """Prepared pixels on disk. `index` has one row a file: path, width, height, digest, and error where it failed."""

    folder: Path
    images: ImagesPart
    index: pd.DataFrame

    @cached_property
    def pixels(self) -> Pixels:
        """The images, (N, size, size, 3) uint8, mapped into memory and read-only."""
        return np.load(self.folder / "pixels.npy", mmap_mode="r")

    def places(self, table: Table) -> np.ndarray:
        """Return for each row of a table the place of its image in the Store."""
        place = {path: number for number, path in enumerate(self.index["path"])}
        return np.array([place[path] for path in table.rows["path"]], dtype=np.int64)


def stores_folder() -> Path:
    """Return where Stores are kept: $PARFOCAL_STORES, or the user's cache."""
    given = os.environ.get("PARFOCAL_STORES")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(cache) / "parfocal" / "stores"


def prepare(table: Table, images: ImagesPart, *, workers: int | None = None) -> Store:
    """Decode and frame every file of the table once, or open the Store that holds just that already."""
    paths = list(dict.fromkeys(table.rows["path"]))
    key = digest({"format": FORMAT, "images": images.model_dump(), "files": [_stamp(path) for path in paths]})
    folder = stores_folder() / key
    if not (folder / "store.json").is_file():
        with _beside(folder) as draft:
            _fill(draft, paths, images, workers or os.cpu_count() or 1)
    index = pd.read_csv(folder / "index.csv", keep_default_na=False, dtype={"path": str, "digest": str, "error": str})
    return Store(folder, images, index)


def examine(table: Table, images: ImagesPart, *, workers: int | None = None) -> pd.DataFrame:
    """Decode every file of the table and return what a Store's index would say, keeping no pixels."""
    paths = list(dict.fromkeys(table.rows["path"]))
    outcomes = _decoded(paths, images, workers or os.cpu_count() or 1, "Checking")
    return _index(paths, [outcome[1] for outcome in outcomes])


def _stamp(path: str) -> list[object]:
    try:
        status = Path(path).stat()
    except OSError:
        return [path, None]
    return [path, status.st_size, status.st_mtime_ns]


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a folder that becomes `folder` if the block succeeds, and vanishes if not."""
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
        try:
            yield draft
            try:
                draft.replace(folder)
            except OSError:
                # Another process prepared the same Store meanwhile: the two are equal, so its one serves.
                if not (folder / "store.json").is_file():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _fill(draft: Path, paths: list[str], images: ImagesPart, workers: int) -> None:
    outcomes: list[Facts | str] = []
    blank = np.zeros((images.size, images.size, 3), np.uint8)
    # Written in order through a file, not through the map: a full disk is then an error instead of a killed process.
    with (draft / "pixels.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), *blank.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for pixels, outcome in _decoded(paths, images, workers, "Preparing"):
            file.write((blank if pixels is None else pixels).data)
            outcomes.append(outcome)
        file.flush()
        os.fsync(file.fileno())
    _index(paths, outcomes).to_csv(draft / "index.csv", index=False)
    write_json(draft / "store.json", {"format": FORMAT, "images": images.model_dump(), "files": len(paths)})


def _index(paths: list[str], outcomes: list[Facts | str]) -> pd.DataFrame:
    rows = [
        {"path": path, "width": 0, "height": 0, "digest": "", "error": outcome}
        if isinstance(outcome, str)
        else {"path": path, **asdict(outcome), "error": ""}
        for path, outcome in zip(paths, outcomes, strict=True)
    ]
    return pd.DataFrame(rows, columns=["path", "width", "height", "digest", "error"])


def _decoded(
    paths: list[str], images: ImagesPart, workers: int, label: str
) -> Iterator[tuple[Pixels | None, Facts | str]]:
    """Yield pixels and facts of every file in order, decoded in threads a bounded number ahead."""

    def one(path: str) -> tuple[Pixels | None, Facts | str]:
        try:
            return prepare_image(Path(path), images)
        except Unreadable as reason:
            return None, str(reason)

    with ThreadPoolExecutor(workers) as pool, progress(label, len(paths)) as done:
        remaining = iter(paths)
        waiting: list[Future[tuple[Pixels | None, Facts | str]]] = [
            pool.submit(one, path) for path in islice(remaining, 8 * workers)
        ]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(one, path) for path in islice(remaining, 1)]
            done(1)
