"""Views: one geometry matrix and one colour matrix for each image, drawn for a whole epoch."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.views import View, Views, drawn, render, still
from parfocal.recipe import ViewsPart

EVERYTHING: dict[str, Any] = {
    "crop": 24,
    "rotate": 180,
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "zoom": 0.3,
    "stretch": 0.3,
    "shift": 0.1,
    "shear": 20,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.5,
    "hue": 0.2,
    "grey": 0.3,
}


def _image(size: int = 32) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (size, size, 3), dtype=np.uint8)


def _rendered(image: np.ndarray, view: View, side: int) -> np.ndarray:
    out = np.empty((side, side, 3), np.uint8)
    render(image, view, out)
    return out


@pytest.mark.parametrize(("size", "crop"), [(32, 32), (32, 24), (350, 224)])
def test_evaluation_sees_exactly_the_central_square(size: int, crop: int) -> None:
    image, edge = _image(size), (size - crop) // 2
    seen = _rendered(image, still(1, size, ViewsPart(crop=crop))[0], crop)
    np.testing.assert_array_equal(seen, image[edge : edge + crop, edge : edge + crop])


def test_with_nothing_asked_for_training_sees_what_evaluation_sees() -> None:
    part = ViewsPart(crop=24)
    np.testing.assert_array_equal(drawn(5, 32, part, seed=1, epoch=2).geometry, still(5, 32, part).geometry)
    assert drawn(5, 32, part, seed=1, epoch=2).colour is None


@pytest.mark.parametrize(("key", "axis"), [("flip_horizontal", 1), ("flip_vertical", 0)])
def test_flips_are_exact(key: str, axis: int) -> None:
    image = _image()
    view = drawn(1, 32, ViewsPart(crop=24, **{key: 1.0}), seed=0, epoch=0)[0]
    np.testing.assert_array_equal(_rendered(image, view, 24), np.flip(image[4:28, 4:28], axis))


def test_a_rotation_is_the_usual_one_about_the_centre() -> None:
    image, part = _image(33), ViewsPart(crop=33, rotate=90)
    view = drawn(1, 33, part, seed=0, epoch=0)[0]
    turned = np.rad2deg(np.arctan2(view.geometry[0, 1], view.geometry[0, 0]))
    around = cv2.getRotationMatrix2D((16, 16), float(turned), 1)
    expected = cv2.warpAffine(image, around, (33, 33), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    assert np.abs(_rendered(image, view, 33).astype(int) - expected).max() <= 6


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), count=st.integers(1, 9))
def test_an_epochs_views_depend_on_seed_epoch_and_place_alone(seed: int, epoch: int, count: int) -> None:
    part = ViewsPart(**EVERYTHING)
    few, many = drawn(count, 32, part, seed=seed, epoch=epoch), drawn(count + 5, 32, part, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(few.geometry, many.geometry[:count])
    assert few.colour is not None
    assert many.colour is not None
    np.testing.assert_array_equal(few.colour, many.colour[:count])
    other = drawn(count, 32, part, seed=seed, epoch=epoch + 1)
    assert not np.array_equal(few.geometry, other.geometry)


@given(seed=st.integers(0, 1000))
def test_geometry_is_the_product_of_its_parts(seed: int) -> None:
    def linear(**settings: float) -> np.ndarray:
        return drawn(4, 32, ViewsPart(crop=24, **settings), seed=seed, epoch=0).geometry[:, :, :2]  # type: ignore[arg-type]

    settings = {key: EVERYTHING[key] for key in ("rotate", "flip_horizontal", "flip_vertical", "zoom", "shear")}
    stretched = linear(**{key: settings[key] for key in ("flip_horizontal", "flip_vertical", "zoom")})
    product = linear(rotate=180) @ linear(shear=20) @ stretched
    np.testing.assert_allclose(linear(**settings), product, atol=1e-5)


@given(seed=st.integers(0, 1000))
def test_zoom_and_stretch_stay_within_what_was_asked(seed: int) -> None:
    part = ViewsPart(crop=24, zoom=0.2, stretch=0.3)
    views = drawn(20, 32, part, seed=seed, epoch=0)
    across, down = np.abs(views.geometry[:, 0, 0]), np.abs(views.geometry[:, 1, 1])
    scale = 1 / np.sqrt(across * down)
    assert ((scale > 0.8 - 1e-5) & (scale < 1.2 + 1e-5)).all()
    assert ((down / across > 0.7 - 1e-5) & (down / across < 1.3 + 1e-5)).all()


@given(seed=st.integers(0, 1000), level=st.integers(0, 255))
def test_hue_saturation_and_grey_leave_grey_as_it_is(seed: int, level: int) -> None:
    views = drawn(4, 32, ViewsPart(crop=24, saturation=0.8, hue=0.5, grey=0.3), seed=seed, epoch=0)
    assert views.colour is not None
    seen = views.colour @ np.array([level, level, level, 1.0])
    np.testing.assert_allclose(seen, level, atol=1e-3)


def test_grey_images_have_three_equal_channels() -> None:
    view = drawn(1, 32, ViewsPart(crop=24, grey=1, hue=0.4), seed=0, epoch=0)[0]
    seen = _rendered(_image(), view, 24).astype(int)
    assert np.ptp(seen, axis=-1).max() <= 1


def test_contrast_keeps_mid_grey_and_brightness_keeps_black() -> None:
    colours = drawn(50, 32, ViewsPart(crop=24, contrast=0.9), seed=0, epoch=0).colour
    assert colours is not None
    np.testing.assert_allclose(colours @ np.array([127.5, 127.5, 127.5, 1]), 127.5, atol=1e-3)
    colours = drawn(50, 32, ViewsPart(crop=24, brightness=0.9), seed=0, epoch=0).colour
    assert colours is not None
    assert np.abs(colours[:, :, 3]).max() == 0


def test_changing_one_setting_leaves_the_others_draws_alone() -> None:
    few = drawn(6, 32, ViewsPart(crop=24, rotate=30), seed=5, epoch=1)
    more = drawn(6, 32, ViewsPart(crop=24, rotate=30, brightness=0.5, grey=0.5), seed=5, epoch=1)
    np.testing.assert_array_equal(few.geometry, more.geometry)


def test_views_are_as_many_as_images() -> None:
    views: Views = drawn(7, 32, ViewsPart(**EVERYTHING), seed=0, epoch=0)
    assert len(views) == 7
    assert views.side == 24
