"""`ImageDataset`, for custom training loops, shows the same images as the trainer."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

import parfocal
from parfocal.data.loader import BatchLoader
from parfocal.data.store import get_stores_folder, prepare
from parfocal.errors import ParfocalError, UsageError
from parfocal.recipe import Recipe, load_recipe
from tests.cells import SMALL_RECIPE


def test_it_is_a_pytorch_dataset_of_float_tensors_and_labels(cells: Path, small_recipe: Recipe) -> None:
    dataset = parfocal.ImageDataset(cells, "train", small_recipe)
    pixels, label = dataset[3]
    assert len(dataset) == 48
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == torch.float32
    assert 0 <= pixels.min() < pixels.max() <= 1
    assert label == dataset.labels[3]
    batch, labels = next(iter(DataLoader(dataset, batch_size=6)))
    assert batch.shape == (6, 3, 32, 32)
    assert labels.tolist() == dataset.labels[:6].tolist()


def test_training_images_change_with_the_epoch_and_only_with_it(cells: Path, small_recipe: Recipe) -> None:
    dataset = parfocal.ImageDataset(cells, "train", small_recipe)
    pixels, _ = dataset[0]
    assert pixels.equal(dataset[0][0])
    dataset.epoch = 1
    assert not pixels.equal(dataset[0][0])
    dataset.epoch = 0
    assert pixels.equal(dataset[0][0])


def test_validation_shows_the_same_pixels_as_the_batches_of_the_trainer(cells: Path, small_recipe: Recipe) -> None:
    dataset = parfocal.ImageDataset(cells, "valid", small_recipe)
    table = dataset.table
    store = prepare(table, small_recipe.images)
    indices = table.find_positions_in(store.index)[table.get_positions("valid")]
    labels = table.get_labels("valid")
    loader = BatchLoader(store.pixels, indices, labels, small_recipe.views, small_recipe.training, 64)
    expected, _ = next(iter(loader.eval_batches()))
    pixels = torch.stack([dataset[index][0] for index in range(len(dataset))])
    np.testing.assert_array_equal((pixels * 255).round().numpy(), expected.permute(0, 3, 1, 2).numpy())


def test_a_submission_list_is_a_mode_and_keeps_its_order(cells: Path, small_recipe: Recipe) -> None:
    lines = (cells / "resnet_50_test.csv").read_text().splitlines()
    (cells / "resnet_50_test.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    dataset = parfocal.ImageDataset(cells, "resnet_50_test", small_recipe)
    assert dataset.ids == tuple(lines[:0:-1])


def test_without_truth_the_test_mode_returns_images_alone(cells: Path, small_recipe: Recipe) -> None:
    (cells / "test_truth.csv").unlink()
    for mode in ("test", "resnet_18_test"):
        dataset = parfocal.ImageDataset(cells, mode, small_recipe)
        assert isinstance(dataset[0], torch.Tensor)
        assert set(dataset.labels) == {-1}
        batch = next(iter(DataLoader(dataset, batch_size=4)))
        assert batch.shape == (4, 3, 32, 32)
    pixels, label = parfocal.ImageDataset(cells, "valid", small_recipe)[1]
    assert (pixels.shape, label) == ((3, 32, 32), 1)


def test_an_unknown_mode_is_rejected_before_any_work(cells: Path, small_recipe: Recipe) -> None:
    with pytest.raises(UsageError, match="Did you mean 'valid'"):
        parfocal.ImageDataset(cells, "valdi", small_recipe)
    assert not get_stores_folder().exists() or not list(get_stores_folder().iterdir())


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_a_bad_image_is_rejected_or_left_out_as_the_recipe_says(cells: Path, fault: str) -> None:
    path = cells / "new_dataset" / "test" / "2.bmp"
    code = {"missing": "missing_files", "corrupt": "unreadable_images"}[fault]
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    for mode in ("train", "test"):
        with pytest.raises(ParfocalError, match=rf"test/2\.bmp.*allow={code}"):
            parfocal.ImageDataset(cells, mode, load_recipe(None, **SMALL_RECIPE))
    for mode in ("test", "resnet_18_test"):
        dataset = parfocal.ImageDataset(cells, mode, load_recipe(None, **SMALL_RECIPE, allow=[code]))
        assert dataset.ids == tuple(f"./new_dataset/test/{number}.bmp" for number in range(12) if number != 2)
        assert len([dataset[index] for index in range(len(dataset))]) == 11


def test_what_training_rejects_is_rejected_here_too(cells: Path) -> None:
    rows = pd.read_csv(cells / "patients.csv")
    rows.loc[rows["Path"] == "./new_dataset/valid/0.bmp", "patient"] = "train-0-0"
    rows.to_csv(cells / "patients.csv", index=False)
    with pytest.raises(ParfocalError, match="allow=patient_overlap"):
        parfocal.ImageDataset(cells, "valid", load_recipe(None, **SMALL_RECIPE))
    recipe = load_recipe(None, **SMALL_RECIPE, allow=["patient_overlap"])
    assert len(parfocal.ImageDataset(cells, "valid", recipe)) == 16
