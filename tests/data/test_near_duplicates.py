"""Copies of a picture keep its fingerprint, other pictures do not, and sets are those a full comparison would find."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.data.near_duplicates import MAX_DISTANCE, find_near_duplicates, perceptual_hash

WORD = st.integers(0, 2**64 - 1)


def _picture(number: int, side: int = 300) -> np.ndarray:
    """Draw blobs of many sizes on a pale ground."""
    dice = np.random.default_rng(number)
    picture = np.full((side, side, 3), 215, np.uint8)
    for _ in range(40):
        centre = tuple(int(place) for place in dice.integers(0, side, 2))
        colour = tuple(int(level) for level in dice.integers(40, 200, 3))
        cv2.circle(picture, centre, int(dice.integers(side // 40, side // 8)), colour, -1, cv2.LINE_AA)
    return picture


def _cell(number: int, side: int = 300) -> np.ndarray:
    """Draw a textured cell of much the same size and place as every other, on black."""
    dice = np.random.default_rng(number)
    texture = cv2.resize(dice.integers(60, 200, (14, 14, 3)).astype(np.uint8), (side, side))
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (side // 2, side // 2), (side // 4, side // 4 + number % 5), number, 0, 360, 1, -1)
    return texture * mask[..., None]


def _recompressed(picture: np.ndarray, quality: int = 50) -> np.ndarray:
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    copy = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert copy is not None
    return copy


def _resized(picture: np.ndarray, factor: float) -> np.ndarray:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=method)


def _apart(first: int, second: int) -> int:
    return (first ^ second).bit_count()


@pytest.mark.parametrize(
    "copied",
    [
        _recompressed,
        lambda picture: _resized(picture, 0.5),
        lambda picture: _resized(picture, 1.37),
        lambda picture: _resized(picture, 2),
        lambda picture: cv2.convertScaleAbs(picture, alpha=1.05),
        lambda picture: cv2.convertScaleAbs(picture, alpha=0.9),
        lambda picture: _recompressed(_resized(cv2.convertScaleAbs(picture, alpha=0.95), 0.8), 75),
    ],
    ids=["recompressed", "halved", "enlarged", "doubled", "brighter", "darker", "all at once"],
)
@pytest.mark.parametrize("draw", [_picture, _cell])
def test_a_copy_has_nearly_the_same_fingerprint(
    draw: Callable[[int], np.ndarray], copied: Callable[[np.ndarray], np.ndarray]
) -> None:
    pictures = [draw(number) for number in range(12)]
    apart = [_apart(perceptual_hash(picture), perceptual_hash(copied(picture))) for picture in pictures]
    assert np.mean(np.array(apart) <= 3) >= 0.9


@pytest.mark.parametrize("draw", [_picture, _cell])
def test_different_pictures_lie_far_apart(draw: Callable[[int], np.ndarray]) -> None:
    fingerprints = [perceptual_hash(draw(number)) for number in range(60)]
    assert 0 not in fingerprints
    apart = [_apart(one, other) for place, one in enumerate(fingerprints) for other in fingerprints[:place]]
    assert min(apart) > MAX_DISTANCE


def test_turned_and_mirrored_copies_are_other_pictures() -> None:
    picture = _picture(1)
    for other in (picture[:, ::-1], picture[::-1], np.rot90(picture)):
        assert _apart(perceptual_hash(picture), perceptual_hash(np.ascontiguousarray(other))) > MAX_DISTANCE


def test_plain_pictures_have_no_fingerprint() -> None:
    ramp = np.linspace(60, 200, 300)
    noise = np.random.default_rng(0).normal(0, 2, (300, 300))
    plain = {
        "black": np.zeros((300, 300)),
        "nearly one colour": 120 + noise,
        "gradient": np.tile(ramp, (300, 1)),
        "slanted gradient": (np.tile(ramp, (300, 1)) + ramp[:, None]) / 2 + noise,
        "vignette": 220 - np.add.outer((ramp - 130) ** 2, (ramp - 130) ** 2) / 100,
    }
    for name, grey in plain.items():
        picture = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        assert perceptual_hash(picture) == 0, name
        assert perceptual_hash(_recompressed(picture, 80)) == 0, name


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (15, 300), (16, 2000), (333, 97), (2, 3)])
def test_pictures_of_any_shape_are_taken(shape: tuple[int, int]) -> None:
    dice = np.random.default_rng(3)
    picture = dice.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert 0 <= perceptual_hash(picture) < 2**64
    assert perceptual_hash(picture) == perceptual_hash(picture.copy())


def _compared(fingerprints: list[int], distance: int) -> list[list[int]]:
    """Find the sets by comparing everything with everything."""
    sets: list[set[int]] = []
    for row, value in enumerate(fingerprints):
        if value:
            near = [one for one in sets if any(_apart(value, fingerprints[other]) <= distance for other in one)]
            sets = [one for one in sets if one not in near] + [{row}.union(*near)]
    return sorted(sorted(one) for one in sets if len(one) > 1)


def _found(fingerprints: list[int], distance: int) -> list[list[int]]:
    return [rows.tolist() for rows in find_near_duplicates(np.array(fingerprints, np.uint64), distance)]


@st.composite
def _families(draw: st.DrawFn) -> list[int]:
    """Draw fingerprints among which many are a few bits from another, some equal, some nothing."""
    values = draw(st.lists(WORD | st.integers(0, 64), min_size=1, max_size=8))
    for _ in range(draw(st.integers(0, 40))):
        flipped = draw(st.lists(st.integers(0, 63), max_size=6))
        value = draw(st.sampled_from(values))
        for bit in flipped:
            value ^= 1 << bit
        values.append(value)
    return draw(st.permutations([*values, *draw(st.lists(st.just(0), max_size=3))]))


@given(_families(), st.integers(0, MAX_DISTANCE))
@settings(max_examples=120, deadline=None)
def test_sets_are_those_of_a_full_comparison(fingerprints: list[int], distance: int) -> None:
    assert _found(fingerprints, distance) == _compared(fingerprints, distance)


@given(st.integers(0, 2**32 - 1), st.integers(3, 9), st.sampled_from([0.01, 0.1, 0.5]), st.integers(0, 4))
@settings(max_examples=6, deadline=None)
def test_crowds_that_share_most_bits_are_sorted_out_too(seed: int, shift: int, share: float, distance: int) -> None:
    count, dice = 700, np.random.default_rng(seed)
    bits = dice.random((count, 64)) < share
    bits[:, dice.permutation(64)[: 6 * shift]] = True
    fingerprints = np.packbits(bits, axis=1).view(np.uint64).ravel()
    apart = np.unpackbits((fingerprints[:, None] ^ fingerprints).view(np.uint8).reshape(count, count, 8), axis=2).sum(2)
    near = (apart <= distance) & (fingerprints != 0)[:, None] & (fingerprints != 0)
    np.fill_diagonal(near, False)
    number = np.arange(count)
    for rows in find_near_duplicates(fingerprints, distance):
        number[rows] = rows[0]
        assert near[np.ix_(rows, rows)].any(axis=1).all()
    assert (number[:, None] == number)[near].all()


def test_equal_fingerprints_are_one_set_however_many() -> None:
    fingerprints = np.full(50_000, 12345, np.uint64)
    fingerprints[7] = 0
    (rows,) = find_near_duplicates(fingerprints)
    assert len(rows) == 49_999
    assert 7 not in rows


def test_nothing_is_alike_among_none_and_a_distance_too_far_is_refused() -> None:
    assert find_near_duplicates(np.array([], np.uint64)) == []
    assert find_near_duplicates(np.zeros(3, np.uint64)) == []
    with pytest.raises(ValueError, match="regression_loss=9"):
        find_near_duplicates(np.zeros(3, np.uint64), MAX_DISTANCE + 1)
