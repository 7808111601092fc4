"""Ten thousand damaged images through the upload path: each is answered or refused, and nothing falls over."""

import zlib
from collections import Counter

import httpx
import numpy as np

from tests.data.example_files import build_example_files

N_IMAGES, IMAGES_PER_REQUEST = 10_000, 50


def _damage(rng: np.random.Generator, valid_files: list[bytes]) -> bytes:
    """Return a sound file with bytes changed, cut out, doubled or taken from another, or nothing but noise."""
    data = bytearray(valid_files[rng.integers(len(valid_files))])
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
    way = rng.integers(6)
    if way == 0:
        for at in rng.integers(0, len(data), 1 + length // 4):
            data[at] = rng.integers(256)
    elif way == 1:
        del data[place:]
    elif way == 2:
        del data[place : place + length]
    elif way == 3:
        data[place:place] = data[place : place + length] * 20
    elif way == 4:
        other = valid_files[rng.integers(len(valid_files))]
        data[place:] = other[min(place, len(other)) :]
    else:
        # The head is where a decoder is told sizes.
        data[: min(64, len(data))] = _flip_bits(rng, data[:64])
        if data[:4] == b"\x89PNG" and len(data) > 33:
            data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def _flip_bits(rng: np.random.Generator, head: bytearray) -> bytearray:
    for at in rng.integers(4, max(5, len(head)), 3):
        if at < len(head):
            head[at] ^= 1 << int(rng.integers(8))
    return head


def test_no_damaged_image_brings_the_server_down(site: str) -> None:
    dice = np.random.default_rng(5)
    sound = [one.data for one in build_example_files().values() if len(one.data) < 50_000]
    outcomes: Counter[str] = Counter()
    with httpx.Client(base_url=site, timeout=120) as client:
        for _ in range(N_IMAGES // IMAGES_PER_REQUEST):
            files = [("image", (str(number), _damage(dice, sound))) for number in range(IMAGES_PER_REQUEST)]
            answer = client.post("v1/grade", files=files, params={"network": "plain20"})
            assert answer.status_code == 200, answer.text
            for number, image in enumerate(answer.json()["images"]):
                assert image["name"] == str(number)
                assert bool(image["answers"]) == (image["unreadable"] is None)
                outcomes["answered" if image["answers"] else "refused"] += 1
        assert client.get("healthz").json()["waiting"] == 0
    assert sum(outcomes.values()) == N_IMAGES
    assert min(outcomes["answered"], outcomes["refused"]) > N_IMAGES // 20, outcomes
