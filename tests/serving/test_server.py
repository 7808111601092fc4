"""The command and the function: where it may listen, what it says, and how it ends."""

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


def test_the_command_serves_a_folder_of_runs_at_once_and_ends_well(trained: Path, images: dict[str, bytes]) -> None:
    command = [sys.executable, "-m", "parfocal", "serve", str(trained / "runs"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.readline()
        assert said.startswith("Serving plain20, resnet20: http://127.0.0.1:")
        answer = httpx.post(f"{said.split()[-1]}v1/grade", content=images["./new_dataset/test/0.bmp"])
        assert len(answer.json()["images"][0]["answers"]) == 2
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_other_machines_need_a_token_that_is_seen_once(host: str) -> None:
    with pytest.raises(UsageError, match=r"export PARFOCAL_TOKEN=\$\(openssl rand -hex 16\); echo \$PARFOCAL_TOKEN$"):
        parfocal.serve("runs", host=host)


@pytest.mark.parametrize("token", ["short", "with a space in it", "not-ascii-äöü-äöü"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="16 letters and digits or more"):
        parfocal.serve("runs", token=token)


def test_an_address_that_cannot_be_had_is_one_message(runs: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParfocalError, match=rf"Cannot serve at 127\.0\.0\.1:{port}: Address already in use\."):
            parfocal.serve(runs, port=port)
    with pytest.raises(ParfocalError, match="Cannot serve at"):
        parfocal.serve(runs, host="no.such.name.invalid", token="0123456789abcdef")


def test_what_is_no_run_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="is not a run folder and holds none"):
        parfocal.serve(tmp_path, port=0)


def test_a_missing_extra_is_named(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    with pytest.raises(ParfocalError, match=r"python_multipart: pip install 'parfocal\[serve\]'"):
        parfocal.serve(runs, port=0)


def test_answers_are_sent_at_once(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    plain = H11Protocol.connection_made

    def made(self: H11Protocol, transport: Transport) -> None:
        told.append(bool(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        plain(self, transport)

    monkeypatch.setattr(H11Protocol, "connection_made", made)
    with serve_in_background(runs[:1]) as address:
        httpx.get(f"{address}healthz")
    assert told == [True]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_the_newer_loopback_address_is_ones_own_too(runs: list[Path]) -> None:
    with serve_in_background(runs[:1], host="::1") as address:
        assert address.startswith("http://[::1]:")
        assert httpx.get(f"{address}healthz").status_code == 200


def test_the_token_may_come_from_the_environment(trained: Path) -> None:
    command = [sys.executable, "-m", "parfocal", "serve", str(trained / "runs" / "plain20"), "--port", "0"]
    environment = os.environ | {"PARFOCAL_TOKEN": "0123456789abcdef"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        said = process.stdout.readline()
        assert "asks for the token" in said
        assert "0123456789abcdef" not in said
        assert httpx.get(f"{said.split()[2]}v1/models").status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
