"""Files come whole and with the right hash or not at all, and cut connections are gone on with."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from parfocal.download import download
from parfocal.errors import ParfocalError
from tests.web import WebServer, run_web_server

CONTENT = bytes(range(256)) * 10_000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setenv("no_proxy", "*")
    with run_web_server() as served:
        served.files["/weights.pth"] = CONTENT
        yield served


@pytest.mark.parametrize("digest", ["", DIGEST, DIGEST[:15], f"md5:{hashlib.md5(CONTENT).hexdigest()}"])
def test_a_file_comes_once_and_alone(site: WebServer, tmp_path: Path, digest: str) -> None:
    file = tmp_path / "cache" / "weights.pth"
    for _ in range(2):
        assert download(f"{site.url}/weights.pth", file, digest) == file
    assert file.read_bytes() == CONTENT
    assert site.requests == [("/weights.pth", "")]
    assert [path.name for path in file.parent.iterdir() if not path.name.endswith(".lock")] == ["weights.pth"]


def test_a_cut_connection_is_gone_on_with_at_once(site: WebServer, tmp_path: Path) -> None:
    site.truncate_after = [1_000_000, 500_001]
    download(f"{site.url}/weights.pth", tmp_path / "w.pth", DIGEST)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == ["", "bytes=1000000-", "bytes=1500001-"]


def test_what_came_before_is_kept_for_the_next_time(site: WebServer, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    site.truncate_after = [1_200_000, 0]
    with pytest.raises(ParfocalError, match=r"cut after 1,200,000 of 2,560,000 bytes.*goes on from there.*place it at"):
        download(f"{site.url}/weights.pth", file, DIGEST)
    assert not file.exists()
    download(f"{site.url}/weights.pth", file, DIGEST)
    assert file.read_bytes() == CONTENT
    assert site.requests[-1][1] == "bytes=1200000-"


def test_a_part_of_another_file_or_a_server_without_ranges_does_no_harm(site: WebServer, tmp_path: Path) -> None:
    for number, (left, ranges) in enumerate([(b"other" * 99, True), (CONTENT[:99], False), (CONTENT + b"?", True)]):
        site.supports_ranges = ranges
        file = tmp_path / f"{number}.pth"
        file.with_name(f"{file.name}.part").write_bytes(left)
        download(f"{site.url}/weights.pth", file, DIGEST)
        assert file.read_bytes() == CONTENT


def test_a_whole_part_is_taken_without_fetching_it_again(site: WebServer, tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    download(f"{site.url}/weights.pth", tmp_path / "w.pth", DIGEST)
    assert site.requests == [("/weights.pth", f"bytes={len(CONTENT)}-")]


def test_without_a_hash_nothing_is_pieced_together(site: WebServer, tmp_path: Path) -> None:
    site.truncate_after = [1_000_000]
    with pytest.raises(ParfocalError, match="cut after"):
        download(f"{site.url}/weights.pth", tmp_path / "w.pth")
    download(f"{site.url}/weights.pth", tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [wanted for _, wanted in site.requests] == ["", ""]


def test_a_wrong_hash_is_refused_and_nothing_kept(site: WebServer, tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match=r"its hash is sha256:[0-9a-f]{64}, expected was sha256:0000"):
        download(f"{site.url}/weights.pth", tmp_path / "w.pth", "sha256:0000")
    assert not list(tmp_path.glob("w.pth*"))


def test_a_damaged_file_in_the_cache_is_told_and_left_alone(site: WebServer, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(ParfocalError, match=r"w\.pth is damaged or another file.*Delete it"):
        download(f"{site.url}/weights.pth", file, DIGEST)
    assert file.exists()
    assert not site.requests


@pytest.mark.parametrize("fault", ["absent", "no server"])
def test_what_cannot_be_fetched_can_be_placed_by_hand(site: WebServer, tmp_path: Path, fault: str) -> None:
    url = f"{site.url}/absent.pth" if fault == "absent" else "http://127.0.0.1:9/absent.pth"
    file = tmp_path / "absent.pth"
    with pytest.raises(ParfocalError) as error:
        download(url, file, DIGEST)
    text = str(error.value)
    assert f"Cannot fetch absent.pth from {url}" in text
    assert f"place it at {file}" in text
    assert ("404" in text) == (fault == "absent")
    file.write_bytes(CONTENT)
    assert download(url, file, DIGEST) == file


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ParfocalError, match="Cannot write"):
        download("http://127.0.0.1:9/w.pth", tmp_path / "file" / "w.pth")
