"""What past epochs decide: the best of them, the plateau schedule and the early end."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import UsageError
from parfocal.schema import TrainingConfig
from parfocal.training.early_stopping import early_stop, is_better, plateau_reductions, validate_select


def test_figures_that_are_lower_or_unknown_are_chosen_rightly() -> None:
    assert is_better(0.4, 0.5, "loss")
    assert not is_better(0.5, 0.5, "accuracy")
    assert is_better(0.6, 0.5, "accuracy")
    assert is_better(0.1, None, "auc")
    assert not is_better(None, 0.5, "auc")


@pytest.mark.parametrize("select", ["loss", "auc"])
def test_what_is_no_number_is_never_the_best(select: str) -> None:
    assert not is_better(math.nan, 0.5, select)
    assert not is_better(math.nan, None, select)
    assert is_better(0.1, math.nan, select)


@pytest.mark.parametrize("select", ["kappa", "quadratic_kappa", "auc"])
def test_a_figure_that_validation_cannot_tell_is_refused_with_the_classes_that_it_lacks(select: str) -> None:
    with pytest.raises(UsageError, match=rf"select={select} needs two classes .* no image of b, c\. Say select="):
        validate_select(select, {"a": 5, "b": 0, "c": 0})
    validate_select(select, {"a": 5, "b": 1, "c": 0})
    validate_select("balanced_accuracy", {"a": 5, "b": 0, "c": 0})


@pytest.mark.parametrize("select", ["accuracy", "loss"])
@given(values=st.lists(st.integers(0, 9).map(lambda tenths: tenths / 10), max_size=40), after=st.integers(1, 5))
def test_plateau_falls_where_pytorchs_does(select: str, values: list[float], after: int) -> None:
    part = TrainingConfig(schedule="plateau", lr_gamma=0.5, lr_step=after, select=select)  # type: ignore[arg-type]
    optimise = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    mode = "min" if select == "loss" else "max"
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimise, mode, 0.5, after - 1, threshold=0, min_lr=0, eps=0)
    for number, value in enumerate(values):
        theirs.step(value)
        assert 0.5 ** plateau_reductions(values[: number + 1], part) == optimise.param_groups[0]["lr"]


def test_unknown_figures_wait_and_other_schedules_never_fall() -> None:
    part = TrainingConfig(schedule="plateau", lr_step=2)
    assert plateau_reductions([None, None, 0.5, None, None], part) == 2
    assert plateau_reductions([0.5] * 30, TrainingConfig(lr_step=2)) == 0


def test_patience_ends_after_as_many_epochs_as_it_says_and_zero_never_does() -> None:
    assert [early_stop(done, 4, TrainingConfig(patience=3)) for done in (4, 5, 6, 7)] == [False, False, False, True]
    assert not early_stop(500, 1, TrainingConfig())
