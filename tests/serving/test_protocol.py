"""Slow clients, many clients, and clients that disconnect: each gets a reason, and no accepted image is lost."""

import json
import re
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import httpx
import pytest

from parfocal.engine.device import trim_memory
from parfocal.evaluation.predictor import PredictedBatch, Predictor, PreparedViews
from parfocal.serving.limits import Limits
from parfocal.serving.server import serve_in_background


def _connect(address: str) -> socket.socket:
    url = urlsplit(address)
    assert url.hostname
    return socket.create_connection((url.hostname, url.port or 80), timeout=30)


def _read_response(connection: socket.socket) -> tuple[int, str]:
    """Read until the server closes the connection; return the status and the reason, or 0 without a response."""
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)["detail"]) if head else (0, "")


def test_an_incomplete_request_head_times_out(runs: list[Path]) -> None:
    with serve_in_background(runs[:1], limits=Limits(timeout_seconds=0.2)) as address:
        for start in (b"", b"POST /v1/predict HTTP/1.1\r\nhost: 127.0"):
            with _connect(address) as connection:
                connection.sendall(start)
                assert _read_response(connection) == (408, "The request was too slow.")
        with _connect(address) as connection:
            request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.sendall(request[:-5])
            assert _read_response(connection) == (408, "The request was too slow.")


def test_an_incomplete_request_body_times_out(runs: list[Path]) -> None:
    with serve_in_background(runs[:1], limits=Limits(timeout_seconds=0.2)) as address:
        for content_type in (b"image/png", b"multipart/form-data; boundary=x"):
            with _connect(address) as connection:
                head = (
                    b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: %b\r\ncontent-length: 999\r\n\r\n"
                )
                connection.sendall(head % content_type + b"--x\r\n")
                assert _read_response(connection) == (
                    408,
                    "The upload was too slow. Try again on a faster connection.",
                )
        assert "parfocal_buffered_bytes 0.0\n" in httpx.get(f"{address}metrics").text


def test_a_client_that_disconnects_leaves_nothing_in_memory(runs: list[Path]) -> None:
    with serve_in_background(runs[:1]) as address:
        for _ in range(20):
            with _connect(address) as connection:
                connection.sendall(
                    b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999\r\n\r\n" + bytes(5000)
                )
        with httpx.Client(base_url=address) as client:
            disconnected = 0.0
            while disconnected < 20:
                text = client.get("metrics").text
                counts = re.findall(r'parfocal_requests_total\{path="/v1/predict",status="400"\} ([\d.]+)', text)
                disconnected = float(counts[0]) if counts else 0.0
            assert "parfocal_buffered_bytes 0.0\n" in client.get("metrics").text


def test_a_response_that_the_client_does_not_read_times_out(runs: list[Path]) -> None:
    report = runs[0] / "report.html"
    content = report.read_bytes()
    report.write_bytes(content + b" " * (32 << 20))
    try:
        with (
            serve_in_background(runs[:1], limits=Limits(timeout_seconds=0.2)) as address,
            _connect(address) as connection,
        ):
            connection.sendall(b"GET /runs/resnet20 HTTP/1.1\r\nhost: localhost\r\n\r\n")
            with httpx.Client(base_url=address) as client:
                text = ""
                while "/runs/{name}" not in text:
                    text = client.get("metrics").text
    finally:
        report.write_bytes(content)


def test_too_many_connections_are_rejected_and_then_closed(runs: list[Path]) -> None:
    request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    with serve_in_background(runs[:1], limits=Limits(max_connections=2)) as address:
        first, second, third, fourth, fifth = (_connect(address) for _ in range(5))
        with first, second, third, fourth, fifth:
            assert fifth.recv(1) == b""
            third.sendall(request)
            assert _read_response(third) == (503, "Too many connections at once. Try again in a moment.")
            first.sendall(request)
            assert b" 200 " in first.recv(4096)


def test_an_invalid_http_request_is_rejected(site: str) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 99_999,
    ):
        with _connect(site) as connection:
            connection.sendall(nonsense)
            response = connection.recv(65536)
            assert response.startswith(b"HTTP/1.1 400")
            assert b"frame-ancestors 'none'" in response


def test_a_flood_of_requests_is_answered_or_rejected_and_memory_is_returned(
    runs: list[Path], images: dict[str, bytes]
) -> None:
    files = list(images.values())
    # A connection for each request: threads that share connections would close those of others.
    new_client = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
    with (
        serve_in_background(runs, limits=Limits(max_waiting_images=6, max_requests=16)) as address,
        new_client as client,
    ):

        def send_request(number: int) -> tuple[int, str]:
            response = client.post(f"{address}v1/predict", content=files[number % len(files)] + bytes(200_000))
            body = response.json()
            if "images" in body:
                return response.status_code, body["images"][0]["predictions"][0]["label"]
            return response.status_code, body["detail"]

        def read_resident_bytes() -> float:
            text = client.get(f"{address}metrics").text
            return float(re.findall(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)[0])

        def flood() -> Counter[tuple[int, str]]:
            with ThreadPoolExecutor(32) as pool:
                return Counter(pool.map(send_request, range(400)))

        flood()
        trim_memory()
        before = read_resident_bytes()
        responses = flood()
        trim_memory()
        assert {status for status, _ in responses} == {200, 503}
        assert {label for status, label in responses if status == 200} <= {"normal", "blast"}
        reasons = {reason for status, reason in responses if status == 503}
        assert all("Try again in a moment" in reason for reason in reasons)
        assert read_resident_bytes() < before + (32 << 20)
        assert client.get(f"{address}healthz").json()["waiting"] == 0
        assert client.post(f"{address}v1/predict", content=files[0]).status_code == 200


def test_a_stop_under_load_answers_all_accepted_requests(
    runs: list[Path], images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = images["./new_dataset/test/0.bmp"]
    resume, started = Event(), Event()
    original = Predictor.predict

    def predict(self: Predictor, images: list[PreparedViews]) -> PredictedBatch:
        started.set()
        resume.wait()
        return original(self, images)

    with ThreadPoolExecutor(9) as pool:
        with serve_in_background(runs[:1]) as address:
            httpx.get(f"{address}healthz")
            monkeypatch.setattr(Predictor, "predict", predict)
            futures = [pool.submit(httpx.post, f"{address}v1/predict", content=image, timeout=60) for _ in range(8)]
            started.wait()
            with httpx.Client(base_url=address) as client:
                while client.get("healthz").json()["waiting"] < 8:
                    pass
            # The server stops while all eight wait. The network continues only after that.
            pool.submit(lambda: (_wait_until_closed(address), resume.set()))
        responses = [future.result() for future in futures]
    assert [response.status_code for response in responses] == [200] * 8
    assert all(response.json()["images"][0]["predictions"] for response in responses)


def _wait_until_closed(address: str) -> None:
    """Return when the server accepts no new connections."""
    while True:
        try:
            httpx.get(f"{address}healthz", timeout=10)
        except httpx.HTTPError:
            return
