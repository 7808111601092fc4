"""Threads share a memory budget: images that do not fit together are decoded one after another."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from parfocal.data import decode
from parfocal.data.decode import open_image, prepare_image
from parfocal.data.memory_budget import MemoryBudget, MemoryReservation
from parfocal.data.parallel import map_ordered
from parfocal.errors import UnreadableImageError
from parfocal.recipe_schema import ImagesConfig
from tests.data.example_files import draw_scene, encode_with_pillow

PNG = encode_with_pillow(Image.fromarray(draw_scene(100, 100)), "PNG")
BYTES = 100 * 100 * 6
"""The decoded image, and its copy in RGB."""


@pytest.mark.parametrize(("n_fitting", "n_images"), [(1, 12), (2, 12), (4, 12)])
def test_only_images_that_fit_the_budget_are_decoded_at_once(
    n_fitting: int, n_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    active: set[int] = set()
    arrived = threading.Barrier(n_fitting)

    def preprocess(image: np.ndarray, _: ImagesConfig) -> np.ndarray:
        active.add(threading.get_ident())
        counts.append(len(active))
        # As many images as fit are here at the same time.
        arrived.wait(timeout=20)
        active.remove(threading.get_ident())
        return image

    monkeypatch.setattr(decode, "DECODING_MEMORY", MemoryBudget(n_fitting * BYTES + BYTES // 2))
    monkeypatch.setattr(decode, "preprocess", preprocess)
    results = map_ordered([PNG] * n_images, lambda data: prepare_image(data, ImagesConfig()), "Decoding", workers=4)
    assert len(list(results)) == n_images
    assert max(counts) <= n_fitting


def test_an_image_that_is_larger_than_the_budget_is_decoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "DECODING_MEMORY", MemoryBudget(10))
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda data: decode.read_image(data)[0], [PNG] * 8))
    assert all(image.shape == (100, 100, 3) for image in images)


def test_an_error_frees_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = MemoryBudget(BYTES)
    monkeypatch.setattr(decode, "DECODING_MEMORY", budget)
    damaged = PNG[:-30] + bytes(5) + PNG[-25:]
    for _ in range(3):
        with pytest.raises(UnreadableImageError):
            decode.read_image(damaged)
    with pytest.raises(ZeroDivisionError), open_image(PNG):
        raise ZeroDivisionError
    with MemoryReservation(budget) as memory:
        memory.reserve(BYTES)
