"""`Images`, the data set for loops of one's own, shows what the trainer sees."""

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


def test_it_is_a_dataset_of_the_labs_kind(cells: Path, small_recipe: Recipe) -> None:
    images = parfocal.ImageDataset(cells, "train", small_recipe)
    pixels, label = images[3]
    assert len(images) == 48
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == torch.float32
    assert 0 <= pixels.min() < pixels.max() <= 1
    assert label == images.labels[3]
    batch, labels = next(iter(DataLoader(images, batch_size=6)))
    assert batch.shape == (6, 3, 32, 32)
    assert labels.tolist() == images.labels[:6].tolist()


def test_training_looks_anew_each_epoch_and_alike_in_one(cells: Path, small_recipe: Recipe) -> None:
    images = parfocal.ImageDataset(cells, "train", small_recipe)
    first = images[0][0]
    assert first.equal(images[0][0])
    images.epoch = 1
    assert not first.equal(images[0][0])
    images.epoch = 0
    assert first.equal(images[0][0])


def test_validation_shows_the_same_pixels_as_the_trainers_batches(cells: Path, small_recipe: Recipe) -> None:
    images = parfocal.ImageDataset(cells, "valid", small_recipe)
    store, table = prepare(images.table, small_recipe.images), images.table
    places = store.get_positions(table)[table.get_positions("valid")]
    batches = BatchLoader(
        store.pixels, places, table.get_labels("valid"), small_recipe.views, small_recipe.training, 64
    )
    pixels, _ = next(iter(batches.eval_batches()))
    mine = torch.stack([images[number][0] for number in range(len(images))])
    np.testing.assert_array_equal((mine * 255).round().numpy(), pixels.permute(0, 3, 1, 2).numpy())


def test_a_test_list_is_a_mode_and_keeps_its_order(cells: Path, small_recipe: Recipe) -> None:
    lines = (cells / "resnet_50_test.csv").read_text().splitlines()
    (cells / "resnet_50_test.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    images = parfocal.ImageDataset(cells, "resnet_50_test", small_recipe)
    assert images.ids == tuple(lines[:0:-1])


def test_an_unknown_mode_is_refused_before_any_work(cells: Path, small_recipe: Recipe) -> None:
    with pytest.raises(UsageError, match="Did you mean 'valid'"):
        parfocal.ImageDataset(cells, "valdi", small_recipe)
    assert not get_stores_folder().exists() or not list(get_stores_folder().iterdir())


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_a_bad_image_is_refused_or_left_out_as_the_recipe_says(cells: Path, fault: str) -> None:
    image = cells / "new_dataset" / "test" / "2.bmp"
    code = {"missing": "missing_files", "corrupt": "unreadable_images"}[fault]
    image.unlink() if fault == "missing" else image.write_bytes(b"")
    for mode in ("train", "test"):
        with pytest.raises(ParfocalError, match=rf"test/2\.bmp.*allow={code}"):
            parfocal.ImageDataset(cells, mode, load_recipe(None, **SMALL_RECIPE))
    for mode in ("test", "resnet_18_test"):
        images = parfocal.ImageDataset(cells, mode, load_recipe(None, **SMALL_RECIPE, allow=[code]))
        assert images.ids == tuple(f"./new_dataset/test/{number}.bmp" for number in range(12) if number != 2)
        assert len([images[number] for number in range(len(images))]) == 11


def test_what_training_refuses_is_refused_here_too(cells: Path) -> None:
    rows = pd.read_csv(cells / "patients.csv")
    rows.loc[rows["Path"] == "./new_dataset/valid/0.bmp", "patient"] = "train-0-0"
    rows.to_csv(cells / "patients.csv", index=False)
    with pytest.raises(ParfocalError, match="allow=patient_overlap"):
        parfocal.ImageDataset(cells, "valid", load_recipe(None, **SMALL_RECIPE))
    assert (
        len(parfocal.ImageDataset(cells, "valid", load_recipe(None, **SMALL_RECIPE, allow=["patient_overlap"]))) == 16
    )
