"""A batch rendered on a device looks like the images rendered singly on the CPU."""

import numpy as np
import pytest
import torch

from parfocal.data.augment import draw_views, eval_views
from parfocal.data.loader import BatchLoader
from parfocal.data.warp import render_batch, render_one
from parfocal.recipe_schema import TrainingConfig, ViewsConfig
from tests.data.test_augment import ALL_AUGMENTATIONS

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _draw_smooth_images(n_images: int, size: int) -> np.ndarray:
    axis = np.linspace(0, 6, size)
    wave = 120 + 60 * np.sin(axis)[:, None, None] + 50 * np.cos(axis)[None, :, None] * np.array([1, 0.5, -1])
    return np.stack([np.roll(wave, 7 * number, axis=0) for number in range(n_images)]).astype(np.uint8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "settings", [{"crop_size": 96}, {**ALL_AUGMENTATIONS, "crop_size": 96}, {"crop_size": 96, "erase": 0.7}]
)
def test_both_renderers_agree_within_two_gray_levels(device: str, settings: dict[str, object]) -> None:
    images = _draw_smooth_images(12, 128)
    views = draw_views(12, 128, ViewsConfig.model_validate(settings), seed=0, epoch=0)
    expected = np.stack([render_one(image, views, index) for index, image in enumerate(images)])
    rendered = render_batch(torch.from_numpy(images).to(device), views, np.arange(12)).cpu().numpy()
    assert np.abs(rendered.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("device", DEVICES)
def test_the_center_crop_is_exact(device: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    views = eval_views(3, 40, ViewsConfig(crop_size=24))
    rendered = render_batch(torch.from_numpy(images).to(device), views, np.arange(3))
    np.testing.assert_array_equal(rendered.cpu(), images[:, 8:32, 8:32])


@pytest.mark.parametrize("device", DEVICES)
def test_batches_rendered_on_a_device_are_those_rendered_in_threads(device: str) -> None:
    images = _draw_smooth_images(20, 64)
    rows = np.arange(20)
    config = ViewsConfig(crop_size=48, rotate=30, flip_horizontal=0.5, brightness=0.3)
    in_threads = BatchLoader(images, rows, rows, config, TrainingConfig(), 6)
    on_device = BatchLoader(images, rows, rows, config, TrainingConfig(), 6, device=torch.device(device))
    batches = zip(in_threads.train_batches(1), on_device.train_batches(1), strict=True)
    for (pixels, labels), (device_pixels, device_labels) in batches:
        assert labels.tolist() == device_labels.tolist()
        assert np.abs(pixels.numpy().astype(int) - device_pixels.cpu().numpy()).mean() < 2
