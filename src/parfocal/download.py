"""Downloads: complete or absent, checked by hash, and resumed after a lost connection."""

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
    """Download `url` to `path` unless the file exists, and return `path`.

    `expected_hash` is `sha256:` or `md5:` with the digits of the hash, or its first digits; a file with another hash is
    rejected. After a lost connection the received bytes stay in a `.part` file, and with a hash the next call resumes
    from there.
    """
    if not path.exists():
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock")):
                # Another process may have downloaded it during the wait for the lock.
                if not path.exists():
                    _fetch(url, path, expected_hash)
                    return path
    if other_hash := _find_other_hash(path, expected_hash):
        raise ParfocalError(
            f"{path} is damaged or another file: its hash is {other_hash}, but {expected_hash} was expected. "
            "Delete it and try again."
        )
    return path


def compute_file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file as `sha256:` and its digits."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _find_other_hash(path: Path, expected_hash: str) -> str:
    """Return the hash of a file if it does not begin with `expected_hash`, else an empty string."""
    if not expected_hash:
        return ""
    file_hash = compute_file_hash(path, expected_hash.partition(":")[0])
    return "" if file_hash.startswith(expected_hash) else file_hash


def _fetch(url: str, path: Path, expected_hash: str) -> None:
    partial_path = path.with_name(f"{path.name}.part")
    if not expected_hash:
        partial_path.unlink(missing_ok=True)
    resumed = partial_path.exists()
    _receive_all(url, partial_path, path, expected_hash)
    if resumed and _find_other_hash(partial_path, expected_hash):
        # The earlier bytes may belong to another version of the file.
        partial_path.unlink()
        _receive_all(url, partial_path, path, expected_hash)
    if other_hash := _find_other_hash(partial_path, expected_hash):
        partial_path.unlink()
        raise ParfocalError(
            f"{url} is not the expected file: its hash is {other_hash}, but {expected_hash} was expected. "
            f"Nothing was kept. Try again, or place the file at {path}."
        )
    with partial_path.open("rb") as file:
        os.fsync(file.fileno())
    partial_path.replace(path)


def _receive_all(url: str, partial_path: Path, path: Path, expected_hash: str) -> None:
    """Receive the whole file; reconnect for as long as each connection brings more bytes."""
    while True:
        size_before = _get_size(partial_path)
        try:
            _receive(url, partial_path, path.name)
        except _CONNECTION_ERRORS as error:
            if isinstance(error, HTTPError) and error.code == 416 and size_before:
                return
            received = _get_size(partial_path)
            if received > size_before and expected_hash:
                continue
            reason = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else getattr(error, "reason", error)
            is_kept = expected_hash and received
            kept = f" {received:,} bytes are kept; run the same command to resume." if is_kept else ""
            raise ParfocalError(
                f"Cannot download {path.name} from {url}: {str(reason).rstrip('.')}.{kept} "
                f"Without internet access, download it on another machine and place it at {path}."
            ) from None
        else:
            return


def _receive(url: str, partial_path: Path, name: str) -> None:
    offset = _get_size(partial_path)
    headers = {"User-Agent": "parfocal"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS) as response:
        start = offset if response.status == 206 else 0
        end = start + int(response.headers.get("Content-Length") or 0)
        with (
            partial_path.open("ab" if start else "wb") as file,
            show_progress(f"Downloading {name} (MB)", math.ceil(end / _CHUNK_BYTES)) as advance,
        ):
            advance(start // _CHUNK_BYTES)
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                advance(1)
    if _get_size(partial_path) < end:
        raise ConnectionError(f"the connection was lost after {_get_size(partial_path):,} of {end:,} bytes")


def _get_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
