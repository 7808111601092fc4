"""A local web server with byte ranges, which can drop connections, or stall."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


@dataclass
class WebServer:
    """Files by path, the number of bytes after which to drop or stall each coming response, and received requests."""

    files: dict[str, bytes] = field(default_factory=dict)
    truncate_after: list[int] = field(default_factory=list)
    stall_after: list[int] = field(default_factory=list)
    supports_ranges: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def run_web_server() -> Iterator[WebServer]:
    """Run a web server during the block."""
    site = WebServer()
    stopped = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            byte_range = self.headers.get("Range", "")
            site.requests.append((self.path, byte_range))
            content = site.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(re.findall(r"\d+", byte_range)[0]) if byte_range and site.supports_ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stalls = bool(site.stall_after)
            limits = site.stall_after if stalls else site.truncate_after
            self.wfile.write(content[start:][: limits.pop(0) if limits else None])
            if stalls:
                self.wfile.flush()
                stopped.wait()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
