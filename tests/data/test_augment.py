"""Views: one geometry matrix and one colour matrix for each image, drawn for a whole epoch."""

from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.augment import View, Views, draw_views, eval_views, tta_views
from parfocal.data.render import render
from parfocal.errors import UsageError
from parfocal.schema import ViewsConfig

EVERYTHING: dict[str, Any] = {
    "crop_size": 24,
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
    "grayscale": 0.3,
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
    seen = _rendered(image, eval_views(1, size, ViewsConfig(crop_size=crop))[0], crop)
    np.testing.assert_array_equal(seen, image[edge : edge + crop, edge : edge + crop])


def test_with_nothing_asked_for_training_sees_what_evaluation_sees() -> None:
    part = ViewsConfig(crop_size=24)
    np.testing.assert_array_equal(draw_views(5, 32, part, seed=1, epoch=2).geometry, eval_views(5, 32, part).geometry)
    assert draw_views(5, 32, part, seed=1, epoch=2).color is None


@pytest.mark.parametrize(("key", "axis"), [("flip_horizontal", 1), ("flip_vertical", 0)])
def test_flips_are_exact(key: str, axis: int) -> None:
    image = _image()
    view = draw_views(1, 32, ViewsConfig.model_validate({"crop_size": 24, key: 1.0}), seed=0, epoch=0)[0]
    np.testing.assert_array_equal(_rendered(image, view, 24), np.flip(image[4:28, 4:28], axis))


def test_a_rotation_is_the_usual_one_about_the_centre() -> None:
    image, part = _image(33), ViewsConfig(crop_size=33, rotate=90)
    view = draw_views(1, 33, part, seed=0, epoch=0)[0]
    turned = np.rad2deg(np.arctan2(view.geometry[0, 1], view.geometry[0, 0]))
    around = cv2.getRotationMatrix2D((16, 16), float(turned), 1)
    expected = cv2.warpAffine(image, around, (33, 33), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    assert np.abs(_rendered(image, view, 33).astype(int) - expected).max() <= 6


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), count=st.integers(1, 9))
def test_an_epochs_views_depend_on_seed_epoch_and_place_alone(seed: int, epoch: int, count: int) -> None:
    part = ViewsConfig(**EVERYTHING)
    few, many = (
        draw_views(count, 32, part, seed=seed, epoch=epoch),
        draw_views(count + 5, 32, part, seed=seed, epoch=epoch),
    )
    np.testing.assert_array_equal(few.geometry, many.geometry[:count])
    assert few.color is not None
    assert many.color is not None
    np.testing.assert_array_equal(few.color, many.color[:count])
    other = draw_views(count, 32, part, seed=seed, epoch=epoch + 1)
    assert not np.array_equal(few.geometry, other.geometry)


@given(seed=st.integers(0, 1000))
def test_geometry_is_the_product_of_its_parts(seed: int) -> None:
    def linear(**settings: float) -> np.ndarray:
        return draw_views(
            4, 32, ViewsConfig.model_validate({"crop_size": 24, **settings}), seed=seed, epoch=0
        ).geometry[:, :, :2]

    settings = {key: EVERYTHING[key] for key in ("rotate", "flip_horizontal", "flip_vertical", "zoom", "shear")}
    stretched = linear(**{key: settings[key] for key in ("flip_horizontal", "flip_vertical", "zoom")})
    product = linear(rotate=180) @ linear(shear=20) @ stretched
    np.testing.assert_allclose(linear(**settings), product, atol=1e-5)


@given(seed=st.integers(0, 1000))
def test_zoom_and_stretch_stay_within_what_was_asked(seed: int) -> None:
    part = ViewsConfig(crop_size=24, zoom=0.2, stretch=0.3)
    views = draw_views(20, 32, part, seed=seed, epoch=0)
    across, down = np.abs(views.geometry[:, 0, 0]), np.abs(views.geometry[:, 1, 1])
    scale = 1 / np.sqrt(across * down)
    assert ((scale > 0.8 - 1e-5) & (scale < 1.2 + 1e-5)).all()
    assert ((down / across > 0.7 - 1e-5) & (down / across < 1.3 + 1e-5)).all()


@given(seed=st.integers(0, 1000), level=st.integers(0, 255))
def test_hue_saturation_and_grey_leave_grey_as_it_is(seed: int, level: int) -> None:
    views = draw_views(4, 32, ViewsConfig(crop_size=24, saturation=0.8, hue=0.5, grayscale=0.3), seed=seed, epoch=0)
    assert views.color is not None
    seen = views.color @ np.array([level, level, level, 1.0])
    np.testing.assert_allclose(seen, level, atol=1e-3)


def test_grey_images_have_three_equal_channels() -> None:
    view = draw_views(1, 32, ViewsConfig(crop_size=24, grayscale=1, hue=0.4), seed=0, epoch=0)[0]
    seen = _rendered(_image(), view, 24).astype(int)
    assert np.ptp(seen, axis=-1).max() <= 1


def test_contrast_keeps_mid_grey_and_brightness_keeps_black() -> None:
    colours = draw_views(50, 32, ViewsConfig(crop_size=24, contrast=0.9), seed=0, epoch=0).color
    assert colours is not None
    np.testing.assert_allclose(colours @ np.array([127.5, 127.5, 127.5, 1]), 127.5, atol=1e-3)
    colours = draw_views(50, 32, ViewsConfig(crop_size=24, brightness=0.9), seed=0, epoch=0).color
    assert colours is not None
    assert np.abs(colours[:, :, 3]).max() == 0


def test_changing_one_setting_leaves_the_others_draws_alone() -> None:
    few = draw_views(6, 32, ViewsConfig(crop_size=24, rotate=30), seed=5, epoch=1)
    more = draw_views(6, 32, ViewsConfig(crop_size=24, rotate=30, brightness=0.5, grayscale=0.5), seed=5, epoch=1)
    np.testing.assert_array_equal(few.geometry, more.geometry)


def test_views_are_as_many_as_images() -> None:
    views: Views = draw_views(7, 32, ViewsConfig(**EVERYTHING), seed=0, epoch=0)
    assert len(views) == 7
    assert views.crop_size == 24


@pytest.mark.parametrize("tta", ["none", "five_crop", "ten_crop"])
def test_evaluation_looks_at_centre_corners_and_their_flips(tta: str) -> None:
    image, part = _image(), ViewsConfig.model_validate({"crop_size": 24, "tta": tta})
    seen = [_rendered(image, eval_views(1, 32, part, look)[0], 24) for look in tta_views(part)]
    corners = [image[4:28, 4:28], image[:24, :24], image[:24, 8:], image[8:, :24], image[8:, 8:]]
    expected = [*corners, *(np.flip(one, 1) for one in corners)][: len(seen)]
    assert len(seen) == {"none": 1, "five_crop": 5, "ten_crop": 10}[tta]
    for one, other in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [24, 32, 33])
def test_flips_and_turns_are_those_of_a_square_each_once(size: int) -> None:
    image = _image(size)
    middle = _rendered(image, eval_views(1, size, ViewsConfig(crop_size=24))[0], 24)
    turned = [np.rot90(one, by) for one in (middle, middle[:, ::-1]) for by in range(4)]
    for evaluation, several in (("flips", turned[::2]), ("d4", turned)):
        part = ViewsConfig.model_validate({"crop_size": 24, "tta": evaluation})
        seen = [_rendered(image, eval_views(1, size, part, look)[0], 24) for look in tta_views(part)]
        np.testing.assert_array_equal(seen[0], middle)
        assert sorted(one.tobytes() for one in seen) == sorted(one.tobytes() for one in several)


@given(seed=st.integers(0, 1000), crop_padding=st.integers(0, 6))
def test_random_crops_are_exact_pieces_of_the_padded_image(seed: int, pad: int) -> None:
    image = _image()
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    part = ViewsConfig(crop_size=24, crop_position="random", crop_padding=pad)
    view = draw_views(3, 32, part, seed=seed, epoch=0)[2]
    left, top = (int(view.geometry[axis, 2]) + pad for axis in (0, 1))
    np.testing.assert_array_equal(_rendered(image, view, 24), padded[top : top + 24, left : left + 24])


@given(seed=st.integers(0, 1000))
def test_resized_crops_keep_within_the_image_and_their_share(seed: int) -> None:
    views = draw_views(40, 32, ViewsConfig(crop_size=24, crop_scale=0.3, crop_ratio=1.5), seed=seed, epoch=0)
    sides = np.stack([views.geometry[:, 0, 0], views.geometry[:, 1, 1]], axis=1) * 24
    assert (sides.prod(axis=1) >= 0.3 * 32**2 * 0.85).all()
    assert (sides <= 32 + 1e-3).all()
    corners = views.geometry[:, :, 2]
    assert (corners > -0.51).all()
    assert (corners + sides < 32 + 0.51).all()


def test_steps_have_chances_and_groups_an_order_or_a_choice() -> None:
    def turned(**settings: Any) -> np.ndarray:
        part = ViewsConfig.model_validate({"crop_size": 24, "rotate": 90, "zoom": 0.5, **settings})
        return draw_views(4000, 32, part, seed=0, epoch=0).geometry[:, :, :2]

    def shares(linear: np.ndarray) -> tuple[float, float]:
        return (
            float((np.abs(linear[:, 0, 1]) > 1e-6).mean()),
            float((np.abs(np.linalg.det(linear) - 1) > 1e-6).mean()),
        )

    assert shares(turned(probabilities={"rotate": 0.3})) == pytest.approx((0.3, 1.0), abs=0.03)
    assert shares(turned(geometry_probability=0.4)) == pytest.approx((0.4, 0.4), abs=0.03)
    one_of = turned(geometry="one_of")
    assert shares(one_of) == pytest.approx((0.2, 0.2), abs=0.03)
    both = (np.abs(one_of[:, 0, 1]) > 1e-6) & (np.abs(np.linalg.det(one_of) - 1) > 1e-6)
    assert not both.any()
    sheared = {"shear": 20, "stretch": 0.5}
    fixed, shuffled = turned(**sheared), turned(**sheared, geometry="random_order")
    assert 0.3 < (np.abs(fixed - shuffled).max(axis=(1, 2)) > 1e-4).mean() < 1
    np.testing.assert_allclose(np.linalg.det(fixed), np.linalg.det(shuffled), rtol=1e-4)


def test_erasing_blackens_a_box_of_at_most_its_area() -> None:
    image, part = np.full((32, 32, 3), 200, np.uint8), ViewsConfig(crop_size=24, erase=0.5, erase_area=0.25)
    views = draw_views(400, 32, part, seed=0, epoch=0)
    black = np.array([(_rendered(image, views[number], 24) == 0).all(axis=2).sum() for number in range(400)])
    assert 0.4 < (black > 0).mean() < 0.6
    assert black.max() <= 24 * 24 * 0.25 * 1.15


def inverted(image: np.ndarray) -> np.ndarray:
    """A step of one's own."""
    return 255 - image


def speckled(image: np.ndarray, seed: int) -> np.ndarray:
    """A step of one's own that draws."""
    return np.random.default_rng(seed).integers(0, 256, image.shape, dtype=np.uint8)


composed = albumentations.Compose([albumentations.InvertImg(p=1)])
jittered = albumentations.Compose([albumentations.ColorJitter(p=1), albumentations.GaussNoise(p=1)])


def test_a_step_of_ones_own_comes_last() -> None:
    image = _image()
    plain = _rendered(image, draw_views(2, 32, ViewsConfig(crop_size=24), seed=0, epoch=0)[1], 24)
    for name in ("inverted", "composed"):
        part = ViewsConfig(crop_size=24, custom_transform=f"tests.data.test_views:{name}")
        np.testing.assert_array_equal(_rendered(image, draw_views(2, 32, part, seed=0, epoch=0)[1], 24), 255 - plain)
    part = ViewsConfig(crop_size=24, custom_transform="tests.data.test_views:speckled")
    one, again, other = (_rendered(image, draw_views(2, 32, part, seed=0, epoch=epoch)[1], 24) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    for name, said in (("nowhere:step", "No module named"), ("tests.data.test_views:gone", "gone"), ("step", "form")):
        with pytest.raises(UsageError, match=said):
            draw_views(1, 32, ViewsConfig(crop_size=24, custom_transform=name), seed=0, epoch=0)
