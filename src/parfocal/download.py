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
from parfocal.files import explained
from parfocal.progress import progress

_PIECE = 1_000_000
_PATIENCE = 30.0
_CUT = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(url: str, file: Path, digest: str = "") -> Path:
    """Return `file`, fetched from `url` where it is not there yet.

    `digest` is `sha256:` or `md5:` with the hash, or its beginning; a file that does not have it is refused. What came
    before a connection was cut stays beside as `.part` and is gone on with, if a digest can tell whether the pieces
    belong together.
    """
    if not file.exists():
        with explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f".{file.name}.lock")):
                # Another process may have fetched it while this one waited.
                if not file.exists():
                    _fetch(url, file, digest)
                    return file
    if not has_digest(file, digest):
        found = digest_of(file, digest.partition(":")[0])
        raise ParfocalError(
            f"{file} is damaged or another file: its hash is {found}, expected was {digest}. Delete it and start again."
        )
    return file


def digest_of(file: Path, algorithm: str = "sha256") -> str:
    """Return a file's hash as `sha256:` and its digits."""
    with file.open("rb") as content:
        return f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"


def has_digest(file: Path, digest: str) -> bool:
    """Say whether a file's hash is, or begins with, that of `digest`; without one there is nothing to doubt."""
    return not digest or digest_of(file, digest.partition(":")[0]).startswith(digest)


def _fetch(url: str, file: Path, digest: str) -> None:
    part = file.with_name(f"{file.name}.part")
    if not digest:
        part.unlink(missing_ok=True)
    begun = part.exists()
    _receive_all(url, part, file, digest)
    if begun and not has_digest(part, digest):
        # What was left from before may be of another version of the file.
        part.unlink()
        _receive_all(url, part, file, digest)
    if not has_digest(part, digest):
        found = digest_of(part, digest.partition(":")[0])
        part.unlink()
        raise ParfocalError(
            f"{url} is not the file that was expected: its hash is {found}, expected was {digest}. Nothing was kept. "
            f"Try again, or place the right file at {file}."
        )
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(file)


def _receive_all(url: str, part: Path, file: Path, digest: str) -> None:
    """Receive until the end, over again as long as each try brings something."""
    while True:
        before = _size(part)
        try:
            _receive(url, part, file.name)
        except _CUT as error:
            if isinstance(error, HTTPError) and error.code == 416 and before:
                return
            if _size(part) > before and digest:
                continue
            raise ParfocalError(_by_hand(url, part, file, digest, error)) from None
        else:
            return


def _receive(url: str, part: Path, name: str) -> None:
    have = _size(part)
    headers = {"User-Agent": "parfocal", **({"Range": f"bytes={have}-"} if have else {})}
    with urlopen(Request(url, headers=headers), timeout=_PATIENCE) as response:
        start = have if response.status == 206 else 0
        end = start + int(response.headers.get("Content-Length") or 0)
        with (
            part.open("ab" if start else "wb") as kept,
            progress(f"Fetching {name} (MB)", math.ceil(end / _PIECE)) as done,
        ):
            done(start // _PIECE)
            while piece := response.read(_PIECE):
                kept.write(piece)
                done(1)
    if _size(part) < end:
        raise ConnectionError(f"the connection was cut after {_size(part):,} of {end:,} bytes")


def _by_hand(url: str, part: Path, file: Path, digest: str, error: BaseException) -> str:
    reason = f"{error.code} {error.reason}" if isinstance(error, HTTPError) else getattr(error, "reason", error)
    kept = f" {_size(part):,} bytes are kept; the same command goes on from there." if digest and _size(part) else ""
    return (
        f"Cannot fetch {file.name} from {url}: {str(reason).rstrip('.')}.{kept} "
        f"Without a network, fetch it elsewhere and place it at {file}."
    )


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
