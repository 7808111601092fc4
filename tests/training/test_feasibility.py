"""What cannot train is refused by its rows, with the smallest change that works, before a run is begun."""

from pathlib import Path
from typing import Any

import pytest
import torch

from parfocal.data.table import Table, build_rows
from parfocal.errors import UsageError
from parfocal.models import resnet
from parfocal.recipe import load_recipe
from parfocal.training.feasibility import validate_feasible

POINT: dict[str, Any] = {"model": "resnet18", "crop_size": 32}
"""A network whose last map is one pixel."""


def _table(images: int) -> Table:
    names = [str(number) for number in range(images)]
    labels = [number % 2 for number in range(images)]
    rows = build_rows(names, [Path(name) for name in names], labels, ["train"] * images, names)
    return Table(rows, ("no", "yes"), ("0", "1"), "drawn")


@pytest.mark.parametrize(
    ("images", "changes", "said"),
    [
        (
            7995,
            {"batch_size": 8, "devices": 8},
            r"batch_size=8 splits 7,995 images into batches of 7 .*is batch_size=9; or use fewer",
        ),
        (
            47,
            {"batch_size": 2, "nodes": 2},
            r"batches of 1 and more; each of 2 processes .* smallest .* is batch_size=3;",
        ),
        (3, {"batch_size": 8, "devices": 4}, "each of 4 processes needs an image of every batch. Instead, use fewer"),
        (48, {"sampling": "factors", "factors": [1, 2, 3]}, "factors has 3 numbers, train has 2 classes"),
        (48, {"sampling": "factors", "factors": [0.001, 0]}, "factors=0.001, 0.0 show no image of train"),
        (
            48,
            {**POINT, "batch_size": 1},
            r"with crop_size=32 the last map is 1×1.*The smallest batch that works is batch_size=2; or",
        ),
        (
            49,
            {**POINT, "batch_size": 2},
            r"batches of 1 and more; with crop_size=32 .*batch_size=3; or choose a larger crop",
        ),
        (48, {**POINT, "batch_size": 2, "devices": 2}, r"two images on each device.*is batch_size=4;"),
        (1, {**POINT, "batch_size": 1}, "Instead, choose a larger crop"),
    ],
)
def test_what_cannot_train_is_refused(images: int, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        validate_feasible(load_recipe(None, **changes), _table(images))


@pytest.mark.parametrize(
    ("images", "changes"),
    [
        (7995, {"batch_size": 9, "devices": 8}),
        (7995, {"batch_size": 8, "devices": 7, "crop_size": 224}),
        (48, {**POINT, "batch_size": 2}),
        (48, {**POINT, "batch_size": 2, "devices": 2, "sync_batchnorm": True}),
        (48, {**POINT, "batch_size": 1, "crop_size": 40}),
        (48, {**POINT, "batch_size": 1, "stem": "small"}),
        (48, {**POINT, "batch_size": 1, "init": "imagenet", "freeze": "head"}),
        (48, {"sampling": "factors", "factors": [1, 0]}),
    ],
)
def test_what_can_train_is_not(images: int, changes: dict[str, Any]) -> None:
    validate_feasible(load_recipe(None, **changes), _table(images))


def test_one_image_on_a_map_of_one_pixel_is_what_norms_cannot_take() -> None:
    network = resnet.build_resnet("resnet18", n_classes=2).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.rand(1, 3, 32, 32))
    assert network(torch.rand(1, 3, 33, 33)).shape == (1, 2)
