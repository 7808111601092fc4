"""Downloads: complete or absent, checked by hash, and resumed after a lost connection."""

import hashlib
import math
import os
import ssl
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

from parfocal.errors import ParfocalError
from parfocal.io import explain_write_errors
from parfocal.progress import show_progress

_CHUNK_BYTES = 1_000_000
# The longest wait for an answer, and for more bytes of it.
_TIMEOUT_SECONDS = 5.0
# A `ValueError` is an invalid address, such as that of a mirror without https://.
_CONNECTION_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError, ValueError)


class DownloadError(ParfocalError):
    """A file cannot be downloaded. The message says where to place it; without an answer, `is_unreachable` is true."""

    def __init__(self, url: str, path: Path, reason: str, *, n_kept: int = 0, is_unreachable: bool = True) -> None:
        kept = f" {n_kept:,} bytes are kept; run the same command to resume." if n_kept else ""
        super().__init__(
            f"Cannot download {path.name} from {url}: {reason.rstrip('.')}.{kept} "
            f"Without internet access, download it on another machine and place it at {path}."
        )
        self.reason = reason
        self.is_unreachable = is_unreachable


def download(url: str, path: Path, expected_hash: str = "") -> Path:
    """Download `url` to `path` unless the file exists, and return `path`.

    `expected_hash` is `sha256:` or `md5:` with the digits of the hash, or its first digits; a file with another hash is
    rejected. After a lost connection the received bytes stay in a `.part` file, and with a hash the next call resumes
    from there. Where nothing answers, it fails within five seconds, and with `PARFOCAL_OFFLINE=1` at once.
    """
    if not path.exists():
        if is_offline():
            raise DownloadError(url, path, "PARFOCAL_OFFLINE is set")
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


def is_offline() -> bool:
    """Return whether the user has forbidden every download by `PARFOCAL_OFFLINE=1`."""
    return os.environ.get("PARFOCAL_OFFLINE", "") not in ("", "0")


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
            is_answer = isinstance(error, HTTPError)
            reason = f"{error.code} {error.reason}" if is_answer else str(getattr(error, "reason", error))
            n_kept = received if expected_hash else 0
            raise DownloadError(url, path, reason, n_kept=n_kept, is_unreachable=not is_answer) from None
        else:
            return


def _receive(url: str, partial_path: Path, name: str) -> None:
    offset = _get_size(partial_path)
    headers = {"User-Agent": "parfocal"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with _open(Request(url, headers=headers)) as response:
        start = offset if response.status == 206 else 0
        end = start + int(response.headers.get("Content-Length") or 0)
        with (
            partial_path.open("ab" if start else "wb") as file,
            show_progress(f"Downloading {name} (MB)", math.ceil(end / _CHUNK_BYTES)) as advance,
        ):
            received = start
            advance(received // _CHUNK_BYTES)
            # `read1` returns what has arrived, so that a connection that is lost costs none of it.
            while chunk := response.read1(_CHUNK_BYTES):
                file.write(chunk)
                advance((received + len(chunk)) // _CHUNK_BYTES - received // _CHUNK_BYTES)
                received += len(chunk)
    if _get_size(partial_path) < end:
        raise ConnectionError(f"the connection was lost after {_get_size(partial_path):,} of {end:,} bytes")


def _open(request: Request) -> HTTPResponse:
    """Open an address within the time limit, in which its host is looked up and all addresses of the host are tried.

    The time limit of `urlopen` counts for each address alone and not for the look-up, hence the thread.
    """
    answers: Queue[HTTPResponse | Exception] = Queue()

    def open_url() -> None:
        try:
            answers.put(urlopen(request, timeout=_TIMEOUT_SECONDS))
        except Exception as error:
            answers.put(error)

    Thread(target=open_url, daemon=True).start()
    try:
        answer = answers.get(timeout=_TIMEOUT_SECONDS)
    except Empty:
        raise TimeoutError(f"no answer within {_TIMEOUT_SECONDS:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _get_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
