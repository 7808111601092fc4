"""Copies keep the descriptor of an image, other images do not; the sets are those of a full comparison."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.data import near_duplicates
from parfocal.data.near_duplicates import MIN_SIMILARITY, compute_descriptor, find_near_duplicates, find_nearest
from parfocal.synthetic.fundus import draw_eye, draw_fundus
from parfocal.synthetic.smears import draw_cell, draw_patient, draw_signals


def _draw_blobs(seed: int, side: int = 300) -> np.ndarray:
    """Draw blobs of many sizes on a light background."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 215, np.uint8)
    for _ in range(40):
        center = tuple(int(coordinate) for coordinate in rng.integers(0, side, 2))
        color = tuple(int(level) for level in rng.integers(40, 200, 3))
        cv2.circle(image, center, int(rng.integers(side // 40, side // 8)), color, -1, cv2.LINE_AA)
    return image


def _draw_cell(seed: int, side: int = 300) -> np.ndarray:
    """Draw a textured cell on black; all cells have about the same size and position."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.integers(60, 200, (14, 14, 3)).astype(np.uint8), (side, side))
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (side // 2, side // 2), (side // 4, side // 4 + seed % 5), seed, 0, 360, 1, -1)
    return texture * mask[..., None]


def _draw_smear(seed: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    is_blast = seed % 2 == 1
    return draw_cell(draw_patient("a", is_blast, rng), draw_signals(is_blast, rng), side, rng)[0]


def _draw_fundus(seed: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return draw_fundus(draw_eye(rng), seed % 2 == 1, seed % 5, side, rng)[0]


def _recompress(image: np.ndarray, quality: int = 50) -> np.ndarray:
    succeeded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert succeeded
    copy = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert copy is not None
    return copy


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=method)


@pytest.mark.parametrize(
    "copy",
    [
        _recompress,
        lambda image: _resize(image, 0.5),
        lambda image: _resize(image, 1.37),
        lambda image: _resize(image, 2),
        lambda image: cv2.convertScaleAbs(image, alpha=1.05),
        lambda image: cv2.convertScaleAbs(image, alpha=0.9),
        lambda image: _recompress(_resize(cv2.convertScaleAbs(image, alpha=0.95), 0.8), 75),
    ],
    ids=["recompressed", "halved", "enlarged", "doubled", "brighter", "darker", "all at once"],
)
@pytest.mark.parametrize("draw_image", [_draw_blobs, _draw_cell])
def test_a_copy_has_nearly_the_same_descriptor(
    draw_image: Callable[[int], np.ndarray], copy: Callable[[np.ndarray], np.ndarray]
) -> None:
    images = [draw_image(seed) for seed in range(12)]
    similarities = [compute_descriptor(image) @ compute_descriptor(copy(image)) for image in images]
    assert np.mean(np.array(similarities) >= MIN_SIMILARITY) >= 0.9


@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize(("draw_image", "count"), [(_draw_smear, 40), (_draw_blobs, 40), (_draw_fundus, 8)])
def test_copies_are_found_at_64_pixels_as_at_224(
    draw_image: Callable[[int, int], np.ndarray], count: int, side: int
) -> None:
    images = [draw_image(seed, side) for seed in range(count)]
    copies = [_recompress(image, 95) for image in images]
    descriptors = np.stack([compute_descriptor(image) for image in (*images, *copies)])
    sets = [rows.tolist() for rows in find_near_duplicates(descriptors)]
    assert sets == [[number, number + count] for number in range(count)]
    assert find_nearest(descriptors[count:], descriptors[:count]).tolist() == list(range(count))


@pytest.mark.parametrize("draw_image", [_draw_blobs, _draw_cell])
def test_different_images_have_very_different_descriptors(draw_image: Callable[[int], np.ndarray]) -> None:
    descriptors = np.stack([compute_descriptor(draw_image(seed)) for seed in range(60)])
    assert descriptors.any(axis=1).all()
    similarities = descriptors @ descriptors.T
    np.fill_diagonal(similarities, 0)
    assert similarities.max() < MIN_SIMILARITY - 0.1


def test_rotated_and_mirrored_copies_have_different_descriptors() -> None:
    image = _draw_blobs(1)
    for copy in (image[:, ::-1], image[::-1], np.rot90(image)):
        copied = compute_descriptor(np.ascontiguousarray(copy))
        assert compute_descriptor(image) @ copied < MIN_SIMILARITY - 0.1


def test_uniform_images_have_no_descriptor() -> None:
    ramp = np.linspace(60, 200, 300)
    noise = np.random.default_rng(0).normal(0, 2, (300, 300))
    uniform_images = {
        "black": np.zeros((300, 300)),
        "almost one color": 120 + noise,
        "gradient": np.tile(ramp, (300, 1)),
        "diagonal gradient": (np.tile(ramp, (300, 1)) + ramp[:, None]) / 2 + noise,
        "vignette": 220 - np.add.outer((ramp - 130) ** 2, (ramp - 130) ** 2) / 100,
    }
    for name, gray in uniform_images.items():
        image = np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        assert not compute_descriptor(image).any(), name
        assert not compute_descriptor(_recompress(image, 80)).any(), name


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (15, 300), (16, 2000), (333, 97), (2, 3)])
def test_images_of_any_shape_have_a_descriptor_of_length_1_or_0(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    descriptor = compute_descriptor(image)
    np.testing.assert_array_equal(descriptor, compute_descriptor(image.copy()))
    assert min(abs(np.linalg.norm(descriptor) - length) for length in (0, 1)) < 1e-6


def _compare_all(descriptors: np.ndarray, min_similarity: float) -> list[list[int]]:
    """Find the sets by comparing each descriptor with every other."""
    near = descriptors @ descriptors.T >= min_similarity
    sets: list[set[int]] = []
    for row in np.flatnonzero(descriptors.any(axis=1)):
        linked = [rows for rows in sets if near[row, list(rows)].any()]
        sets = [rows for rows in sets if rows not in linked] + [{int(row)}.union(*linked)]
    return sorted(sorted(rows) for rows in sets if len(rows) > 1)


@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.floats(0, 0.2), st.integers(1, 5000))
@settings(max_examples=60, deadline=None)
def test_the_sets_are_those_of_a_full_comparison(seed: int, count: int, noise: float, pairs_at_once: int) -> None:
    """Chains of related descriptors, some of them equal and some of them zero, compared in blocks of any size."""
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 64))
    for row in range(1, count):
        if rng.random() < 0.6:
            descriptors[row] = descriptors[rng.integers(row)] + noise * rng.normal(size=64) * (rng.random() < 0.8)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    descriptors[rng.random(count) < 0.1] = 0
    descriptors = descriptors.astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_MAX_PAIRS_AT_ONCE", pairs_at_once)
        sets = [rows.tolist() for rows in find_near_duplicates(descriptors, 0.97)]
        nearest = find_nearest(descriptors[::2], descriptors[1::2], 0.97)
    assert sets == _compare_all(descriptors, 0.97)
    similarities = descriptors[::2] @ descriptors[1::2].T if count > 1 else np.zeros((1, 1), np.float32)
    np.testing.assert_array_equal(nearest >= 0, similarities.max(1) >= 0.97)
    found = np.flatnonzero(nearest >= 0)
    np.testing.assert_allclose(similarities[found, nearest[found]], similarities[found].max(1), rtol=1e-5)


def test_any_number_of_equal_descriptors_is_one_set() -> None:
    descriptors = np.zeros((50_000, 64), np.float32)
    descriptors[:, 3] = 1
    descriptors[7] = 0
    (rows,) = find_near_duplicates(descriptors)
    assert len(rows) == 49_999
    assert 7 not in rows


def test_no_descriptors_have_no_duplicates() -> None:
    assert find_near_duplicates(np.zeros((0, 64), np.float32)) == []
    assert find_near_duplicates(np.zeros((3, 64), np.float32)) == []
    assert find_nearest(np.zeros((2, 64), np.float32), np.zeros((0, 64), np.float32)).tolist() == [-1, -1]
