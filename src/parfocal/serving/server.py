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
from parfocal.progress import be_quiet
from parfocal.serving.limits import Limits

if TYPE_CHECKING:
    from uvicorn import Server

    from parfocal.serving.engine import Engine

SHORTEST_TOKEN = 16
_GRACE = 30
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
    with _bound(host, port, token) as bound, _loaded(runs, limits) as engine:
        # The bars of single requests would only get in each other's way.
        be_quiet()
        server = _server(engine, token)
        told = "" if not token else "  (the page asks for the token)"
        print(f"Serving {', '.join(engine.networks)}: {_address(bound, host)}{told}\nCtrl-C stops.", flush=True)
        # uvicorn hands the signal on once all is finished, and then there is nothing left to do.
        before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            server.run(sockets=[bound])
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


@contextmanager
def serving(
    runs: Path | str | Sequence[Path | str],
    host: str = "127.0.0.1",
    port: int = 0,
    token: str = "",
    limits: Limits | None = None,
) -> Iterator[str]:
    """Serve beside the program while the block runs, on any free port unless told, and give the address."""
    with _bound(host, port, token) as bound, _loaded(runs, limits) as engine:
        server = _server(engine, token)
        thread = Thread(target=server.run, kwargs={"sockets": [bound]}, name="serving")
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.005)
            yield _address(bound, host)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _loaded(runs: Path | str | Sequence[Path | str], limits: Limits | None) -> "Iterator[Engine]":
    from parfocal.serving.engine import Engine

    engine = Engine([runs] if isinstance(runs, str | Path) else runs, limits)
    try:
        yield engine
    finally:
        engine.close()


def _server(engine: "Engine", token: str) -> "Server":
    from uvicorn import Config, Server

    from parfocal.serving.app import new_app
    from parfocal.serving.connections import patient_protocol

    return Server(
        Config(
            new_app(engine, token),
            http=patient_protocol(engine.limits),
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_GRACE,
        )
    )


@contextmanager
def _bound(host: str, port: int, token: str) -> Iterator[socket.socket]:
    """Take an address, before anything heavy is loaded; or say why it cannot be had."""
    _refuse_extra_missing()
    from parfocal.serving.gate import is_local

    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(f"A token has {SHORTEST_TOKEN} letters and digits or more: openssl rand -hex 16 makes one.")
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
        raise _refused(host, port, error) from None
    with bound:
        try:
            if os.name == "posix":
                # Elsewhere this would let two servers take the same port.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
            bound.listen(512)
        except OSError as error:
            raise _refused(host, port, error) from None
        yield bound


def _refused(host: str, port: int, error: Exception) -> ParfocalError:
    reason = getattr(error, "strerror", None) or str(error)
    return ParfocalError(f"Cannot serve at {host}:{port}: {reason}. Name another --port or --host.")


def _address(bound: socket.socket, host: str) -> str:
    port = bound.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _refuse_extra_missing() -> None:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ParfocalError(f"Serving needs the package {error.name}: pip install 'parfocal[serve]'.") from None
