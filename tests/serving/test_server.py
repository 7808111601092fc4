"""`parfocal serve` and `parfocal.serve`: the addresses they listen on, their messages, and how they stop."""

import os
import signal
import socket
import subprocess
import sys
from asyncio import Transport
from pathlib import Path

import httpx
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.serving.server import serve_in_background


def test_the_command_serves_a_folder_of_runs_and_stops_cleanly(trained: Path, images: dict[str, bytes]) -> None:
    command = [sys.executable, "-m", "parfocal", "serve", str(trained / "runs"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("Serving plain20, resnet20: http://127.0.0.1:")
        response = httpx.post(f"{line.split()[-1]}v1/predict", content=images["./new_dataset/test/0.bmp"])
        assert len(response.json()["images"][0]["predictions"]) == 2
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_an_address_for_other_machines_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match=r"it needs a token\. Use host=127\.0\.0\.1, or pass token=TOKEN\.$"):
        parfocal.serve("runs", host=host)


@pytest.mark.parametrize("token", ["short", "with a space in it", "not-ascii-äöü-äöü"])
def test_a_token_that_is_too_short_or_cannot_be_sent_is_rejected(token: str) -> None:
    with pytest.raises(UsageError, match="at least 16 letters and digits"):
        parfocal.serve("runs", token=token)


def test_an_unavailable_address_ends_in_one_message(runs: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParfocalError, match=rf"Cannot serve at 127\.0\.0\.1:{port}: Address already in use\."):
            parfocal.serve(runs, port=port)
    with pytest.raises(ParfocalError, match="Cannot serve at"):
        parfocal.serve(runs, host="no.such.name.invalid", token="0123456789abcdef")


def test_a_folder_without_runs_ends_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="is not a run folder and contains no runs"):
        parfocal.serve(tmp_path, port=0)


def test_a_missing_package_is_named(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    with pytest.raises(ParfocalError, match=r"python_multipart\. Install it with: pip install 'parfocal\[serve\]'"):
        parfocal.serve(runs, port=0)


def test_responses_are_sent_without_delay(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    no_delay: list[bool] = []
    original = H11Protocol.connection_made

    def connection_made(self: H11Protocol, transport: Transport) -> None:
        no_delay.append(bool(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        original(self, transport)

    monkeypatch.setattr(H11Protocol, "connection_made", connection_made)
    with serve_in_background(runs[:1]) as address:
        httpx.get(f"{address}healthz")
    assert no_delay == [True]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_the_ipv6_loopback_address_is_local(runs: list[Path]) -> None:
    with serve_in_background(runs[:1], host="::1") as address:
        assert address.startswith("http://[::1]:")
        assert httpx.get(f"{address}healthz").status_code == 200


def test_the_token_can_come_from_the_environment(trained: Path) -> None:
    command = [sys.executable, "-m", "parfocal", "serve", str(trained / "runs" / "plain20"), "--port", "0"]
    environment = os.environ | {"PARFOCAL_TOKEN": "0123456789abcdef"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert "asks for the token" in line
        assert "0123456789abcdef" not in line
        assert httpx.get(f"{line.split()[2]}v1/models").status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
