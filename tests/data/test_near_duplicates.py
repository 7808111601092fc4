"""Copies keep the perceptual hash of an image, other images do not; the sets are those of a full comparison."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.data.near_duplicates import MAX_DISTANCE, find_near_duplicates, perceptual_hash

HASHES = st.integers(0, 2**64 - 1)


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


def _recompress(image: np.ndarray, quality: int = 50) -> np.ndarray:
    succeeded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert succeeded
    copy = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert copy is not None
    return copy


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=method)


def _count_different_bits(first: int, second: int) -> int:
    return (first ^ second).bit_count()


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
def test_a_copy_has_nearly_the_same_hash(
    draw_image: Callable[[int], np.ndarray], copy: Callable[[np.ndarray], np.ndarray]
) -> None:
    images = [draw_image(seed) for seed in range(12)]
    distances = [_count_different_bits(perceptual_hash(image), perceptual_hash(copy(image))) for image in images]
    assert np.mean(np.array(distances) <= 3) >= 0.9


@pytest.mark.parametrize("draw_image", [_draw_blobs, _draw_cell])
def test_different_images_have_very_different_hashes(draw_image: Callable[[int], np.ndarray]) -> None:
    hashes = [perceptual_hash(draw_image(seed)) for seed in range(60)]
    assert 0 not in hashes
    distances = [
        _count_different_bits(first, second) for number, first in enumerate(hashes) for second in hashes[:number]
    ]
    assert min(distances) > MAX_DISTANCE


def test_rotated_and_mirrored_copies_have_different_hashes() -> None:
    image = _draw_blobs(1)
    for copy in (image[:, ::-1], image[::-1], np.rot90(image)):
        copy_hash = perceptual_hash(np.ascontiguousarray(copy))
        assert _count_different_bits(perceptual_hash(image), copy_hash) > MAX_DISTANCE


def test_uniform_images_have_no_hash() -> None:
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
        assert perceptual_hash(image) == 0, name
        assert perceptual_hash(_recompress(image, 80)) == 0, name


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (15, 300), (16, 2000), (333, 97), (2, 3)])
def test_images_of_any_shape_have_a_hash_of_64_bits(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert 0 <= perceptual_hash(image) < 2**64
    assert perceptual_hash(image) == perceptual_hash(image.copy())


def _compare_all(hashes: list[int], max_distance: int) -> list[list[int]]:
    """Find the sets by comparing each hash with every other."""
    sets: list[set[int]] = []
    for row, value in enumerate(hashes):
        if value:
            near = [
                rows
                for rows in sets
                if any(_count_different_bits(value, hashes[other]) <= max_distance for other in rows)
            ]
            sets = [rows for rows in sets if rows not in near] + [{row}.union(*near)]
    return sorted(sorted(rows) for rows in sets if len(rows) > 1)


@st.composite
def _draw_related_hashes(draw: st.DrawFn) -> list[int]:
    """Draw hashes: many differ in a few bits, some are equal and some are 0."""
    values = draw(st.lists(HASHES | st.integers(0, 64), min_size=1, max_size=8))
    for _ in range(draw(st.integers(0, 40))):
        flipped_bits = draw(st.lists(st.integers(0, 63), max_size=6))
        value = draw(st.sampled_from(values))
        for bit in flipped_bits:
            value ^= 1 << bit
        values.append(value)
    return draw(st.permutations([*values, *draw(st.lists(st.just(0), max_size=3))]))


@given(_draw_related_hashes(), st.integers(0, MAX_DISTANCE))
@settings(max_examples=120, deadline=None)
def test_the_sets_are_those_of_a_full_comparison(hashes: list[int], max_distance: int) -> None:
    sets = [rows.tolist() for rows in find_near_duplicates(np.array(hashes, np.uint64), max_distance)]
    assert sets == _compare_all(hashes, max_distance)


@given(st.integers(0, 2**32 - 1), st.integers(3, 9), st.sampled_from([0.01, 0.1, 0.5]), st.integers(0, 4))
@settings(max_examples=6, deadline=None)
def test_many_hashes_that_share_most_bits_are_separated_too(
    seed: int, shift: int, share: float, max_distance: int
) -> None:
    count = 700
    rng = np.random.default_rng(seed)
    bits = rng.random((count, 64)) < share
    bits[:, rng.permutation(64)[: 6 * shift]] = True
    hashes = np.packbits(bits, axis=1).view(np.uint64).ravel()
    different_bits = np.unpackbits((hashes[:, None] ^ hashes).view(np.uint8).reshape(count, count, 8), axis=2)
    near = (different_bits.sum(2) <= max_distance) & (hashes != 0)[:, None] & (hashes != 0)
    np.fill_diagonal(near, False)
    set_numbers = np.arange(count)
    for rows in find_near_duplicates(hashes, max_distance):
        set_numbers[rows] = rows[0]
        assert near[np.ix_(rows, rows)].any(axis=1).all()
    assert (set_numbers[:, None] == set_numbers)[near].all()


def test_any_number_of_equal_hashes_is_one_set() -> None:
    hashes = np.full(50_000, 12345, np.uint64)
    hashes[7] = 0
    (rows,) = find_near_duplicates(hashes)
    assert len(rows) == 49_999
    assert 7 not in rows


def test_no_hashes_have_no_duplicates_and_a_distance_that_is_too_large_is_rejected() -> None:
    assert find_near_duplicates(np.array([], np.uint64)) == []
    assert find_near_duplicates(np.zeros(3, np.uint64)) == []
    with pytest.raises(ValueError, match="max_distance=9"):
        find_near_duplicates(np.zeros(3, np.uint64), MAX_DISTANCE + 1)
