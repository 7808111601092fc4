"""Downloads are complete with the right hash or absent, and lost connections are resumed."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from parfocal import download as module
from parfocal.download import DownloadError, download
from parfocal.errors import ParfocalError
from tests.web import WebServer, run_web_server

CONTENT = bytes(range(256)) * 10_000
HASH = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def site(online: None) -> Iterator[WebServer]:
    with run_web_server() as server:
        server.files["/weights.pth"] = CONTENT
        yield server


@pytest.mark.parametrize("expected_hash", ["", HASH, HASH[:15], f"md5:{hashlib.md5(CONTENT).hexdigest()}"])
def test_a_file_is_downloaded_once_and_leaves_no_other_file(
    site: WebServer, tmp_path: Path, expected_hash: str
) -> None:
    path = tmp_path / "cache" / "weights.pth"
    for _ in range(2):
        assert download(f"{site.url}/weights.pth", path, expected_hash) == path
    assert path.read_bytes() == CONTENT
    assert site.requests == [("/weights.pth", "")]
    assert [file.name for file in path.parent.iterdir() if not file.name.endswith(".lock")] == ["weights.pth"]


def test_a_lost_connection_is_resumed_at_once(site: WebServer, tmp_path: Path) -> None:
    site.truncate_after = [1_000_000, 500_001]
    download(f"{site.url}/weights.pth", tmp_path / "w.pth", HASH)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [byte_range for _, byte_range in site.requests] == ["", "bytes=1000000-", "bytes=1500001-"]


def test_received_bytes_are_kept_for_the_next_call(site: WebServer, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    site.truncate_after = [1_200_000, 0]
    with pytest.raises(ParfocalError, match=r"lost after 1,200,000 of 2,560,000 bytes.*to resume.*place it at"):
        download(f"{site.url}/weights.pth", path, HASH)
    assert not path.exists()
    download(f"{site.url}/weights.pth", path, HASH)
    assert path.read_bytes() == CONTENT
    assert site.requests[-1][1] == "bytes=1200000-"


def test_bytes_of_another_file_and_a_server_without_ranges_do_no_harm(site: WebServer, tmp_path: Path) -> None:
    cases = [(b"other" * 99, True), (CONTENT[:99], False), (CONTENT + b"?", True)]
    for number, (partial_content, supports_ranges) in enumerate(cases):
        site.supports_ranges = supports_ranges
        path = tmp_path / f"{number}.pth"
        path.with_name(f"{path.name}.part").write_bytes(partial_content)
        download(f"{site.url}/weights.pth", path, HASH)
        assert path.read_bytes() == CONTENT


def test_a_complete_partial_file_is_not_downloaded_again(site: WebServer, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    download(f"{site.url}/weights.pth", tmp_path / "w.pth", HASH)
    assert site.requests == [("/weights.pth", f"bytes={len(CONTENT)}-")]


def test_without_a_hash_a_download_starts_from_the_beginning(site: WebServer, tmp_path: Path) -> None:
    site.truncate_after = [1_000_000]
    with pytest.raises(ParfocalError, match="lost after"):
        download(f"{site.url}/weights.pth", tmp_path / "w.pth")
    download(f"{site.url}/weights.pth", tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [byte_range for _, byte_range in site.requests] == ["", ""]


def test_a_file_with_another_hash_is_rejected_and_not_kept(site: WebServer, tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"its hash is sha256:[0-9a-f]{64}, but sha256:0000 was expected"):
        download(f"{site.url}/weights.pth", tmp_path / "w.pth", "sha256:0000")
    assert not list(tmp_path.glob("w.pth*"))


def test_a_damaged_file_in_the_cache_is_reported_and_not_changed(site: WebServer, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ParfocalError, match=r"w\.pth is damaged or another file.*Delete it"):
        download(f"{site.url}/weights.pth", path, HASH)
    assert path.exists()
    assert not site.requests


@pytest.mark.parametrize("fault", ["absent", "no server"])
def test_a_failed_download_says_where_to_place_the_file(site: WebServer, tmp_path: Path, fault: str) -> None:
    url = f"{site.url}/absent.pth" if fault == "absent" else "http://127.0.0.1:9/absent.pth"
    path = tmp_path / "absent.pth"
    with pytest.raises(ParfocalError) as error:
        download(url, path, HASH)
    message = str(error.value)
    assert f"Cannot download absent.pth from {url}" in message
    assert f"place it at {path}" in message
    assert ("404" in message) == (fault == "absent")
    path.write_bytes(CONTENT)
    assert download(url, path, HASH) == path


@pytest.mark.usefixtures("online")
def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ParfocalError, match="Cannot write"):
        download("http://127.0.0.1:9/w.pth", tmp_path / "file" / "w.pth")


@pytest.mark.usefixtures("online")
def test_a_server_that_accepts_and_stays_silent_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module._TIMEOUT_SECONDS <= 5
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/w.pth"
        with pytest.raises(DownloadError, match=r"(timed out|no answer within 0\.1 seconds)\. Without") as error:
            download(url, tmp_path / "w.pth", HASH)
    assert error.value.is_unreachable


@pytest.mark.usefixtures("online")
def test_a_name_server_that_stays_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = Event()
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: released.wait())
    with pytest.raises(DownloadError, match=r"no answer within 0\.1 seconds"):
        download("http://weights.invalid/w.pth", tmp_path / "w.pth", HASH)
    released.set()


def test_bytes_before_a_stall_are_kept(site: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", 0.2)
    site.stall_after = [1_234, 10]
    download(f"{site.url}/weights.pth", tmp_path / "w.pth", HASH)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [byte_range for _, byte_range in site.requests] == ["", "bytes=1234-", "bytes=1244-"]


def test_offline_nobody_is_asked(site: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARFOCAL_OFFLINE", "1")
    path = tmp_path / "cache" / "w.pth"
    with pytest.raises(ParfocalError, match=r"PARFOCAL_OFFLINE is set\. Without internet access, .* place it at"):
        download(f"{site.url}/weights.pth", path, HASH)
    assert not site.requests
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert download(f"{site.url}/weights.pth", path, HASH) == path
    monkeypatch.setenv("PARFOCAL_OFFLINE", "0")
    download(f"{site.url}/weights.pth", tmp_path / "w.pth", HASH)


@pytest.mark.usefixtures("online")
def test_an_address_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"Cannot download w\.pth from mirror/w\.pth: unknown url type"):
        download("mirror/w.pth", tmp_path / "w.pth", HASH)
