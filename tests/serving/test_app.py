"""The API from outside: what is answered, what is refused with which reason, and what no answer may do."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from parfocal.serving.examples import EXAMPLE_NAMES
from parfocal.serving.limits import Limits
from parfocal.serving.server import serve_in_background
from tests.data.example_files import encode_with_pillow

TOKEN = "0123456789abcdef"


@pytest.fixture
def client(site: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site) as made:
        yield made


@pytest.fixture
def one(images: dict[str, bytes]) -> bytes:
    return images["./new_dataset/test/0.bmp"]


def _expect_error(response: httpx.Response, status: int) -> str:
    """Assert that a request was refused in the shape that is promised, and return the reason."""
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    return detail


def test_one_image_is_the_body(client: httpx.Client, one: bytes) -> None:
    answer = client.post("v1/grade", content=one)
    assert answer.status_code == 200
    (image,) = answer.json()["images"]
    first, second = image["answers"]
    assert (first["network"], second["network"]) == ("resnet20", "plain20")
    assert first["label"] in ("normal", "blast")
    assert first["code"] == {"normal": "0", "blast": "1"}[first["label"]]
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert first["probability"] == first["probabilities"][first["label"]]
    assert first["positive"] == (first["label"] == "blast")
    assert isinstance(first["referred"], bool)
    assert (second["positive"], second["referred"]) == (None, None)


def test_several_are_files_of_a_form_and_names_come_back_as_they_were(client: httpx.Client, one: bytes) -> None:
    name = '<img src=x onerror=alert(1)>.png"; \n'
    sent = [("image", (name, one)), ("image", ("b.png", b"nonsense")), ("other", ("c.png", one))]
    answer = client.post("v1/grade", files=sent, params={"network": "plain20"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    first, bad, last = answer.json()["images"]
    assert first["name"].startswith("<img src=x onerror=alert(1)>.png")
    assert (bad["unreadable"], bad["answers"]) == ("text, not an image", [])
    assert first["answers"] == last["answers"]
    assert [said["network"] for said in first["answers"]] == ["plain20"]


def test_bytes_decide_what_an_image_is(client: httpx.Client, one: bytes) -> None:
    for kind in ("image/png", "text/html", "application/json", "application/x-www-form-urlencoded", "nonsense"):
        assert client.post("v1/grade", content=one, headers={"content-type": kind}).status_code == 200
    page = client.post("v1/grade", content=b"<html><script>", headers={"content-type": "image/png"})
    assert _expect_error(page, 422) == "The image cannot be read: a web page, not an image."


def test_nothing_readable_is_refused_with_every_reason(client: httpx.Client) -> None:
    assert _expect_error(client.post("v1/grade"), 422) == "The image cannot be read: the file is empty."
    said = _expect_error(client.post("v1/grade", files=[("a", ("a.png", b"no")), ("b", ("b.png", b"GIF89a"))]), 422)
    assert "a.png: text, not an image; b.png: truncated." in said
    assert _expect_error(client.post("v1/grade", data={"a": "b"}, files=[]), 422)
    assert "no file" in _expect_error(client.post("v1/grade", files=[("a", (None, b"text"))]), 422)


def test_a_name_in_a_code_of_its_own_is_no_fault_of_the_server(client: httpx.Client) -> None:
    part = b'--x\r\ncontent-disposition: form-data; name="image"; filename="\\ud800a"\r\n\r\nno image\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    for charset in ("unicode_escape", "utf-16"):
        headers = {"content-type": f"{kind}; charset={charset}"}
        assert "in UTF-8" in _expect_error(client.post("v1/grade", content=part, headers=headers), 400)
    headers = {"content-type": f"{kind}; charset=UTF-8"}
    assert "cannot be read" in _expect_error(client.post("v1/grade", content=part, headers=headers), 422)


def test_a_damaged_form_is_refused(client: httpx.Client) -> None:
    for kind, body in (
        ("multipart/form-data", b"abc"),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense"),
        ("multipart/form-data; boundary=x", b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--"),
        (f"multipart/form-data; boundary={'x' * 5000}", b"abc"),
    ):
        answer = client.post("v1/grade", content=body, headers={"content-type": kind})
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["detail"]


def test_parameters_that_are_wrong_are_named(client: httpx.Client, one: bytes) -> None:
    said = _expect_error(client.post("v1/grade", content=one, params={"network": "resnet2"}), 404)
    assert said == "There is no network 'resnet2'. Did you mean 'resnet20'?"
    said = _expect_error(client.post("v1/explain", content=one, params={"class": "blasts"}), 422)
    assert said == "resnet20 has no class 'blasts'. Did you mean 'blast'?"
    assert _expect_error(client.post("v1/explain", content=one, params={"as": "pdf"}), 422).startswith("as: ")


def test_what_is_too_large_or_too_many_is_refused(runs: list[Path], one: bytes) -> None:
    limits = Limits(max_upload_bytes=20_000, max_request_bytes=50_000, max_images=2, max_pixels=10_000)
    with serve_in_background(runs[:1], limits=limits) as address, httpx.Client(base_url=address) as client:
        assert "an image may have 20000 bytes" in _expect_error(client.post("v1/grade", content=bytes(30_000)), 413)
        assert "A request may have 50000 bytes" in _expect_error(client.post("v1/grade", content=bytes(60_000)), 413)
        endless = client.post("v1/grade", content=(bytes(1000) for _ in range(100)))
        assert "A request may have 50000 bytes" in _expect_error(endless, 413)
        files = [("image", (f"{number}.bmp", one)) for number in range(3)]
        assert "Too many files" in _expect_error(client.post("v1/grade", files=files), 413)
        bomb = encode_with_pillow(Image.new("L", (2000, 1000)), "PNG")
        assert len(bomb) < limits.max_upload_bytes
        assert "2000 × 1000 pixels, more than 0.01 million" in _expect_error(client.post("v1/grade", content=bomb), 422)
        assert "more than 0.01 million" in _expect_error(client.post("v1/explain", content=bomb), 422)
        assert client.post("v1/grade", content=one).status_code == 200


def test_uploads_of_all_together_are_bounded(runs: list[Path], one: bytes) -> None:
    with serve_in_background(runs[:1], limits=Limits(max_buffered_bytes=5000)) as address:
        answer = httpx.post(f"{address}v1/grade", content=one)
        assert _expect_error(answer, 503) == "Too many uploads at once; try again in a moment."
        assert answer.headers["retry-after"] == "1"
        assert "parfocal_held_bytes 0\n" in httpx.get(f"{address}metrics").text


def test_no_upload_touches_the_disk_or_the_log(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file")

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)
    large = encode_with_pillow(Image.fromarray(noise), "PNG")
    assert len(large) > 4 << 20
    assert client.post("v1/grade", files={"image": ("secret name.png", large)}).status_code == 200
    client.post("v1/grade", files={"image": ("secret name.png", b"secret")})
    assert "secret" not in "".join(capfd.readouterr())


def test_a_heat_map_is_a_picture_or_its_values(client: httpx.Client, one: bytes) -> None:
    answer = client.post("v1/explain", content=one)
    assert answer.headers["content-type"] == "image/png"
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[0] == picture.shape[1] >= 32
    values = client.post("v1/explain", content=one, params={"as": "values", "network": "plain20"}).json()
    assert values["network"] == "plain20"
    assert set(values["values"]) == set(values["heat"]) == {"normal", "blast"}
    np.testing.assert_allclose(np.add(*values["values"].values()), 0, atol=1e-4)
    assert values["scale"] == pytest.approx(np.abs(list(values["values"].values())).max())
    assert values["heat"]["blast"].startswith("data:image/png;base64,")
    other = client.post("v1/explain", files={"image": one}, params={"class": "normal"})
    blast = client.post("v1/explain", files={"image": one}, params={"class": "blast"})
    assert other.content != blast.content
    assert "One image at a time" in _expect_error(client.post("v1/explain", files=[("a", one), ("b", one)]), 422)
    assert "text, not an image" in _expect_error(client.post("v1/explain", content=b"nonsense"), 422)


def test_networks_tell_what_was_decided(client: httpx.Client) -> None:
    first, second = client.get("v1/models").json()
    assert (first["name"], first["classes"], first["codes"]) == ("resnet20", ["normal", "blast"], ["0", "1"])
    assert first["operating"]["wish"] == "sensitivity=0.9"
    assert first["operating"]["positive"] == "blast"
    assert (first["coverage"], first["validated"], first["ordinary"]) == (0.8, 24, True)
    assert (second["operating"], second["coverage"]) == (None, None)
    assert 0 <= first["figures"]["valid"]["accuracy"] <= 1


def test_health_and_metrics(client: httpx.Client, one: bytes) -> None:
    assert client.get("healthz").json() == {"status": "ok", "networks": ["resnet20", "plain20"], "waiting": 0}
    for address in ("nowhere", "v1/%22made%0Aup"):
        assert client.get(address).status_code == 404
    client.post("v1/grade", content=one)
    text = client.get("metrics").text
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) parfocal_\w+ .+|parfocal_\w+(\{(\w+="[^"\n]*",?)+\})? [-+.\deE]+', line), (
            line
        )
    assert 'parfocal_requests_total{path="other",status="404"}' in text
    assert "made" not in text
    counted = re.findall(r'parfocal_answered_total\{network="resnet20"\} (\d+)', text)
    assert int(counted[0]) >= 2


def test_reports_run_nothing(client: httpx.Client) -> None:
    answer = client.get("runs/resnet20")
    assert "<title>" in answer.text
    assert answer.headers["content-security-policy"].endswith("; sandbox")
    assert _expect_error(client.get("runs/plain20"), 404).startswith("plain20 has no report yet.")
    assert _expect_error(client.get("runs/..%2f..%2fetc"), 404)


def test_pages_ask_nothing_of_others_and_carry_no_script(client: httpx.Client) -> None:
    for address in ("", "docs"):
        page = client.get(address)
        assert not re.findall(r"https?://|//\w|<script(?! type=\"module\" src=\"static/)|\son\w+=|style=", page.text)
    for name in ("page.js", "view.js", "heat.js", "server.js", "table.js", "docs.js", "page.css"):
        content = client.get(f"static/{name}")
        assert content.status_code == 200
        assert not re.findall(r"https?://|innerHTML|eval\(|@import|url\(", content.text)
    assert json.loads(client.get("openapi.json").text)["info"]["title"] == "Parfocal"


def test_examples_are_drawn_and_the_same_each_time(client: httpx.Client) -> None:
    listed = client.get("examples").json()
    assert [one["name"] for one in listed] == list(EXAMPLE_NAMES)
    first = [client.get(one["file"].lstrip("/")).content for one in listed]
    assert len(set(first)) == len(EXAMPLE_NAMES)
    assert all(client.post("v1/grade", content=picture).status_code == 200 for picture in first)
    assert _expect_error(client.get("examples/eye-9"), 404)


@pytest.mark.parametrize("address", ["", "healthz", "v1/models", "static/page.js", "nowhere", "docs", "openapi.json"])
def test_every_answer_is_safe(client: httpx.Client, address: str) -> None:
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_other_names_and_other_sites_are_refused(client: httpx.Client, one: bytes) -> None:
    said = _expect_error(client.get("v1/models", headers={"host": "evil.example"}), 403)
    assert said == "This server answers to localhost only. Start it with a token to use another name."
    assert client.get("v1/models", headers={"host": "localhost:8000"}).status_code == 200
    foreign = client.post("v1/grade", content=one, headers={"sec-fetch-site": "cross-site"})
    assert _expect_error(foreign, 403) == "Another site's page may not ask."


def test_with_a_token_nothing_is_told_without_it(runs: list[Path], one: bytes) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address, httpx.Client(base_url=address) as client:
        for method, place in (
            ("GET", "v1/models"), ("POST", "v1/grade"), ("POST", "v1/explain"), ("GET", "metrics"),
            ("GET", "runs/resnet20"), ("GET", "openapi.json"), ("GET", "examples"), ("GET", "nowhere"),
        ):  # fmt: skip
            answer = client.request(method, place, content=one if method == "POST" else None)
            assert "token is missing or wrong" in _expect_error(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        for wrong in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", "Bearer \xe9", ""):
            assert client.get("v1/models", headers={b"authorization": wrong.encode("latin-1")}).status_code == 401
        assert client.get("v1/models", headers={"cookie": "parfocal=; \x01=", "host": "any"}).status_code == 401
        for free in ("", "docs", "healthz", "static/page.js"):
            assert client.get(free).status_code == 200
        right = {"authorization": f"Bearer {TOKEN}", "host": "elsewhere.example"}
        assert client.post("v1/grade", content=one, headers=right).status_code == 200
        assert _expect_error(client.post("v1/session"), 401)
        session = client.post("v1/session", headers=right)
        assert session.status_code == 204
        assert "HttpOnly" in session.headers["set-cookie"]
        assert "SameSite=strict" in session.headers["set-cookie"]
        assert client.get("v1/models").status_code == 200
