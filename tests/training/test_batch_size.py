"""How many images a step has where the recipe says auto."""

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


@given(memory=st.floats(0, 1e11), fixed=st.floats(0, 1e9), each=st.floats(1e5, 1e9))
def test_what_is_chosen_fits_and_the_next_larger_does_not(memory: float, fixed: float, each: float) -> None:
    batch = largest_batch_size(memory, fixed + 8 * each, fixed + 16 * each)
    assert batch % 8 == 0
    assert 0 <= batch <= 256
    assert batch == 0 or fixed + batch * each <= memory * 1.0001
    assert batch == 256 or fixed + (batch + 8) * each >= memory * 0.9999


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four cards of 1 GB each, of which nothing but the device is there; an image takes 10 MB in training."""
    seen: list[int] = []

    def peak() -> int:
        return 10_000_000 * seen.pop()

    def step(learner: Any, group: Any, *_: Any) -> None:
        assert learner.fabric.world_size == 1
        seen[:] = [len(group[0])]

    monkeypatch.setattr("parfocal.training.batch_size.train_step", step)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak)
    return SimpleNamespace(device=torch.device("cuda"), world_size=4)


def _table(train: int, valid: int, test: int) -> Table:
    splits = ["train"] * train + ["valid"] * valid + ["test"] * test
    names = [str(number) for number in range(len(splits))]
    rows = build_rows(
        names, [Path(name) for name in names], [number % 2 for number in range(len(names))], splits, names
    )
    return Table(rows, ("no", "yes"), ("0", "1"), "drawn")


def _auto(**changes: Any) -> Recipe:
    """Return a recipe of images of 30,000 bytes."""
    return load_recipe(None, **{**SMALL_RECIPE, "batch_size": "auto", "size": 100, **changes})


def test_each_of_several_cards_takes_what_one_alone_was_measured_to_take(card: Any) -> None:
    assert resolve_batch_size(_auto(gpu_cache=0), card, _table(10, 2, 0)).training.batch_size == 4 * 80


@pytest.mark.parametrize(
    ("counts", "changes", "kept"),
    [
        ((10_000, 2_000, 0), {}, 360_000_000),
        ((20_000, 2_000, 0), {}, 60_000_000),
        ((10_000, 2_000, 1_000), {"test_curve": True}, 390_000_000),
        ((10_000, 2_000, 1_000), {"custom_transform": "tests.data.test_augment:jitter_and_noise"}, 60_000_000),
        ((10_000, 2_000, 0), {"gpu_cache": 0}, 0),
    ],
)
def test_pixels_that_stay_on_the_card_have_their_room(
    card: Any, counts: tuple[int, int, int], changes: dict[str, Any], kept: int
) -> None:
    table = _table(*counts)
    assert resident_pixel_bytes(_auto(**changes), table, 1_000_000_000) == kept
    assert resolve_batch_size(_auto(**changes), card, table).training.batch_size == 4 * (
        (850_000_000 - kept) // 10_000_000 // 8 * 8
    )


def test_pixels_that_leave_no_room_are_named(card: Any) -> None:
    with pytest.raises(ParfocalError, match=r"images fit on the device beside 0\.8 GB of pixels\. .* or gpu_cache=0\."):
        resolve_batch_size(_auto(gpu_cache=0.9), card, _table(20_000, 8_000, 0))


def test_on_a_processor_it_is_32_and_going_on_keeps_it(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "batch_size": "auto", "epochs": 1}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert run.recipe.training.batch_size == 32
    parfocal.train(cells, out=tmp_path / "runs", resume=True, **changes)


def test_other_words_than_auto_are_refused() -> None:
    with pytest.raises(UsageError, match=r"training\.batch=many"):
        load_recipe(None, batch_size="many")
