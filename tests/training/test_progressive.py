"""Progressive resizing: the sizes of the epochs, what small views show, and resuming within an epoch."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import parfocal
from parfocal.data.loader import scale_views
from parfocal.data.warp import resize, resize_batch
from parfocal.errors import UsageError
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import ViewsConfig
from parfocal.training.progressive import choose_crop_size
from tests.cells import SMALL_RECIPE


def test_without_a_start_size_every_epoch_has_the_full_size() -> None:
    assert {choose_crop_size(ViewsConfig(crop_size=200), epoch, 5) for epoch in range(5)} == {200}


@given(st.integers(8, 200), st.integers(8, 200), st.integers(2, 60))
def test_the_size_grows_from_the_first_epoch_to_the_last(start: int, growth: int, n_epochs: int) -> None:
    config = ViewsConfig(start_size=start, crop_size=start + growth)
    sizes = [choose_crop_size(config, epoch, n_epochs) for epoch in range(n_epochs)]
    assert sizes[0] == start
    assert sizes[-1] == start + growth
    assert sizes == sorted(sizes)


def test_smaller_views_show_the_same_field_of_view() -> None:
    config, size = scale_views(ViewsConfig(crop_size=96, crop_padding=8), 128, 48)
    assert (config.crop_size, config.crop_padding, size) == (48, 4, 64)
    assert scale_views(config, 64, None) == (config, 64)


def test_shrunken_images_are_antialiased_like_images_prepared_at_that_size() -> None:
    original = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    stored = cv2.resize(original, (192, 192), interpolation=cv2.INTER_AREA)
    prepared = cv2.resize(original, (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(resize(stored, 96).astype(int) - prepared).max() <= 1
    assert resize(stored, 192) is stored


def test_a_batch_is_shrunken_like_its_images() -> None:
    smooth = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8), (0, 0), 6)
    (resized,) = resize_batch(torch.from_numpy(smooth[None]), 40).numpy()
    assert np.abs(resized.astype(int) - resize(smooth, 40)).mean() < 1


def test_a_start_size_above_the_crop_size_is_refused() -> None:
    with pytest.raises(UsageError, match="start_size=64 is larger than crop_size=32"):
        load_recipe(None, size=32, crop_size=32, start_size=64)


def test_the_history_names_the_size_of_each_epoch_and_the_best_is_of_the_largest(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "start_size": 16})
    assert run.read_history()["crop_size"].tolist() == [16, 32, 32]
    assert run.read_metrics()["best_epoch"] > 1
