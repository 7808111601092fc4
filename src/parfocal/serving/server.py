"""Start and stop the server, from the command line or from a program. It listens on localhost by default."""

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
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
"""Seconds that requests have to finish when the server stops."""


class MissingTokenError(UsageError):
    """Other machines can reach the address, and there is no token."""


def serve(
    runs: Path | str | Sequence[Path | str],
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str = "",
    limits: Limits | None = None,
) -> None:
    """Serve runs, an ensemble's folder, or a folder of runs, until the process receives SIGINT or SIGTERM.

    An address that other machines can reach needs a token, and every request must send it.
    """
    with _open_server(runs, host, port, token, limits) as (server, listener, engine):
        # The progress bars of concurrent requests would overwrite each other.
        silence()
        hint = "" if not token else "  (the page asks for the token)"
        print(f"Serving {', '.join(engine.networks)}: {_format_url(listener, host)}{hint}", flush=True)
        print("Press Ctrl-C to stop.", flush=True)
        # uvicorn raises the signal again after it has finished all requests. Nothing is left to do then.
        handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            server.run(sockets=[listener])
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def serve_in_background(
    runs: Path | str | Sequence[Path | str],
    host: str = "127.0.0.1",
    port: int = 0,
    token: str = "",
    limits: Limits | None = None,
) -> Iterator[str]:
    """Serve in a background thread while the block runs, on a free port by default, and yield the address."""
    with _open_server(runs, host, port, token, limits) as (server, listener, _):
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, name="serving")
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.005)
            yield _format_url(listener, host)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _open_server(
    runs: Path | str | Sequence[Path | str], host: str, port: int, token: str, limits: Limits | None
) -> "Iterator[tuple[Server, socket.socket, Engine]]":
    """Yield a server that is ready to run, the socket that it listens on, and its engine."""
    try:
        for package in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
            import_module(package)
    except ImportError as error:
        message = f"Serving needs the package {error.name}. Install it with: pip install 'parfocal[serve]'"
        raise ParfocalError(message) from None

    from uvicorn import Config, Server

    from parfocal.serving.security import is_local

    if token and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(
            f"token=… needs at least {MIN_TOKEN_LENGTH} letters and digits, without spaces. "
            "To create a token: openssl rand -hex 16"
        )
    if not token and not is_local(host):
        raise MissingTokenError(
            f"Other machines can reach {host}, so it needs a token. Use host=127.0.0.1, or pass token=TOKEN."
        )
    # A mistake in the address is reported before the imports and the networks, which take seconds to load.
    with _listen(host, port) as listener:
        from parfocal.serving.app import create_app
        from parfocal.serving.engine import Engine
        from parfocal.serving.protocol import build_protocol
        from parfocal.serving.schemas import describe_network

        engine = Engine([runs] if isinstance(runs, str | Path) else runs, limits)
        try:
            # A damaged file is reported now, not in an answer.
            for network in engine.networks.values():
                describe_network(network)
            config = Config(
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
            yield Server(config), listener, engine
        finally:
            engine.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as stack:
            # asyncio sends small packets at once only if the socket names its protocol; else a response takes 40 ms
            # more.
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            if os.name == "posix":
                # On Windows this option would allow two servers on the same port.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(512)
            stack.pop_all()
        return listener
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ParfocalError(
            f"Cannot serve at {host}:{port}: {reason}. Choose another host=HOST or port=PORT."
        ) from None


def _format_url(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
