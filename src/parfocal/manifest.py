"""The manifest of a run: checksums of its files, so that a damaged or missing file is noticed when it is read.

For each file, `manifest.json` lists the checksums that the file may have: a single checksum, or while the file is
replaced the previous and the coming one. It is written before the file is renamed, so a run that is killed at any
moment has only files that are accepted. It detects damage, not forgery: who can write a file can write the manifest.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeGuard

from filelock import FileLock

from parfocal.errors import ParfocalError
from parfocal.io import atomic_write, explain_write_errors, write_json
from parfocal.progress import print_warning

MANIFEST_FILE = "manifest.json"
LISTED_FILES = ("recipe.yaml", "table.csv", "model.safetensors", "last.ckpt", "decision.json")
"""The files whose checksums are in the manifest."""

_KEY = "sha256"
"""The key that tells a manifest from another file of the same name, such as that of a web page."""
_HEX_DIGITS = frozenset("0123456789abcdef")

Checksums = list[str | None]
"""The SHA-256 checksums that a file may have; None means that it may be absent."""

_warned_folders: set[Path] = set()


def create_manifest(folder: Path) -> None:
    """Write the manifest of a run folder with the files that are there, unless the folder has a manifest."""
    if _read_entries(folder) is None:
        paths = [folder / name for name in LISTED_FILES]
        _write_entries(folder, {path.name: [_compute_checksum(path)] for path in paths if path.is_file()})


@contextmanager
def write_listed_file(path: Path) -> Iterator[Path]:
    """Write a file atomically, as `atomic_write` does, and its checksum if the folder has a manifest.

    The lock keeps two processes from overwriting each other's entries.
    """
    path = Path(path)
    if path.name not in LISTED_FILES or _read_entries(path.parent) is None:
        with atomic_write(path) as temporary_path:
            yield temporary_path
        return
    with ExitStack() as stack:
        with atomic_write(path) as temporary_path:
            yield temporary_path
            coming = _compute_checksum(temporary_path)
            with explain_write_errors(path.parent / MANIFEST_FILE):
                stack.enter_context(FileLock(path.with_name(f".{MANIFEST_FILE}.lock")))
            previous = (_read_entries(path.parent) or {}).get(path.name, [None])
            _change_entry(path, [*previous, coming])
        _change_entry(path, [coming])


def verify_file(path: Path) -> bool:
    """Return whether a file exists; raise an error if it is not what the manifest of its folder lists."""
    path = Path(path)
    checksums = _find_checksums(path)
    while checksums is not None:
        actual = _compute_checksum(path) if path.is_file() else None
        if actual in checksums:
            return actual is not None
        # The file may have been replaced between the two reads.
        previous = checksums
        checksums = _find_checksums(path)
        if checksums == previous:
            raise _build_missing_error(path) if actual is None else _build_altered_error(path)
    return path.is_file()


def file_exists(path: Path) -> bool:
    """Return whether a file exists, without reading it; raise an error if the manifest lists it and it is missing."""
    if path.is_file():
        return True
    checksums = _find_checksums(path)
    if checksums is not None and None not in checksums:
        raise _build_missing_error(path)
    return False


def warn_without_manifest(folder: Path) -> None:
    """Print a warning if a run or ensemble has no manifest, once for each folder; reject a damaged manifest."""
    if _read_entries(folder) is not None:
        return
    if (folder / MANIFEST_FILE).is_file():
        raise _build_manifest_error(folder)
    if folder.resolve() not in _warned_folders:
        _warned_folders.add(folder.resolve())
        print_warning(
            f"{folder} has no {MANIFEST_FILE}, so damaged files are not noticed. "
            f"`parfocal evaluate {folder}` writes it."
        )


def _find_checksums(path: Path) -> Checksums | None:
    """Return the checksums that the manifest lists for a file; None if it lists none or there is no manifest."""
    if path.name not in LISTED_FILES:
        return None
    return (_read_entries(path.parent) or {}).get(path.name)


def _read_entries(folder: Path) -> dict[str, Checksums] | None:
    """Return the checksums by file; None if there is no manifest of Parfocal."""
    try:
        content = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError):
        raise _build_manifest_error(folder) from None
    if not isinstance(content, dict) or _KEY not in content:
        return None
    if not _is_valid(content[_KEY]):
        raise _build_manifest_error(folder)
    return content[_KEY]


def _is_valid(entries: object) -> TypeGuard[dict[str, Checksums]]:
    def is_checksum(value: object) -> bool:
        return value is None or (isinstance(value, str) and len(value) == 64 and _HEX_DIGITS.issuperset(value))

    return isinstance(entries, dict) and all(
        name in LISTED_FILES and isinstance(checksums, list) and all(map(is_checksum, checksums))
        for name, checksums in entries.items()
    )


def _change_entry(path: Path, checksums: Checksums) -> None:
    entries = _read_entries(path.parent) or {}
    _write_entries(path.parent, {**entries, path.name: checksums})


def _write_entries(folder: Path, entries: dict[str, Checksums]) -> None:
    """Write the entries in one order, so that the manifests of equal runs are equal."""
    ordered = {name: entries[name] for name in LISTED_FILES if name in entries}
    write_json(folder / MANIFEST_FILE, {_KEY: ordered})


def _compute_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build_altered_error(path: Path) -> ParfocalError:
    return ParfocalError(
        f"{path} was changed after it was written: its checksum is not the one in {MANIFEST_FILE}. Restore it from a "
        f"copy of the run. To use it as it is, delete {path.parent / MANIFEST_FILE}."
    )


def _build_missing_error(path: Path) -> ParfocalError:
    return ParfocalError(
        f"{path} is missing, but {MANIFEST_FILE} lists it. Restore it from a copy of the run. To use the run without "
        f"it, delete {path.parent / MANIFEST_FILE}."
    )


def _build_manifest_error(folder: Path) -> ParfocalError:
    path = folder / MANIFEST_FILE
    return ParfocalError(f"{path} is damaged. Restore it from a copy of the run, or delete it to use the run without.")
