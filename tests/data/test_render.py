"""A batch rendered where its pixels lie looks as the CPU's renderer shows it."""

import numpy as np
import pytest
import torch

from parfocal.data.augment import draw_views, eval_views
from parfocal.data.loader import BatchLoader
from parfocal.data.render import render, render_batch
from parfocal.schema import TrainingConfig, ViewsConfig
from tests.data.test_augment import EVERYTHING

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _smooth(count: int, size: int) -> np.ndarray:
    axis = np.linspace(0, 6, size)
    wave = 120 + 60 * np.sin(axis)[:, None, None] + 50 * np.cos(axis)[None, :, None] * np.array([1, 0.5, -1])
    return np.stack([np.roll(wave, 7 * number, axis=0) for number in range(count)]).astype(np.uint8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "settings", [{"crop_size": 96}, {**EVERYTHING, "crop_size": 96}, {"crop_size": 96, "erase": 0.7}]
)
def test_both_renderers_agree_within_two_grey_levels(device: str, settings: dict[str, object]) -> None:
    pixels, part = _smooth(12, 128), ViewsConfig.model_validate(settings)
    views = draw_views(12, 128, part, seed=0, epoch=0)
    expected = np.empty((12, 96, 96, 3), np.uint8)
    for number in range(12):
        render(pixels[number], views[number], expected[number])
    seen = render_batch(torch.from_numpy(pixels).to(device), views, np.arange(12)).cpu().numpy()
    assert np.abs(seen.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("device", DEVICES)
def test_looking_straight_is_exact(device: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    seen = render_batch(torch.from_numpy(pixels).to(device), eval_views(3, 40, ViewsConfig(crop_size=24)), np.arange(3))
    np.testing.assert_array_equal(seen.cpu(), pixels[:, 8:32, 8:32])


@pytest.mark.parametrize("device", DEVICES)
def test_batches_on_a_device_are_those_of_the_processor(device: str) -> None:
    pixels, places = _smooth(20, 64), np.arange(20)
    part = ViewsConfig(crop_size=48, rotate=30, flip_horizontal=0.5, brightness=0.3)

    def batches(resident: torch.device | None) -> BatchLoader:
        return BatchLoader(pixels, places, places, part, TrainingConfig(), 6, device=resident)

    for one, other in zip(batches(None).train_batches(1), batches(torch.device(device)).train_batches(1), strict=True):
        assert one[1].tolist() == other[1].tolist()
        assert np.abs(one[0].numpy().astype(int) - other[0].cpu().numpy()).mean() < 2
