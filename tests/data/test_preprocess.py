"""Preprocessing: the crops and resizes of the source documents, contrast enhancement and stain normalization."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.preprocess import choose_jpeg_reduction, find_disc, preprocess
from parfocal.recipe_schema import ImagesConfig
from parfocal.synthetic.smears import draw_cell, draw_patient, draw_signals


def _draw_gradients(height: int, width: int) -> np.ndarray:
    """Draw red that increases to the right and green that increases downwards."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    image[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return image


def _preprocess(image: np.ndarray, **config: Any) -> np.ndarray:
    return preprocess(image, ImagesConfig.model_validate(config))


def _draw_eye(height: int, width: int, radius: int, center: tuple[int, int], brightness: int = 120) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 6, (height, width, 3)).astype(np.uint8)
    cv2.circle(image, center, radius, (brightness, brightness // 2, brightness // 4), -1)
    return image


@pytest.mark.parametrize("resize_mode", ["squash", "crop", "pad", "none"])
@pytest.mark.parametrize("shape", [(100, 200), (200, 100), (100, 100), (31, 47)])
def test_every_resize_mode_gives_the_square(resize_mode: str, shape: tuple[int, int]) -> None:
    assert _preprocess(_draw_gradients(*shape), resize_mode=resize_mode, size=100).shape == (100, 100, 3)


def test_each_resize_mode_keeps_what_it_promises() -> None:
    image = _draw_gradients(100, 200)
    squashed, cropped, padded, unscaled = (
        _preprocess(image, resize_mode=mode, size=100) for mode in ("squash", "crop", "pad", "none")
    )
    assert squashed[50, 0, 0] < 3
    assert squashed[50, -1, 0] > 252
    np.testing.assert_array_equal(cropped, image[:, 50:150])
    np.testing.assert_array_equal(unscaled, image[:, 50:150])
    assert padded[:24].max() == 0
    assert padded[50, -1, 0] > 250


def test_a_center_crop_keeps_the_scale_of_a_small_cell_and_pads_it_with_black() -> None:
    cell = np.full((60, 60, 3), 200, np.uint8)
    pixels = _preprocess(cell, center_crop=120, resize_mode="squash", size=60)
    assert (pixels > 100).all(axis=2).sum() == pytest.approx(30 * 30, abs=130)
    assert pixels[:14].max() == 0


def test_the_resizes_of_the_source_documents_can_be_configured() -> None:
    image = _draw_gradients(450, 450)
    np.testing.assert_array_equal(
        _preprocess(image, resize_mode="squash", size=350),
        cv2.resize(image, (350, 350), interpolation=cv2.INTER_LINEAR),
    )
    wide = _draw_gradients(1200, 1800)
    expected = cv2.resize(wide, (768, 512), interpolation=cv2.INTER_AREA)[:, 128:640]
    assert np.abs(_preprocess(wide, resize_mode="crop", size=512).astype(int) - expected).mean() < 1


@given(
    radius=st.integers(120, 190),
    shift_x=st.integers(-40, 40),
    shift_y=st.integers(-5, 5),
    brightness=st.integers(40, 255),
)
def test_the_disc_is_found_anywhere_in_the_image(radius: int, shift_x: int, shift_y: int, brightness: int) -> None:
    x, y = 300 + shift_x, 200 + shift_y
    edges = find_disc(_draw_eye(400, 600, radius, (x, y), brightness))
    expected = (max(0, y - radius), min(400, y + radius), x - radius, x + radius)
    assert max(abs(edge - expected_edge) for edge, expected_edge in zip(edges, expected, strict=True)) <= 14


def test_an_image_without_a_disc_is_not_cropped() -> None:
    assert find_disc(np.zeros((100, 200, 3), np.uint8)) == (0, 100, 0, 200)
    assert find_disc(_draw_gradients(100, 200))[1] == 100
    dot = np.zeros((300, 300, 3), np.uint8)
    dot[140:150, 140:150] = 255
    assert find_disc(dot) == (0, 300, 0, 300)


def test_a_cropped_disc_fills_the_square() -> None:
    pixels = _preprocess(_draw_eye(600, 900, 200, (450, 300)), crop_disc=True, resize_mode="pad", size=100)
    assert (pixels[50, 2:98, 0] > 60).all()
    assert (pixels[2:98, 50, 0] > 60).all()


@pytest.mark.parametrize(
    ("config", "reduction"),
    [
        ({"size": 512}, 4),
        ({"size": 300}, 8),
        ({"size": 1300}, 1),
        ({"size": 512, "crop_disc": True}, 2),
        ({"size": 512, "resize_mode": "none"}, 1),
        ({"size": 512, "center_crop": 700}, 1),
    ],
)
def test_a_jpeg_is_reduced_only_as_far_as_no_stored_resolution_is_lost(config: dict[str, Any], reduction: int) -> None:
    assert choose_jpeg_reduction(3888, 2592, ImagesConfig.model_validate(config)) == reduction


def test_subtracting_the_local_average_evens_the_light_and_keeps_lesions() -> None:
    slope = np.linspace(0.5, 1.5, 400)[None, :, None]
    uneven = np.clip(_draw_eye(400, 400, 190, (200, 200)) * slope, 0, 255).astype(np.uint8)
    cv2.circle(uneven, (150, 200), 4, (20, 5, 5), -1)
    pixels = _preprocess(uneven, size=400, enhance="local_average")
    inside = pixels[150:250, 120:280].reshape(-1, 3).astype(int)
    assert np.abs(np.median(inside, axis=0) - 128).max() <= 8
    assert pixels[200, 150, 0] < 60
    assert (pixels[5, 5] == 128).all()


def test_clahe_increases_contrast_and_keeps_the_color_balance() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (128, 128, 1))
    dull = (100 + noise + np.array([20, 0, -10])).astype(np.uint8)
    equalized = _preprocess(dull, size=128, enhance="clahe")
    assert equalized.std(axis=(0, 1)).mean() > 1.2 * dull.std(axis=(0, 1)).mean()
    np.testing.assert_allclose(np.diff(equalized.mean(axis=(0, 1))), [-20, -10], atol=4)


def _draw_stained_cell(stain: float) -> np.ndarray:
    rng = np.random.default_rng(5)
    image, _ = draw_cell(draw_patient("p", True, rng), draw_signals(True, rng), 200, rng)
    strength = np.array([1.0, stain, 2 - stain])
    return np.where(image > 8, np.clip(255 * (image / 255.0) ** strength, 9, 255), 0).astype(np.uint8)


@pytest.mark.parametrize("stain", ["reinhard", "macenko"])
def test_two_stains_of_the_same_cell_become_similar(stain: str) -> None:
    cells = [_draw_stained_cell(0.8), _draw_stained_cell(1.25)]
    in_both = (cells[0].max(axis=2) > 8) & (cells[1].max(axis=2) > 8)
    before = np.abs(cells[0][in_both].astype(int) - cells[1][in_both]).mean()
    normalized = [_preprocess(cell, size=200, stain=stain) for cell in cells]
    after = np.abs(normalized[0][in_both].astype(int) - normalized[1][in_both]).mean()
    assert after < before / 2
    for pixels, cell in zip(normalized, cells, strict=True):
        assert pixels[cell.max(axis=2) <= 8].max() == 0


def test_reinhard_matches_the_reference_mean_and_standard_deviation() -> None:
    config = ImagesConfig(size=200, stain="reinhard", stain_mean=(50, 20, -20), stain_std=(8, 4, 4))
    pixels = preprocess(_draw_stained_cell(1.0), config)
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[pixels.max(axis=2) > 8]
    np.testing.assert_allclose(lab.mean(axis=0), (50, 20, -20), atol=1)
    np.testing.assert_allclose(lab.std(axis=0), (8, 4, 4), atol=1)


@pytest.mark.parametrize("stain", ["reinhard", "macenko"])
def test_black_and_unstained_images_are_not_changed(stain: str) -> None:
    for image in (np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 250, np.uint8)):
        pixels = _preprocess(image, size=40, stain=stain)
        assert pixels.shape == (40, 40, 3)
        if stain == "macenko" or not image.any():
            np.testing.assert_array_equal(pixels, image)
