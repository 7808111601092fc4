"""Files from the network: whole or absent, checked by hash, and gone on with where a connection was cut."""

import hashlib
import math
import os
import ssl
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

from parfocal.errors import ParfocalError
from parfocal.io import explain_write_errors
from parfocal.progress import show_progress

_CHUNK_BYTES = 1_000_000
_TIMEOUT_SECONDS = 30.0
_CONNECTION_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(url: str, path: Path, expected_hash: str = "") -> Path:
    """Return `file`, fetched from `url` where it is not there yet.

    `digest` is `sha256:` or `md5:` with the hash, or its beginning; a file that does not have it is refused. What came
    before a connection was cut stays beside as `.part` and is gone on with, if a digest can tell whether the pieces
    belong together.
    """
    if not path.exists():
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock")):
                # Another process may have fetched it while this one waited.
                if not path.exists():
                    _fetch(url, path, expected_hash)
                    return path
    if not matches_hash(path, expected_hash):
        found = compute_file_hash(path, expected_hash.partition(":")[0])
        raise ParfocalError(
            f"{path} is damaged or another file: its hash is {found}, expected was {expected_hash}. Delete it and start again."
        )
    return path


def compute_file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return a file's hash as `sha256:` and its digits."""
    with path.open("rb") as content:
        return f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"


def matches_hash(path: Path, expected_hash: str) -> bool:
    """Say whether a file's hash is, or begins with, that of `digest`; without one there is nothing to doubt."""
    return not expected_hash or compute_file_hash(path, expected_hash.partition(":")[0]).startswith(expected_hash)


def _fetch(url: str, path: Path, expected_hash: str) -> None:
    part = path.with_name(f"{path.name}.part")
    if not expected_hash:
        part.unlink(missing_ok=True)
    begun = part.exists()
    _receive_all(url, part, path, expected_hash)
    if begun and not matches_hash(part, expected_hash):
        # What was left from before may be of another version of the file.
        part.unlink()
        _receive_all(url, part, path, expected_hash)
    if not matches_hash(part, expected_hash):
        found = compute_file_hash(part, expected_hash.partition(":")[0])
        part.unlink()
        raise ParfocalError(
            f"{url} is not the file that was expected: its hash is {found}, expected was {expected_hash}. Nothing was kept. "
            f"Try again, or place the right file at {path}."
        )
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(path)


def _receive_all(url: str, partial_path: Path, path: Path, expected_hash: str) -> None:
    """Receive until the end, over again as long as each try brings something."""
    while True:
        before = _get_size(partial_path)
        try:
            _receive(url, partial_path, path.name)
        except _CONNECTION_ERRORS as error:
            if isinstance(error, HTTPError) and error.code == 416 and before:
                return
            if _get_size(partial_path) > before and expected_hash:
                continue
            raise ParfocalError(_format_download_error(url, partial_path, path, expected_hash, error)) from None
        else:
            return


def _receive(url: str, partial_path: Path, name: str) -> None:
    have = _get_size(partial_path)
    headers = {"User-Agent": "parfocal", **({"Range": f"bytes={have}-"} if have else {})}
    with urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS) as response:
        start = have if response.status == 206 else 0
        end = start + int(response.headers.get("Content-Length") or 0)
        with (
            partial_path.open("ab" if start else "wb") as kept,
            show_progress(f"Fetching {name} (MB)", math.ceil(end / _CHUNK_BYTES)) as done,
        ):
            done(start // _CHUNK_BYTES)
            while piece := response.read(_CHUNK_BYTES):
                kept.write(piece)
                done(1)
    if _get_size(partial_path) < end:
        raise ConnectionError(f"the connection was cut after {_get_size(partial_path):,} of {end:,} bytes")


def _format_download_error(url: str, partial_path: Path, path: Path, expected_hash: str, error: BaseException) -> str:
    reason = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else getattr(error, "reason", error)
    kept = (
        f" {_get_size(partial_path):,} bytes are kept; the same command goes on from there."
        if expected_hash and _get_size(partial_path)
        else ""
    )
    return (
        f"Cannot fetch {path.name} from {url}: {str(reason).rstrip('.')}.{kept} "
        f"Without a network, fetch it elsewhere and place it at {path}."
    )


def _get_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
