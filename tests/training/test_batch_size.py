"""How many images a step has where the recipe says auto."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import parfocal
from parfocal.errors import UsageError
from parfocal.recipe import recipe
from parfocal.training.batch_size import fitting
from tests.cells import SMALL


@given(memory=st.floats(0, 1e11), fixed=st.floats(0, 1e9), each=st.floats(1e5, 1e9))
def test_what_is_chosen_fits_and_the_next_larger_does_not(memory: float, fixed: float, each: float) -> None:
    batch = fitting(memory, fixed + 8 * each, fixed + 16 * each)
    assert batch % 8 == 0
    assert 0 <= batch <= 256
    assert batch == 0 or fixed + batch * each <= memory * 1.0001
    assert batch == 256 or fixed + (batch + 8) * each >= memory * 0.9999


def test_on_a_processor_it_is_32_and_going_on_keeps_it(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "batch": "auto", "epochs": 1}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert run.recipe.training.batch == 32
    parfocal.train(cells, out=tmp_path / "runs", resume=True, **changes)


def test_other_words_than_auto_are_refused() -> None:
    with pytest.raises(UsageError, match=r"training\.batch=many"):
        recipe(None, batch="many")
