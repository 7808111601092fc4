"""The batch size that batch_size=auto resolves to."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import parfocal
from parfocal.data.table import Table, build_rows
from parfocal.errors import ParfocalError, UsageError
from parfocal.recipe import Recipe, load_recipe
from parfocal.training.batch_size import largest_batch_size, resident_pixel_bytes, resolve_batch_size
from tests.cells import SMALL_RECIPE


@given(memory=st.floats(0, 1e11), fixed=st.floats(0, 1e9), per_image=st.floats(1e5, 1e9))
def test_the_batch_size_fits_and_the_next_larger_does_not(memory: float, fixed: float, per_image: float) -> None:
    batch_size = largest_batch_size(memory, fixed + 8 * per_image, fixed + 16 * per_image)
    assert batch_size % 8 == 0
    assert 0 <= batch_size <= 256
    assert batch_size == 0 or fixed + batch_size * per_image <= memory * 1.0001
    assert batch_size == 256 or fixed + (batch_size + 8) * per_image >= memory * 0.9999


@pytest.fixture
def gpu_fabric(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for a fabric of four GPUs of 1 GB each, where an image takes 10 MB in training."""
    last_batch_size = 0

    def measure_peak() -> int:
        return 10_000_000 * last_batch_size

    def train_step(learner: Any, batches: Any, *_: Any) -> None:
        nonlocal last_batch_size
        assert learner.fabric.world_size == 1
        last_batch_size = len(batches[0])

    monkeypatch.setattr("parfocal.training.batch_size.train_step", train_step)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", measure_peak)
    return SimpleNamespace(device=torch.device("cuda"), world_size=4)


def _table(train: int, valid: int, test: int) -> Table:
    splits = ["train"] * train + ["valid"] * valid + ["test"] * test
    names = [str(index) for index in range(len(splits))]
    labels = [index % 2 for index in range(len(splits))]
    rows = build_rows(names, [Path(name) for name in names], labels, splits, names)
    return Table(rows, ("no", "yes"), ("0", "1"), "synthetic")


def _auto(**changes: Any) -> Recipe:
    """Return a recipe with batch_size=auto, whose images have 30,000 bytes."""
    return load_recipe(None, **{**SMALL_RECIPE, "batch_size": "auto", "size": 100, **changes})


def test_each_of_several_gpus_gets_the_batch_size_measured_on_a_single_one(gpu_fabric: Any) -> None:
    assert resolve_batch_size(_auto(gpu_cache=0), gpu_fabric, _table(10, 2, 0)).training.batch_size == 4 * 80


@pytest.mark.parametrize(
    ("split_sizes", "changes", "cached_bytes"),
    [
        ((10_000, 2_000, 0), {}, 360_000_000),
        ((20_000, 2_000, 0), {}, 60_000_000),
        ((10_000, 2_000, 1_000), {"test_curve": True}, 390_000_000),
        ((10_000, 2_000, 1_000), {"custom_transform": "transforms:jitter"}, 60_000_000),
        ((10_000, 2_000, 0), {"gpu_cache": 0}, 0),
    ],
)
def test_pixels_cached_in_gpu_memory_are_taken_into_account(
    gpu_fabric: Any, split_sizes: tuple[int, int, int], changes: dict[str, Any], cached_bytes: int
) -> None:
    table = _table(*split_sizes)
    assert resident_pixel_bytes(_auto(**changes), table, 1_000_000_000) == cached_bytes
    batch_size = resolve_batch_size(_auto(**changes), gpu_fabric, table).training.batch_size
    assert batch_size == 4 * ((850_000_000 - cached_bytes) // 10_000_000 // 8 * 8)


def test_cached_pixels_that_leave_no_memory_are_named_in_the_error(gpu_fabric: Any) -> None:
    message = r"images fit on the device in addition to 0\.8 GB of cached pixels\. .* or gpu_cache=0\."
    with pytest.raises(ParfocalError, match=message):
        resolve_batch_size(_auto(gpu_cache=0.9), gpu_fabric, _table(20_000, 8_000, 0))


def test_on_a_cpu_it_is_32_and_a_resumed_run_keeps_it(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "batch_size": "auto", "epochs": 1}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert run.recipe.training.batch_size == 32
    parfocal.train(cells, out=tmp_path / "runs", resume=True, **changes)


def test_other_words_than_auto_are_rejected() -> None:
    with pytest.raises(UsageError, match=r"training\.batch_size=many"):
        load_recipe(None, batch_size="many")
