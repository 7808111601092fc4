"""Serving from a command or a program: bound to this machine unless told, stopped without losing an answer."""

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from parfocal.errors import ParfocalError, UsageError
from parfocal.progress import silence
from parfocal.serving.limits import Limits

if TYPE_CHECKING:
    from uvicorn import Server

    from parfocal.serving.engine import Engine

MIN_TOKEN_LENGTH = 16
_SHUTDOWN_SECONDS = 30
"""Seconds that requests may take to finish once the server is told to stop."""


def serve(
    runs: Path | str | Sequence[Path | str],
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str = "",
    limits: Limits | None = None,
) -> None:
    """Serve runs, an ensemble's folder, or a folder that holds several, until the process is told to stop.

    On an address that other machines reach, a token is needed; requests carry it.
    """
    with _bind(host, port, token) as bound, _load_engine(runs, limits) as engine:
        # The bars of single requests would only get in each other's way.
        silence()
        server = _build_server(engine, token)
        told = "" if not token else "  (the page asks for the token)"
        print(f"Serving {', '.join(engine.networks)}: {_format_url(bound, host)}{told}\nCtrl-C stops.", flush=True)
        # uvicorn hands the signal on once all is finished, and then there is nothing left to do.
        before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            server.run(sockets=[bound])
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


@contextmanager
def serve_in_background(
    runs: Path | str | Sequence[Path | str],
    host: str = "127.0.0.1",
    port: int = 0,
    token: str = "",
    limits: Limits | None = None,
) -> Iterator[str]:
    """Serve beside the program while the block runs, on any free port unless told, and give the address."""
    with _bind(host, port, token) as bound, _load_engine(runs, limits) as engine:
        server = _build_server(engine, token)
        thread = Thread(target=server.run, kwargs={"sockets": [bound]}, name="serving")
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.005)
            yield _format_url(bound, host)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _load_engine(runs: Path | str | Sequence[Path | str], limits: Limits | None) -> "Iterator[Engine]":
    from parfocal.serving.engine import Engine

    engine = Engine([runs] if isinstance(runs, str | Path) else runs, limits)
    try:
        yield engine
    finally:
        engine.close()


def _build_server(engine: "Engine", token: str) -> "Server":
    from uvicorn import Config, Server

    from parfocal.serving.app import create_app
    from parfocal.serving.connections import build_protocol

    return Server(
        Config(
            create_app(engine, token),
            http=build_protocol(engine.limits),
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


@contextmanager
def _bind(host: str, port: int, token: str) -> Iterator[socket.socket]:
    """Take an address, before anything heavy is loaded; or say why it cannot be had."""
    _check_packages()
    from parfocal.serving.security import is_local

    if token and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(f"A token has {MIN_TOKEN_LENGTH} letters and digits or more: openssl rand -hex 16 makes one.")
    if not token and not is_local(host):
        raise UsageError(
            f"{host} can be reached by other machines, and anyone there could ask. Stay at 127.0.0.1; or make a token "
            "and give the command again: export PARFOCAL_TOKEN=$(openssl rand -hex 16); echo $PARFOCAL_TOKEN"
        )
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # asyncio sends small pieces at once only where a socket is told to be TCP; else each answer takes 40 ms more.
        bound = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise _binding_error(host, port, error) from None
    with bound:
        try:
            if os.name == "posix":
                # Elsewhere this would let two servers take the same port.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
            bound.listen(512)
        except OSError as error:
            raise _binding_error(host, port, error) from None
        yield bound


def _binding_error(host: str, port: int, error: Exception) -> ParfocalError:
    reason = getattr(error, "strerror", None) or str(error)
    return ParfocalError(f"Cannot serve at {host}:{port}: {reason}. Name another --port or --host.")


def _format_url(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _check_packages() -> None:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ParfocalError(f"Serving needs the package {error.name}: pip install 'parfocal[serve]'.") from None
