"""The API: responses, rejected requests with their reasons, and security."""

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from parfocal.evaluation.predictor import PredictedBatch, Predictor, PreparedViews
from parfocal.serving.examples import EXAMPLE_TITLES
from parfocal.serving.limits import Limits
from parfocal.serving.server import serve_in_background
from tests.data.example_files import encode_with_pillow

TOKEN = "0123456789abcdef"


@pytest.fixture
def client(site: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site) as client:
        yield client


@pytest.fixture
def image(images: dict[str, bytes]) -> bytes:
    return images["./new_dataset/test/0.bmp"]


def _expect_error(response: httpx.Response, status: int) -> str:
    """Assert that a request was rejected as documented, and return the reason."""
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    assert isinstance(detail, str)
    return detail


def test_one_image_is_sent_as_the_body(client: httpx.Client, image: bytes) -> None:
    response = client.post("v1/predict", content=image)
    assert response.status_code == 200
    (result,) = response.json()["images"]
    first, second = result["predictions"]
    assert (first["network"], second["network"]) == ("resnet20", "plain20")
    assert first["label"] in ("normal", "blast")
    assert first["code"] == {"normal": "0", "blast": "1"}[first["label"]]
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert first["probability"] == first["probabilities"][first["label"]]
    assert first["positive"] == (first["label"] == "blast")
    assert isinstance(first["referred"], bool)
    assert (second["positive"], second["referred"]) == (None, None)


def test_a_probability_that_is_not_finite_is_an_error_that_says_so(
    client: httpx.Client, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Predictor.predict

    def predict(self: Predictor, images: list[PreparedViews]) -> PredictedBatch:
        batch = original(self, images)
        return replace(batch, probabilities=batch.probabilities * np.nan)

    monkeypatch.setattr(Predictor, "predict", predict)
    for address in ("v1/predict", "v1/explain"):
        reason = _expect_error(client.post(address, content=image), 500)
        assert reason == "resnet20 gives a probability that is not finite (NaN). Train it again."
    monkeypatch.undo()
    assert client.post("v1/predict", content=image).status_code == 200


def test_several_images_are_sent_as_a_form_and_names_are_returned_unchanged(client: httpx.Client, image: bytes) -> None:
    name = '<img src=x onerror=alert(1)>.png"; \n'
    files = [("image", (name, image)), ("image", ("b.png", b"nonsense")), ("other", ("c.png", image))]
    response = client.post("v1/predict", files=files, params={"network": "plain20"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    first, bad, last = response.json()["images"]
    assert first["name"].startswith("<img src=x onerror=alert(1)>.png")
    assert (bad["unreadable"], bad["predictions"]) == ("text, not an image", [])
    assert first["predictions"] == last["predictions"]
    assert [prediction["network"] for prediction in first["predictions"]] == ["plain20"]


def test_the_bytes_decide_the_image_format(client: httpx.Client, image: bytes) -> None:
    for kind in ("image/png", "text/html", "application/json", "application/x-www-form-urlencoded", "nonsense"):
        assert client.post("v1/predict", content=image, headers={"content-type": kind}).status_code == 200
    page = client.post("v1/predict", content=b"<html><script>", headers={"content-type": "image/png"})
    assert _expect_error(page, 422) == "The image cannot be read: a web page, not an image."


def test_a_request_without_a_readable_image_is_rejected_with_all_reasons(client: httpx.Client) -> None:
    assert _expect_error(client.post("v1/predict"), 422) == "The image cannot be read: the file is empty."
    reason = _expect_error(client.post("v1/predict", files=[("a", ("a.png", b"no")), ("b", ("b.png", b"GIF89a"))]), 422)
    assert "a.png: text, not an image; b.png: truncated." in reason
    assert _expect_error(client.post("v1/predict", data={"a": "b"}, files=[]), 422)
    assert "no file" in _expect_error(client.post("v1/predict", files=[("a", (None, b"text"))]), 422)


def test_a_form_with_another_charset_is_rejected(client: httpx.Client) -> None:
    part = b'--x\r\ncontent-disposition: form-data; name="image"; filename="\\ud800a"\r\n\r\nno image\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    for charset in ("unicode_escape", "utf-16"):
        headers = {"content-type": f"{kind}; charset={charset}"}
        assert "in UTF-8" in _expect_error(client.post("v1/predict", content=part, headers=headers), 400)
    headers = {"content-type": f"{kind}; charset=UTF-8"}
    assert "cannot be read" in _expect_error(client.post("v1/predict", content=part, headers=headers), 422)


def test_a_damaged_form_is_rejected(client: httpx.Client) -> None:
    for kind, body in (
        ("multipart/form-data", b"abc"),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense"),
        ("multipart/form-data; boundary=x", b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--"),
        (f"multipart/form-data; boundary={'x' * 5000}", b"abc"),
    ):
        response = client.post("v1/predict", content=body, headers={"content-type": kind})
        assert response.status_code in (400, 422), response.text
        assert response.json()["detail"]


def test_wrong_parameters_are_named(client: httpx.Client, image: bytes) -> None:
    reason = _expect_error(client.post("v1/predict", content=image, params={"network": "resnet2"}), 404)
    assert reason == "There is no network 'resnet2'. Did you mean 'resnet20'?"
    reason = _expect_error(client.post("v1/explain", content=image, params={"class": "blasts"}), 422)
    assert reason == "resnet20 has no class 'blasts'. Did you mean 'blast'?"
    assert _expect_error(client.post("v1/explain", content=image, params={"as": "pdf"}), 422).startswith("as: ")


def test_requests_above_the_limits_are_rejected(runs: list[Path], image: bytes) -> None:
    limits = Limits(max_upload_bytes=20_000, max_request_bytes=50_000, max_images=2, max_pixels=10_000)
    with serve_in_background(runs[:1], limits=limits) as address, httpx.Client(base_url=address) as client:
        assert "an image may have at most 20000 bytes" in _expect_error(
            client.post("v1/predict", content=bytes(30_000)), 413
        )
        assert "A request may have at most 50000 bytes" in _expect_error(
            client.post("v1/predict", content=bytes(60_000)), 413
        )
        endless = client.post("v1/predict", content=(bytes(1000) for _ in range(100)))
        assert "A request may have at most 50000 bytes" in _expect_error(endless, 413)
        files = [("image", (f"{number}.bmp", image)) for number in range(3)]
        assert "Too many files" in _expect_error(client.post("v1/predict", files=files), 413)
        bomb = encode_with_pillow(Image.new("L", (2000, 1000)), "PNG")
        assert len(bomb) < limits.max_upload_bytes
        assert "2000 × 1000 pixels, more than 0.01 million" in _expect_error(
            client.post("v1/predict", content=bomb), 422
        )
        assert "more than 0.01 million" in _expect_error(client.post("v1/explain", content=bomb), 422)
        assert client.post("v1/predict", content=image).status_code == 200


def test_the_uploads_of_all_clients_together_are_limited(runs: list[Path], image: bytes) -> None:
    with serve_in_background(runs[:1], limits=Limits(max_buffered_bytes=5000)) as address:
        response = httpx.post(f"{address}v1/predict", content=image)
        assert _expect_error(response, 503) == "Too many uploads at once. Try again in a moment."
        assert response.headers["retry-after"] == "1"
        assert "parfocal_buffered_bytes 0.0\n" in httpx.get(f"{address}metrics").text


def test_uploads_are_neither_written_to_disk_nor_logged(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def raise_error(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file")

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, raise_error)
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)
    large = encode_with_pillow(Image.fromarray(noise), "PNG")
    assert len(large) > 4 << 20
    assert client.post("v1/predict", files={"image": ("secret name.png", large)}).status_code == 200
    client.post("v1/predict", files={"image": ("secret name.png", b"secret")})
    assert "secret" not in "".join(capfd.readouterr())


def test_a_heat_map_is_returned_as_an_image_or_as_values(client: httpx.Client, image: bytes) -> None:
    response = client.post("v1/explain", content=image)
    assert response.headers["content-type"] == "image/png"
    overlay = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)
    assert overlay is not None
    assert overlay.shape[0] == overlay.shape[1] >= 32
    values = client.post("v1/explain", content=image, params={"as": "values", "network": "plain20"}).json()
    assert values["network"] == "plain20"
    assert set(values["values"]) == set(values["heatmaps"]) == {"normal", "blast"}
    np.testing.assert_allclose(np.add(*values["values"].values()), 0, atol=1e-4)
    assert values["scale"] == pytest.approx(np.abs(list(values["values"].values())).max())
    assert values["heatmaps"]["blast"].startswith("data:image/png;base64,")
    other = client.post("v1/explain", files={"image": image}, params={"class": "normal"})
    blast = client.post("v1/explain", files={"image": image}, params={"class": "blast"})
    assert other.content != blast.content
    assert "Send one image at a time" in _expect_error(
        client.post("v1/explain", files=[("a", image), ("b", image)]), 422
    )
    assert "text, not an image" in _expect_error(client.post("v1/explain", content=b"nonsense"), 422)


def test_the_networks_are_described_with_their_decisions(client: httpx.Client) -> None:
    first, second = client.get("v1/models").json()
    assert (first["name"], first["classes"], first["codes"]) == ("resnet20", ["normal", "blast"], ["0", "1"])
    assert first["operating_point"]["goal"] == "sensitivity=0.9"
    assert first["operating_point"]["positive"] == "blast"
    assert (first["coverage"], first["n_calibration_images"], first["detects_unusual"]) == (0.8, 24, True)
    assert (second["operating_point"], second["coverage"]) == (None, None)
    assert 0 <= first["metrics"]["valid"]["accuracy"] <= 1


def test_health_and_metrics_are_reported(client: httpx.Client, image: bytes) -> None:
    assert client.get("healthz").json() == {"status": "ok", "networks": ["resnet20", "plain20"], "waiting": 0}
    for address in ("nowhere", "v1/%22made%0Aup"):
        assert client.get(address).status_code == 404
    client.post("v1/predict", content=image)
    text = client.get("metrics").text
    for line in text.splitlines():
        pattern = r'# (HELP|TYPE) \w+ .+|(parfocal|process)_\w+(\{(\w+="[^"\n]*",?)+\})? [-+.\deE]+'
        assert re.fullmatch(pattern, line), line
    assert 'parfocal_requests_total{path="other",status="404"}' in text
    assert "made" not in text
    predictions = re.findall(r'parfocal_predictions_total\{network="resnet20"\} ([\d.]+)', text)
    assert float(predictions[0]) >= 2


def test_reports_may_not_run_scripts(client: httpx.Client) -> None:
    response = client.get("runs/resnet20")
    assert "<title>" in response.text
    policy = response.headers["content-security-policy"]
    assert policy.endswith("; sandbox")
    assert "frame-ancestors 'none'" in policy
    assert _expect_error(client.get("runs/plain20"), 404).startswith("plain20 has no report yet.")
    assert _expect_error(client.get("runs/..%2f..%2fetc"), 404)


def test_pages_load_nothing_from_other_sites_and_have_no_inline_scripts(client: httpx.Client) -> None:
    for address in ("", "docs"):
        page = client.get(address)
        assert not re.findall(r"https?://|//\w|<script(?! type=\"module\" src=\"static/)|\son\w+=|style=", page.text)
    for name in ("page.js", "view.js", "heat.js", "server.js", "table.js", "docs.js", "page.css"):
        content = client.get(f"static/{name}")
        assert content.status_code == 200
        assert not re.findall(r"https?://|innerHTML|eval\(|@import|url\(", content.text)
    assert json.loads(client.get("openapi.json").text)["info"]["title"] == "Parfocal"


def test_the_examples_are_readable_and_all_different(client: httpx.Client) -> None:
    examples = client.get("examples").json()
    assert [example["name"] for example in examples] == list(EXAMPLE_TITLES)
    files = [client.get(example["file"].lstrip("/")).content for example in examples]
    assert len(set(files)) == len(EXAMPLE_TITLES)
    assert all(client.post("v1/predict", content=file).status_code == 200 for file in files)
    assert _expect_error(client.get("examples/eye-9"), 404)


@pytest.mark.parametrize("address", ["", "healthz", "v1/models", "static/page.js", "nowhere", "docs", "openapi.json"])
def test_every_response_has_security_headers(client: httpx.Client, address: str) -> None:
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_other_host_names_and_other_sites_are_rejected(client: httpx.Client, image: bytes) -> None:
    reason = _expect_error(client.get("v1/models", headers={"host": "evil.example"}), 403)
    assert reason == "This server accepts requests to localhost only. Start it with a token to use another name."
    assert client.get("v1/models", headers={"host": "localhost:8000"}).status_code == 200
    foreign = client.post("v1/predict", content=image, headers={"sec-fetch-site": "cross-site"})
    assert _expect_error(foreign, 403) == "Requests from pages of other sites are not allowed."


def test_the_origin_decides_where_a_browser_does_not_send_sec_fetch_site(client: httpx.Client, image: bytes) -> None:
    own = str(client.base_url).rstrip("/")
    for origin in ("http://evil.example", "http://127.0.0.1:1", "http://localhost", "null", "", f"{own}.evil.example"):
        for path in ("v1/predict", "v1/explain", "v1/session"):
            foreign = client.post(path, content=image, headers={"origin": origin})
            assert _expect_error(foreign, 403) == "Requests from pages of other sites are not allowed.", origin
    assert client.post("v1/predict", content=image, headers={"origin": own.upper()}).status_code == 200
    for site, status in (("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)):
        response = client.post("v1/predict", content=image, headers={"sec-fetch-site": site, "origin": own})
        assert response.status_code == status, site


def test_health_names_no_networks_without_the_token(runs: list[Path]) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address:
        for headers in ({}, {"authorization": f"Bearer {TOKEN}x"}):
            response = httpx.get(f"{address}healthz", headers=headers)
            assert (response.status_code, response.json()) == (200, {"status": "ok"})
        health = httpx.get(f"{address}healthz", headers={"authorization": f"Bearer {TOKEN}"}).json()
        assert health == {"status": "ok", "networks": ["resnet20"], "waiting": 0}


def test_with_a_token_all_requests_need_it(runs: list[Path], image: bytes) -> None:
    with serve_in_background(runs[:1], token=TOKEN) as address, httpx.Client(base_url=address) as client:
        for method, path in (
            ("GET", "v1/models"), ("POST", "v1/predict"), ("POST", "v1/explain"), ("GET", "metrics"),
            ("GET", "runs/resnet20"), ("GET", "openapi.json"), ("GET", "examples"), ("GET", "nowhere"),
        ):  # fmt: skip
            response = client.request(method, path, content=image if method == "POST" else None)
            assert "token is missing or wrong" in _expect_error(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
        for wrong in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", "Bearer \xe9", ""):
            assert client.get("v1/models", headers={b"authorization": wrong.encode("latin-1")}).status_code == 401
        assert client.get("v1/models", headers={"cookie": "parfocal=; \x01=", "host": "any"}).status_code == 401
        for public in ("", "docs", "healthz", "static/page.js"):
            assert client.get(public).status_code == 200
        headers = {"authorization": f"Bearer {TOKEN}", "host": "elsewhere.example"}
        assert client.post("v1/predict", content=image, headers=headers).status_code == 200
        assert _expect_error(client.post("v1/session"), 401)
        session = client.post("v1/session", headers=headers)
        assert session.status_code == 204
        assert "HttpOnly" in session.headers["set-cookie"]
        assert "SameSite=strict" in session.headers["set-cookie"]
        assert client.get("v1/models").status_code == 200
