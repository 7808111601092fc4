"""Framing: the documents' ways from a picture of any shape to the Store's square, enhancement and stain."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.preprocess import choose_jpeg_reduction, find_disc, preprocess
from parfocal.schema import ImagesConfig
from parfocal.synthetic.smears import draw_cell, draw_patient, draw_signals


def _draw_gradients(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    image[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return image


def _preprocess(image: np.ndarray, **settings: Any) -> np.ndarray:
    return preprocess(image, ImagesConfig.model_validate(settings))


def _draw_eye(height: int, width: int, radius: int, center: tuple[int, int], brightness: int = 120) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 6, (height, width, 3)).astype(np.uint8)
    cv2.circle(image, center, radius, (brightness, brightness // 2, brightness // 4), -1)
    return image


@pytest.mark.parametrize("fit", ["squash", "crop", "pad", "none"])
@pytest.mark.parametrize("shape", [(100, 200), (200, 100), (100, 100), (31, 47)])
def test_every_fit_gives_the_square(fit: str, shape: tuple[int, int]) -> None:
    assert _preprocess(_draw_gradients(*shape), resize_mode=fit, size=100).shape == (100, 100, 3)


def test_squash_keeps_all_crop_the_middle_pad_the_shape_none_the_scale() -> None:
    image = _draw_gradients(100, 200)
    squashed, cropped, padded, kept = (
        _preprocess(image, resize_mode=fit, size=100) for fit in ("squash", "crop", "pad", "none")
    )
    assert squashed[50, 0, 0] < 3
    assert squashed[50, -1, 0] > 252
    np.testing.assert_array_equal(cropped, image[:, 50:150])
    np.testing.assert_array_equal(kept, image[:, 50:150])
    assert padded[:24].max() == 0
    assert padded[50, -1, 0] > 250


def test_the_scale_of_small_cells_is_kept_with_black_around() -> None:
    small = np.full((60, 60, 3), 200, np.uint8)
    framed = _preprocess(small, center_crop=120, resize_mode="squash", size=60)
    assert (framed > 100).all(axis=2).sum() == pytest.approx(30 * 30, abs=130)
    assert framed[:14].max() == 0


def test_the_documents_framings_are_expressible() -> None:
    image = _draw_gradients(450, 450)
    np.testing.assert_array_equal(
        _preprocess(image, resize_mode="squash", size=350),
        cv2.resize(image, (350, 350), interpolation=cv2.INTER_LINEAR),
    )
    wide = _draw_gradients(1200, 1800)
    shorter = cv2.resize(wide, (768, 512), interpolation=cv2.INTER_AREA)[:, 128:640]
    assert np.abs(_preprocess(wide, resize_mode="crop", size=512).astype(int) - shorter).mean() < 1


@given(radius=st.integers(120, 190), across=st.integers(-40, 40), down=st.integers(-5, 5), light=st.integers(40, 255))
def test_the_disc_is_found_wherever_it_lies(radius: int, across: int, down: int, light: int) -> None:
    centre = (300 + across, 200 + down)
    top, bottom, left, right = find_disc(_draw_eye(400, 600, radius, centre, light))
    expected = (max(0, centre[1] - radius), min(400, centre[1] + radius), centre[0] - radius, centre[0] + radius)
    assert max(abs(one - other) for one, other in zip((top, bottom, left, right), expected, strict=True)) <= 14


def test_a_picture_without_a_disc_is_left_whole() -> None:
    assert find_disc(np.zeros((100, 200, 3), np.uint8)) == (0, 100, 0, 200)
    assert find_disc(_draw_gradients(100, 200))[1] == 100
    dot = np.zeros((300, 300, 3), np.uint8)
    dot[140:150, 140:150] = 255
    assert find_disc(dot) == (0, 300, 0, 300)


def test_trimming_the_surround_makes_the_disc_fill_the_square() -> None:
    framed = _preprocess(_draw_eye(600, 900, 200, (450, 300)), crop_disc=True, resize_mode="pad", size=100)
    assert (framed[50, 2:98, 0] > 60).all()
    assert (framed[2:98, 50, 0] > 60).all()


@pytest.mark.parametrize(
    ("settings", "by"),
    [
        ({"size": 512}, 4),
        ({"size": 300}, 8),
        ({"size": 1300}, 1),
        ({"size": 512, "crop_disc": True}, 2),
        ({"size": 512, "resize_mode": "none"}, 1),
        ({"size": 512, "center_crop": 700}, 1),
    ],
)
def test_photographs_are_reduced_only_as_far_as_nothing_kept_is_lost(settings: dict[str, Any], by: int) -> None:
    assert choose_jpeg_reduction(3888, 2592, ImagesConfig.model_validate(settings)) == by


def test_taking_the_local_average_away_evens_light_and_keeps_lesions() -> None:
    image = _draw_eye(400, 400, 190, (200, 200))
    slope = np.linspace(0.5, 1.5, 400)[None, :, None]
    uneven = np.clip(image * slope, 0, 255).astype(np.uint8)
    cv2.circle(uneven, (150, 200), 4, (20, 5, 5), -1)
    framed = _preprocess(uneven, size=400, enhance="local_average")
    inside = framed[150:250, 120:280].reshape(-1, 3).astype(int)
    assert np.abs(np.median(inside, axis=0) - 128).max() <= 8
    assert framed[200, 150, 0] < 60
    assert (framed[5, 5] == 128).all()


def test_evening_contrast_spreads_it_and_leaves_colour_balance() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (128, 128, 1))
    dull = (100 + noise + np.array([20, 0, -10])).astype(np.uint8)
    evened = _preprocess(dull, size=128, enhance="clahe")
    assert evened.std(axis=(0, 1)).mean() > 1.2 * dull.std(axis=(0, 1)).mean()
    np.testing.assert_allclose(np.diff(evened.mean(axis=(0, 1))), [-20, -10], atol=4)


def _draw_stained_cell(stain: float) -> np.ndarray:
    dice = np.random.default_rng(5)
    image, _ = draw_cell(draw_patient("p", True, dice), draw_signals(True, dice), 200, dice)
    strength = np.array([1.0, stain, 2 - stain])
    return np.where(image > 8, np.clip(255 * (image / 255.0) ** strength, 9, 255), 0).astype(np.uint8)


@pytest.mark.parametrize("stain", ["reinhard", "macenko"])
def test_two_stains_of_one_cell_come_to_look_alike(stain: str) -> None:
    one, other = _draw_stained_cell(0.8), _draw_stained_cell(1.25)
    cell = (one.max(axis=2) > 8) & (other.max(axis=2) > 8)
    before = np.abs(one[cell].astype(int) - other[cell]).mean()
    framed = [_preprocess(image, size=200, stain=stain) for image in (one, other)]
    after = np.abs(framed[0][cell].astype(int) - framed[1][cell]).mean()
    assert after < before / 2
    for image, was in zip(framed, (one, other), strict=True):
        assert image[was.max(axis=2) <= 8].max() == 0


def test_reinhards_reference_is_met() -> None:
    wanted = ImagesConfig(size=200, stain="reinhard", stain_mean=(50, 20, -20), stain_std=(8, 4, 4))
    framed = preprocess(_draw_stained_cell(1.0), wanted)
    lab = cv2.cvtColor(framed.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[framed.max(axis=2) > 8]
    np.testing.assert_allclose(lab.mean(axis=0), (50, 20, -20), atol=1)
    np.testing.assert_allclose(lab.std(axis=0), (8, 4, 4), atol=1)


@pytest.mark.parametrize("stain", ["reinhard", "macenko"])
def test_black_and_unstained_pictures_are_left_alone(stain: str) -> None:
    for image in (np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 250, np.uint8)):
        framed = _preprocess(image, size=40, stain=stain)
        assert framed.shape == (40, 40, 3)
        if stain == "macenko" or not image.any():
            np.testing.assert_array_equal(framed, image)
