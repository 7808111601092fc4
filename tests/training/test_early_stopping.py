"""The best epoch, the plateau schedule and early stopping, from the selection metric of past epochs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import UsageError
from parfocal.schema import TrainingConfig
from parfocal.training.early_stopping import early_stop, is_better, plateau_reductions, validate_select


def test_a_lower_loss_and_a_higher_metric_are_better_and_a_defined_value_beats_an_undefined_one() -> None:
    assert is_better(0.4, 0.5, "loss")
    assert not is_better(0.5, 0.5, "accuracy")
    assert is_better(0.6, 0.5, "accuracy")
    assert is_better(0.1, None, "auc")
    assert not is_better(None, 0.5, "auc")


@pytest.mark.parametrize("select", ["loss", "auc"])
def test_nan_is_never_the_best(select: str) -> None:
    assert not is_better(math.nan, 0.5, select)
    assert not is_better(math.nan, None, select)
    assert is_better(0.1, math.nan, select)


@pytest.mark.parametrize("select", ["kappa", "quadratic_kappa", "auc"])
def test_a_selection_metric_that_is_undefined_on_validation_is_rejected_with_the_missing_classes(select: str) -> None:
    with pytest.raises(UsageError, match=rf"select={select} needs two classes .* no image of b, c\. Use select="):
        validate_select(select, {"a": 5, "b": 0, "c": 0})
    validate_select(select, {"a": 5, "b": 1, "c": 0})
    validate_select("balanced_accuracy", {"a": 5, "b": 0, "c": 0})


@pytest.mark.parametrize("select", ["accuracy", "loss"])
@given(values=st.lists(st.integers(0, 9).map(lambda tenths: tenths / 10), max_size=40), lr_step=st.integers(1, 5))
def test_the_plateau_schedule_reduces_where_pytorchs_does(select: str, values: list[float], lr_step: int) -> None:
    config = TrainingConfig(schedule="plateau", lr_gamma=0.5, lr_step=lr_step, select=select)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    mode = "min" if select == "loss" else "max"
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, 0.5, lr_step - 1, threshold=0, min_lr=0, eps=0
    )
    for epoch, value in enumerate(values):
        scheduler.step(value)
        assert 0.5 ** plateau_reductions(values[: epoch + 1], config) == optimizer.param_groups[0]["lr"]


def test_undefined_values_count_as_no_improvement_and_other_schedules_have_no_reductions() -> None:
    config = TrainingConfig(schedule="plateau", lr_step=2)
    assert plateau_reductions([None, None, 0.5, None, None], config) == 2
    assert plateau_reductions([0.5] * 30, TrainingConfig(lr_step=2)) == 0


def test_training_stops_after_patience_epochs_without_a_new_best_and_never_at_patience_0() -> None:
    config = TrainingConfig(patience=3)
    assert [early_stop(n_epochs, 4, config) for n_epochs in (4, 5, 6, 7)] == [False, False, False, True]
    assert not early_stop(500, 1, TrainingConfig())
