"""Clients that are slow, many, or cut off: each has an end and a reason, and no accepted image is lost."""

import json
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
from parfocal.serving.telemetry import read_resident_bytes


def _connect(address: str) -> socket.socket:
    place = urlsplit(address)
    assert place.hostname
    return socket.create_connection((place.hostname, place.port or 80), timeout=30)


def _read_response(connection: socket.socket) -> tuple[int, str]:
    """Read until the server closes, and return the status and the reason; 0 if there was no answer."""
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)["detail"]) if head else (0, "")


def test_a_head_that_does_not_come_ends_the_connection(runs: list[Path]) -> None:
    with serve_in_background(runs[:1], limits=Limits(timeout_seconds=0.2)) as address:
        for begun in (b"", b"POST /v1/grade HTTP/1.1\r\nhost: 127.0"):
            with _connect(address) as connection:
                connection.sendall(begun)
                assert _read_response(connection) == (408, "The request came too slowly.")
        with _connect(address) as connection:
            whole = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
            connection.sendall(whole)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.sendall(whole[:-5])
            assert _read_response(connection) == (408, "The request came too slowly.")


def test_a_body_that_does_not_come_ends_the_connection(runs: list[Path]) -> None:
    with serve_in_background(runs[:1], limits=Limits(timeout_seconds=0.2)) as address:
        for kind in (b"image/png", b"multipart/form-data; boundary=x"):
            with _connect(address) as connection:
                head = b"POST /v1/grade HTTP/1.1\r\nhost: localhost\r\ncontent-type: %b\r\ncontent-length: 999\r\n\r\n"
                connection.sendall(head % kind + b"--x\r\n")
                assert _read_response(connection) == (
                    408,
                    "The upload came too slowly; try again on a faster connection.",
                )
        assert "parfocal_held_bytes 0\n" in httpx.get(f"{address}metrics").text


def test_a_client_that_goes_away_leaves_nothing_behind(runs: list[Path]) -> None:
    with serve_in_background(runs[:1]) as address:
        for _ in range(20):
            with _connect(address) as connection:
                connection.sendall(
                    b"POST /v1/grade HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999\r\n\r\n" + bytes(5000)
                )
        with httpx.Client(base_url=address) as client:
            gone = 0
            while gone < 20:
                counted = [
                    line for line in client.get("metrics").text.splitlines() if '/v1/grade",status="400"' in line
                ]
                gone = int(counted[0].split()[-1]) if counted else 0
            assert "parfocal_held_bytes 0\n" in client.get("metrics").text


def test_an_answer_that_is_not_fetched_ends_the_connection(runs: list[Path]) -> None:
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


def test_a_crowd_of_connections_is_refused_and_then_cut_off(runs: list[Path]) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    with serve_in_background(runs[:1], limits=Limits(max_connections=2)) as address:
        first, second, third, fourth, fifth = (_connect(address) for _ in range(5))
        with first, second, third, fourth, fifth:
            assert fifth.recv(1) == b""
            third.sendall(ask)
            assert _read_response(third) == (503, "Too many connections at once; try again in a moment.")
            first.sendall(ask)
            assert b" 200 " in first.recv(4096)


def test_a_request_that_is_none_is_refused(site: str) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 99_999,
    ):
        with _connect(site) as connection:
            connection.sendall(nonsense)
            assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def test_a_flood_is_answered_or_refused_with_a_reason_and_memory_comes_back(
    runs: list[Path], images: dict[str, bytes]
) -> None:
    some = list(images.values())
    # One connection each: threads that share them close one another's, when the server closes one that is idle.
    alone = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
    with serve_in_background(runs, limits=Limits(max_waiting_images=6, max_requests=16)) as address, alone as client:

        def ask(number: int) -> tuple[int, str]:
            answer = client.post(f"{address}v1/grade", content=some[number % len(some)] + bytes(200_000))
            said = answer.json()
            return answer.status_code, said["images"][0]["answers"][0]["label"] if "images" in said else said["detail"]

        def flood() -> Counter[tuple[int, str]]:
            with ThreadPoolExecutor(32) as pool:
                return Counter(pool.map(ask, range(400)))

        flood()
        trim_memory()
        before = read_resident_bytes()
        told = flood()
        trim_memory()
        assert {status for status, _ in told} == {200, 503}
        assert {reason for status, reason in told if status == 200} <= {"normal", "blast"}
        reasons = {reason for status, reason in told if status == 503}
        assert all("try again in a moment" in reason for reason in reasons)
        assert read_resident_bytes() < before + (32 << 20)
        assert client.get(f"{address}healthz").json()["waiting"] == 0
        assert client.post(f"{address}v1/grade", content=some[0]).status_code == 200


def test_a_stop_under_load_answers_what_was_accepted(
    runs: list[Path], images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, go, begun, plain = images["./new_dataset/test/0.bmp"], Event(), Event(), Predictor.predict

    def answer(self: Predictor, looks: list[PreparedViews]) -> PredictedBatch:
        begun.set()
        go.wait()
        return plain(self, looks)

    with ThreadPoolExecutor(9) as pool:
        with serve_in_background(runs[:1]) as address:
            httpx.get(f"{address}healthz")
            monkeypatch.setattr(Predictor, "predict", answer)
            asked = [pool.submit(httpx.post, f"{address}v1/grade", content=one, timeout=60) for _ in range(8)]
            begun.wait()
            with httpx.Client(base_url=address) as client:
                while client.get("healthz").json()["waiting"] < 8:
                    pass
            # The server is told to stop while all eight wait; it is let go on only after that.
            pool.submit(lambda: (_wait_until_closed(address), go.set()))
        assert [one.result().status_code for one in asked] == [200] * 8
        assert all(one.result().json()["images"][0]["answers"] for one in asked)


def _wait_until_closed(address: str) -> None:
    """Return once the server takes no new connections."""
    while True:
        try:
            httpx.get(f"{address}healthz", timeout=10)
        except httpx.HTTPError:
            return
