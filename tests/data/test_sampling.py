"""Which images an epoch shows: exact counts of each class, each image's turn, the same for the same seed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.sampling import assign_view_indices, compute_samples_per_class, draw_epoch_order
from parfocal.errors import UsageError
from parfocal.parts import TrainingConfig

# The grades of a hundred thousandth of the documents' photographs.
COUNTS = np.array([735, 69, 150, 25, 21])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS))
WAYS: dict[str, dict[str, Any]] = {
    "natural": {},
    "balanced": {},
    "square_root": {},
    "decay": {"epochs": 5},
    "factors": {"factors": (1, 7, 7, 7, 7)},
    "extra": {"extra": 0.5},
}


def _part(sampling: str, **settings: Any) -> TrainingConfig:
    return TrainingConfig(sampling=sampling, **{**WAYS[sampling], **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", WAYS)
@pytest.mark.parametrize("epoch", [0, 4])
def test_an_epoch_shows_what_it_says(sampling: str, epoch: int) -> None:
    part = _part(sampling)
    order = draw_epoch_order(LABELS, part, seed=0, epoch=epoch)
    np.testing.assert_array_equal(
        np.bincount(LABELS[order], minlength=5), compute_samples_per_class(COUNTS, part, epoch)
    )
    assert len(order) == len(draw_epoch_order(LABELS, part, seed=0, epoch=0))
    np.testing.assert_array_equal(order, draw_epoch_order(LABELS, part, seed=0, epoch=epoch))
    assert not np.array_equal(order, draw_epoch_order(LABELS, part, seed=0, epoch=epoch + 1))
    assert not np.array_equal(order, draw_epoch_order(LABELS, part, seed=1, epoch=epoch))


def test_the_counts_of_each_way() -> None:
    assert compute_samples_per_class(COUNTS, _part("balanced"), 0).tolist() == [200] * 5
    assert compute_samples_per_class(COUNTS, _part("factors"), 0).tolist() == [735, 483, 1050, 175, 147]
    roots = compute_samples_per_class(COUNTS, _part("square_root"), 0)
    np.testing.assert_allclose(roots / roots.sum(), np.sqrt(COUNTS) / np.sqrt(COUNTS).sum(), atol=0.001)
    assert compute_samples_per_class(COUNTS, _part("decay"), 0).tolist() == [200] * 5
    assert compute_samples_per_class(COUNTS, _part("decay"), 4).tolist() == COUNTS.tolist()
    assert compute_samples_per_class(COUNTS, _part("decay"), 2)[0] == pytest.approx((200 + 735) / 2, abs=1)


def test_half_as_long_again_and_the_extra_from_the_rare_grades() -> None:
    counts = compute_samples_per_class(COUNTS, _part("extra"), 0)
    assert counts.sum() == 1500
    assert counts[0] == 735
    np.testing.assert_allclose((counts - COUNTS)[1:] / 500, COUNTS[1:] / COUNTS[1:].sum(), atol=0.002)


@pytest.mark.parametrize("sampling", WAYS)
def test_no_image_has_a_second_turn_before_its_class_had_a_first(sampling: str) -> None:
    order = draw_epoch_order(LABELS, _part(sampling), seed=0, epoch=0)
    turns = np.bincount(order, minlength=len(LABELS))
    for label in range(5):
        assert np.ptp(turns[label == LABELS]) <= 1


def test_a_factor_for_each_class_is_needed() -> None:
    with pytest.raises(UsageError, match="factors has 2 numbers, train has 5 classes"):
        draw_epoch_order(LABELS, _part("factors", factors=(1, 2)), seed=0, epoch=0)


@given(order=st.lists(st.integers(0, 9), max_size=40))
def test_a_repeated_image_is_looked_at_anew_and_a_first_one_as_ever(order: list[int]) -> None:
    views = assign_view_indices(np.array(order, dtype=int), 10)
    assert len(set(views.tolist())) == len(order)
    for place, row in enumerate(order):
        assert (views[place] == row) == (order.index(row) == place)
