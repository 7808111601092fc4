"""Where files are kept, and how they are whole or absent: written beside, flushed to the disk, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parfocal.errors import ParfocalError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` only if the block succeeds."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            with beside.open("rb") as written:
                os.fsync(written.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into a sentence that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        raise ParfocalError(f"Cannot write {path}: {_suggest_remedy(error)}") from error


def _suggest_remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied. Choose another folder or change its permissions."
    if error.errno in (28, 122):
        return "the disk is full. Free some space or choose another folder; nothing half-written was left."
    return f"{error.strerror or error}."


def get_cache_folder(name: str, environment_variable: str) -> Path:
    """Return where files of one kind are kept: the folder an environment variable names, or one in the user's cache."""
    given = os.environ.get(environment_variable)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(cache) / "parfocal" / name


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write plain data as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
