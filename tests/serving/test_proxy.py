"""Behind a reverse proxy that is configured as documented, foreign origins are refused and others are not."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from parfocal.serving.server import serve_in_background

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to.md"
TOKEN = "0123456789abcdef"
HOST = "clinic.example:8443"
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@contextmanager
def _run_proxy(server: str) -> Iterator[str]:
    """Run the documented reverse proxy, which terminates TLS, in front of a server."""
    configuration = HOW_TO.read_text(encoding="utf-8").partition("```nginx\n")[2].partition("```")[0]
    (location,) = re.findall(r"location (\S+) {", configuration)
    documented = dict(re.findall(r"proxy_set_header (\S+) (\S+);", configuration))

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            variables = {"$scheme": "https", "$http_host": self.headers["host"]}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            # Without configuration nginx sends its address of the server as Host.
            headers |= {"host": httpx.URL(server).netloc.decode()}
            headers |= {name.lower(): variables.get(value, value) for name, value in documented.items()}
            headers = {name.lower(): value for name, value in headers.items()}
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            url = server + self.path.removeprefix(location)
            response = httpx.request(self.command, url, headers=headers, content=body)
            self.send_response(response.status_code)
            for name, value in response.headers.multi_items():
                if name not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        def do_GET(self) -> None:
            self.forward()

        def do_POST(self) -> None:
            self.forward()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}{location}"
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@pytest.fixture(scope="module")
def client(runs: list[Path]) -> Iterator[httpx.Client]:
    with (
        serve_in_background(runs[:1], token=TOKEN) as server,
        _run_proxy(server) as address,
        httpx.Client(base_url=address, headers={"host": HOST, "authorization": f"Bearer {TOKEN}"}) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        (f"https://{HOST}", 200),
        ("https://clinic.example", 403),
        ("https://evil.example", 403),
        ("http://127.0.0.1:8000", 403),
        ("null", 403),
    ],
)
def test_a_post_from_another_origin_is_refused(
    client: httpx.Client, images: dict[str, bytes], origin: str | None, status: int
) -> None:
    headers = {"origin": origin} if origin else {}
    image = next(iter(images.values()))
    assert client.post("v1/predict", content=image, headers=headers).status_code == status
    foreign_origin = "https://evil.example"
    same = client.post("v1/predict", content=image, headers={"sec-fetch-site": "same-origin", "origin": foreign_origin})
    assert same.status_code == 200


def test_the_page_and_its_cookie_work(client: httpx.Client) -> None:
    (script,) = re.findall(r'<script type="module" src="([^"]+)"', client.get("").text)
    assert client.get(script).status_code == 200
    session = client.post("v1/session", headers={"origin": f"https://{HOST}"})
    assert session.status_code == 204
    assert "Secure" in session.headers["set-cookie"]
    assert client.get("healthz", headers={"authorization": ""}).json() == {"status": "ok"}
