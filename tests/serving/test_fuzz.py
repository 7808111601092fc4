"""Send ten thousand damaged images: each is predicted or rejected, and the server keeps running."""

import zlib
from collections import Counter

import httpx
import numpy as np

from tests.data.example_files import build_example_files

N_IMAGES, IMAGES_PER_REQUEST = 10_000, 50


def _damage(rng: np.random.Generator, valid_files: list[bytes]) -> bytes:
    """Return a valid file with bytes changed, removed, repeated or replaced, or with a damaged header."""
    data = bytearray(valid_files[rng.integers(len(valid_files))])
    position, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
    kind = rng.integers(6)
    if kind == 0:
        for index in rng.integers(0, len(data), 1 + length // 4):
            data[index] = rng.integers(256)
    elif kind == 1:
        del data[position:]
    elif kind == 2:
        del data[position : position + length]
    elif kind == 3:
        data[position:position] = data[position : position + length] * 20
    elif kind == 4:
        other = valid_files[rng.integers(len(valid_files))]
        data[position:] = other[min(position, len(other)) :]
    else:
        # The header is where a decoder reads sizes.
        data[: min(64, len(data))] = _flip_bits(rng, data[:64])
        if data[:4] == b"\x89PNG" and len(data) > 33:
            data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def _flip_bits(rng: np.random.Generator, head: bytearray) -> bytearray:
    for index in rng.integers(4, max(5, len(head)), 3):
        if index < len(head):
            head[index] ^= 1 << int(rng.integers(8))
    return head


def test_no_damaged_image_stops_the_server(site: str) -> None:
    rng = np.random.default_rng(5)
    valid_files = [file.data for file in build_example_files().values() if len(file.data) < 50_000]
    outcomes: Counter[str] = Counter()
    with httpx.Client(base_url=site, timeout=120) as client:
        for _ in range(N_IMAGES // IMAGES_PER_REQUEST):
            files = [("image", (str(number), _damage(rng, valid_files))) for number in range(IMAGES_PER_REQUEST)]
            answer = client.post("v1/predict", files=files, params={"network": "plain20"})
            assert answer.status_code == 200, answer.text
            for number, image in enumerate(answer.json()["images"]):
                assert image["name"] == str(number)
                assert bool(image["predictions"]) == (image["unreadable"] is None)
                outcomes["predicted" if image["predictions"] else "rejected"] += 1
        assert client.get("healthz").json()["waiting"] == 0
    assert sum(outcomes.values()) == N_IMAGES
    assert min(outcomes["predicted"], outcomes["rejected"]) > N_IMAGES // 20, outcomes
