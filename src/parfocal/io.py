"""Atomic file writes and the cache folder.

A file is written to a temporary path in the same folder, flushed to disk and renamed, so it is complete or absent.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parfocal.errors import ParfocalError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` only if the block succeeds."""
    path = Path(path)
    temporary_path = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # What a killed process of the same number left, or a link that somebody prepared.
        temporary_path.unlink(missing_ok=True)
        try:
            yield temporary_path
            with temporary_path.open("rb") as file:
                os.fsync(file.fileno())
            temporary_path.replace(path)
        finally:
            temporary_path.unlink(missing_ok=True)


def reject_link(folder: Path) -> Path:
    """Return a folder below a run that is about to be written; reject a link, which could lead to any other folder."""
    if folder.is_symlink():
        raise ParfocalError(
            f"{folder} is a link, and nothing is written through a link in a run folder. Replace it with a folder."
        )
    return folder


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a message that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PermissionError):
            reason = "permission denied. Choose another folder or change its permissions."
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full. Free some space or choose another folder; no incomplete file was left."
        else:
            reason = f"{error.strerror or error}."
        raise ParfocalError(f"Cannot write {path}: {reason}") from error


def get_cache_folder(name: str, environment_variable: str) -> Path:
    """Return the cache folder for a kind of file. The environment variable overrides the user's cache folder."""
    override = os.environ.get(environment_variable)
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(override) if override else Path(user_cache) / "parfocal" / name


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary_path:
        temporary_path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write plain data as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
