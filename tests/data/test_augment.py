"""Augmented views: a geometric matrix and a color matrix for each image, for a whole epoch at once."""

from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data import augment
from parfocal.data.augment import EpochDraws, Views, draw_views, eval_views, tta_views
from parfocal.data.custom_transform import AllowedCode, load_custom_transform
from parfocal.data.warp import render_one
from parfocal.recipe_schema import ViewsConfig

ALL_AUGMENTATIONS: dict[str, Any] = {
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
    "color_temperature": 0.3,
    "grayscale": 0.3,
}


def _draw_image(size: int = 32) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (size, size, 3), dtype=np.uint8)


def _draw(n_images: int = 1, *, size: int = 32, seed: int = 0, epoch: int = 0, **settings: Any) -> Views:
    config = ViewsConfig.model_validate({"crop_size": 24, **settings})
    return draw_views(n_images, size, config, seed=seed, epoch=epoch)


def _render_tta_views(image: np.ndarray, config: ViewsConfig) -> list[np.ndarray]:
    views = [eval_views(1, len(image), config, tta_view) for tta_view in tta_views(config)]
    return [render_one(image, view, 0) for view in views]


@pytest.mark.parametrize(("size", "crop_size"), [(32, 32), (32, 24), (350, 224)])
def test_evaluation_shows_exactly_the_center_crop(size: int, crop_size: int) -> None:
    image = _draw_image(size)
    edge = (size - crop_size) // 2
    shown = render_one(image, eval_views(1, size, ViewsConfig(crop_size=crop_size)), 0)
    np.testing.assert_array_equal(shown, image[edge : edge + crop_size, edge : edge + crop_size])


def test_without_augmentations_training_shows_the_same_as_evaluation() -> None:
    views = _draw(5, seed=1, epoch=2)
    np.testing.assert_array_equal(views.geometry, eval_views(5, 32, ViewsConfig(crop_size=24)).geometry)
    assert views.color is None


@pytest.mark.parametrize(("key", "axis"), [("flip_horizontal", 1), ("flip_vertical", 0)])
def test_flips_are_exact(key: str, axis: int) -> None:
    image = _draw_image()
    settings: dict[str, Any] = {key: 1.0}
    np.testing.assert_array_equal(render_one(image, _draw(**settings), 0), np.flip(image[4:28, 4:28], axis))


def test_a_rotation_is_that_of_opencv_about_the_center() -> None:
    image = _draw_image(33)
    views = _draw(size=33, crop_size=33, rotate=90)
    angle = np.rad2deg(np.arctan2(views.geometry[0, 0, 1], views.geometry[0, 0, 0]))
    matrix = cv2.getRotationMatrix2D((16, 16), float(angle), 1)
    expected = cv2.warpAffine(image, matrix, (33, 33), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    assert np.abs(render_one(image, views, 0).astype(int) - expected).max() <= 6


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), n_images=st.integers(1, 9))
def test_the_views_of_an_epoch_depend_only_on_seed_epoch_and_index(seed: int, epoch: int, n_images: int) -> None:
    few = _draw(n_images, seed=seed, epoch=epoch, **ALL_AUGMENTATIONS)
    many = _draw(n_images + 5, seed=seed, epoch=epoch, **ALL_AUGMENTATIONS)
    np.testing.assert_array_equal(few.geometry, many.geometry[:n_images])
    assert few.color is not None
    assert many.color is not None
    np.testing.assert_array_equal(few.color, many.color[:n_images])
    next_epoch = _draw(n_images, seed=seed, epoch=epoch + 1, **ALL_AUGMENTATIONS)
    assert not np.array_equal(few.geometry, next_epoch.geometry)


@given(seed=st.integers(0, 1000))
def test_the_geometry_is_the_product_of_its_augmentations(seed: int) -> None:
    def linear(*keys: str) -> np.ndarray:
        settings = {key: ALL_AUGMENTATIONS[key] for key in keys}
        return _draw(4, seed=seed, **settings).geometry[:, :, :2]

    flips_and_zoom = ("flip_horizontal", "flip_vertical", "zoom")
    product = linear("rotate") @ linear("shear") @ linear(*flips_and_zoom)
    np.testing.assert_allclose(linear("rotate", "shear", *flips_and_zoom), product, atol=1e-5)


@given(seed=st.integers(0, 1000))
def test_zoom_and_stretch_stay_within_their_ranges(seed: int) -> None:
    views = _draw(20, seed=seed, zoom=0.2, stretch=0.3)
    x = np.abs(views.geometry[:, 0, 0])
    y = np.abs(views.geometry[:, 1, 1])
    scale = 1 / np.sqrt(x * y)
    assert ((scale > 0.8 - 1e-5) & (scale < 1.2 + 1e-5)).all()
    assert ((y / x > 0.7 - 1e-5) & (y / x < 1.3 + 1e-5)).all()


@given(seed=st.integers(0, 1000), level=st.integers(0, 255))
def test_hue_saturation_and_grayscale_leave_gray_unchanged(seed: int, level: int) -> None:
    views = _draw(4, seed=seed, saturation=0.8, hue=0.5, grayscale=0.3)
    assert views.color is not None
    np.testing.assert_allclose(views.color @ np.array([level, level, level, 1.0]), level, atol=1e-3)


def test_the_color_temperature_moves_red_against_blue_and_keeps_the_luma_of_gray() -> None:
    matrices = _draw(50, color_temperature=0.4).color
    assert matrices is not None
    red, green, blue = (matrices @ np.array([100, 100, 100, 1])).T
    np.testing.assert_allclose(0.299 * red + 0.587 * green + 0.114 * blue, 100, atol=1e-2)
    assert ((red > green) == (green > blue)).all()
    ratios = red / green
    assert ratios.min() < 0.7
    assert 1.3 < ratios.max() < 1.4


def test_grayscale_makes_the_three_channels_equal() -> None:
    image = render_one(_draw_image(), _draw(grayscale=1, hue=0.4), 0).astype(int)
    assert np.ptp(image, axis=-1).max() <= 1


def test_contrast_keeps_mid_gray_and_brightness_keeps_black() -> None:
    matrices = _draw(50, contrast=0.9).color
    assert matrices is not None
    np.testing.assert_allclose(matrices @ np.array([127.5, 127.5, 127.5, 1]), 127.5, atol=1e-3)
    matrices = _draw(50, brightness=0.9).color
    assert matrices is not None
    assert np.abs(matrices[:, :, 3]).max() == 0


def test_changing_one_setting_does_not_change_what_is_drawn_for_the_others() -> None:
    few = _draw(6, seed=5, epoch=1, rotate=30)
    more = _draw(6, seed=5, epoch=1, rotate=30, brightness=0.5, grayscale=0.5)
    np.testing.assert_array_equal(few.geometry, more.geometry)


class _TintConfig(ViewsConfig):
    tint: float = 0


def _draw_tint(draws: EpochDraws, config: ViewsConfig) -> np.ndarray:
    assert isinstance(config, _TintConfig)
    matrices = np.tile(np.eye(4), (len(draws), 1, 1))
    matrices[:, 0, 3] = config.tint * draws.signed("tint")
    return matrices


@pytest.mark.parametrize("composition", ["all", "random_order", "one_of"])
def test_a_new_augmentation_changes_no_other_view(composition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**ALL_AUGMENTATIONS, "geometry": composition, "color": composition, "erase": 0.5}

    def draw(**tint: float) -> Views:
        return draw_views(20, 32, _TintConfig.model_validate({**settings, **tint}), seed=1, epoch=2)

    before = draw()
    monkeypatch.setattr(augment, "COLOR_AUGMENTATIONS", {**augment.COLOR_AUGMENTATIONS, "tint": _draw_tint})
    for name in ("geometry", "color", "erase_boxes"):
        np.testing.assert_array_equal(getattr(draw(), name), getattr(before, name))
    tinted = draw(tint=50)
    np.testing.assert_array_equal(tinted.geometry, before.geometry)
    assert tinted.color is not None
    assert before.color is not None
    if composition == "all":
        np.testing.assert_allclose(tinted.color[:, :, :3], before.color[:, :, :3], atol=1e-6)
        assert np.abs(tinted.color[:, 0, 3] - before.color[:, 0, 3]).min() > 0


def test_there_is_one_view_for_each_image() -> None:
    views = _draw(7, **ALL_AUGMENTATIONS)
    assert len(views) == 7
    assert views.crop_size == 24


@pytest.mark.parametrize(("tta", "n_views"), [("none", 1), ("five_crop", 5), ("ten_crop", 10)])
def test_tta_crops_are_the_center_the_corners_and_their_flips(tta: str, n_views: int) -> None:
    image = _draw_image()
    shown = _render_tta_views(image, ViewsConfig.model_validate({"crop_size": 24, "tta": tta}))
    crops = [image[4:28, 4:28], image[:24, :24], image[:24, 8:], image[8:, :24], image[8:, 8:]]
    expected = [*crops, *(np.flip(crop, 1) for crop in crops)][:n_views]
    assert len(shown) == n_views
    for view, crop in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(view, crop)


@pytest.mark.parametrize("size", [24, 32, 33])
def test_tta_flips_and_rotations_are_those_of_a_square_each_exactly_once(size: int) -> None:
    image = _draw_image(size)
    center = render_one(image, eval_views(1, size, ViewsConfig(crop_size=24)), 0)
    rotated = [np.rot90(view, turns) for view in (center, center[:, ::-1]) for turns in range(4)]
    for tta, expected in (("flips", rotated[::2]), ("d4", rotated)):
        shown = _render_tta_views(image, ViewsConfig.model_validate({"crop_size": 24, "tta": tta}))
        np.testing.assert_array_equal(shown[0], center)
        assert sorted(view.tobytes() for view in shown) == sorted(view.tobytes() for view in expected)


@given(seed=st.integers(0, 1000), padding=st.integers(0, 6))
def test_random_crops_are_exact_crops_of_the_padded_image(seed: int, padding: int) -> None:
    image = _draw_image()
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    views = _draw(3, seed=seed, crop_position="random", crop_padding=padding)
    left, top = (int(views[2].geometry[axis, 2]) + padding for axis in (0, 1))
    np.testing.assert_array_equal(render_one(image, views, 2), padded[top : top + 24, left : left + 24])


@given(seed=st.integers(0, 1000))
def test_resized_crops_stay_within_the_image_and_have_the_share_of_its_area(seed: int) -> None:
    views = _draw(40, seed=seed, crop_scale=0.3, crop_ratio=1.5)
    sides = np.stack([views.geometry[:, 0, 0], views.geometry[:, 1, 1]], axis=1) * 24
    assert (sides.prod(axis=1) >= 0.3 * 32**2 * 0.85).all()
    assert (sides <= 32 + 1e-3).all()
    corners = views.geometry[:, :, 2]
    assert (corners > -0.51).all()
    assert (corners + sides < 32 + 0.51).all()


def test_augmentations_have_probabilities_and_groups_a_random_order_or_a_choice_of_one() -> None:
    def linear(**settings: Any) -> np.ndarray:
        return _draw(4000, **{"rotate": 90, "zoom": 0.5, **settings}).geometry[:, :, :2]

    def shares(matrices: np.ndarray) -> tuple[float, float]:
        """Return the shares of rotated and of zoomed views."""
        rotated = np.abs(matrices[:, 0, 1]) > 1e-6
        zoomed = np.abs(np.linalg.det(matrices) - 1) > 1e-6
        return float(rotated.mean()), float(zoomed.mean())

    assert shares(linear(probabilities={"rotate": 0.3})) == pytest.approx((0.3, 1.0), abs=0.03)
    assert shares(linear(geometry_probability=0.4)) == pytest.approx((0.4, 0.4), abs=0.03)
    one_of = linear(geometry="one_of")
    assert shares(one_of) == pytest.approx((0.5, 0.5), abs=0.03)
    both = (np.abs(one_of[:, 0, 1]) > 1e-6) & (np.abs(np.linalg.det(one_of) - 1) > 1e-6)
    assert not both.any()
    shear = {"shear": 20, "stretch": 0.5}
    fixed = linear(**shear)
    shuffled = linear(**shear, geometry="random_order")
    assert 0.3 < (np.abs(fixed - shuffled).max(axis=(1, 2)) > 1e-4).mean() < 1
    np.testing.assert_allclose(np.linalg.det(fixed), np.linalg.det(shuffled), rtol=1e-4)


def test_erasing_makes_a_box_black_that_has_at_most_the_erase_area() -> None:
    image = np.full((32, 32, 3), 200, np.uint8)
    views = _draw(400, erase=0.5, erase_area=0.25)
    black = np.array([(render_one(image, views, index) == 0).all(axis=2).sum() for index in range(400)])
    assert 0.4 < (black > 0).mean() < 0.6
    assert black.max() <= 24 * 24 * 0.25 * 1.15


def invert(image: np.ndarray) -> np.ndarray:
    """A custom transform without random numbers."""
    return 255 - image


def draw_noise(image: np.ndarray, seed: int) -> np.ndarray:
    """A custom transform with random numbers."""
    return np.random.default_rng(seed).integers(0, 256, image.shape, dtype=np.uint8)


invert_with_albumentations = albumentations.Compose([albumentations.InvertImg(p=1)])
jitter_and_noise = albumentations.Compose([albumentations.ColorJitter(p=1), albumentations.GaussNoise(p=1)])


def test_a_custom_transform_is_applied_last_with_the_seed_of_the_view() -> None:
    def render(name: str, epoch: int = 0) -> np.ndarray:
        transform = load_custom_transform(name, AllowedCode((__name__,)))
        config = ViewsConfig.model_validate({"crop_size": 24, "custom_transform": name})
        views = draw_views(2, 32, config, seed=0, epoch=epoch, custom_transform=transform)
        return render_one(_draw_image(), views, 1)

    plain = render("")
    for name in ("invert", "invert_with_albumentations"):
        np.testing.assert_array_equal(render(f"{__name__}:{name}"), 255 - plain)
    noise = render(f"{__name__}:draw_noise")
    np.testing.assert_array_equal(noise, render(f"{__name__}:draw_noise"))
    assert not np.array_equal(noise, render(f"{__name__}:draw_noise", epoch=1))


def test_rotations_are_uniform_up_to_the_given_degrees_in_both_directions() -> None:
    matrices = _draw(4000, rotate=30).geometry
    degrees = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert np.quantile(degrees, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([-30, -15, 0, 15, 30], abs=1)
    assert np.abs(degrees).max() <= 30 + 1e-4
