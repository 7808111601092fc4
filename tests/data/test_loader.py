"""Batches: the same bytes whatever the threads, every image once, and none left too small."""
# MERGED: """Which images an epoch shows: exact counts of each class, each image's turn, the same for the same seed."""

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.loader import (
    BatchLoader,
    assign_view_indices,
    check_batch_covers_processes,
    compute_samples_per_class,
    draw_epoch_order,
)
from parfocal.errors import UsageError
from parfocal.schema import TrainingConfig, ViewsConfig

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
VIEWS = ViewsConfig(crop_size=12, rotate=180, flip_horizontal=0.5, zoom=0.2, brightness=0.3, hue=0.1)


def _batches(count: int = 30, batch: int = 8, threads: int = 2, seed: int = 0) -> BatchLoader:
    places = np.arange(count)
    return BatchLoader(
        PIXELS, places, places.astype(np.int64), VIEWS, TrainingConfig(), batch, seed=seed, n_threads=threads
    )


@pytest.mark.parametrize("threads", [2, 7])
def test_the_number_of_threads_changes_no_byte(threads: int) -> None:
    for one, other in zip(
        _batches(threads=1).train_batches(3), _batches(threads=threads).train_batches(3), strict=True
    ):
        assert one[0].equal(other[0])
        assert one[1].equal(other[1])


@given(count=st.integers(1, 30), batch_size=st.integers(1, 12), epoch=st.integers(0, 5))
def test_every_image_comes_once_in_batches_of_nearly_one_size(count: int, batch: int, epoch: int) -> None:
    batches = _batches(count, batch)
    sizes, labels = [], []
    for pixels, numbers in batches.train_batches(epoch):
        sizes.append(len(pixels))
        labels += numbers.tolist()
    assert sorted(labels) == list(range(count))
    assert len(sizes) == batches.steps_per_epoch
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_differ_in_order_and_views() -> None:
    first = next(iter(_batches().train_batches(0)))
    assert not first[1].equal(next(iter(_batches().train_batches(1)))[1])
    assert not first[1].equal(next(iter(_batches(seed=1).train_batches(0)))[1])


def test_evaluation_is_in_order_and_straight() -> None:
    pixels, labels = zip(*_batches().eval_batches(), strict=True)
    assert np.concatenate(labels).tolist() == list(range(30))
    np.testing.assert_array_equal(np.concatenate(pixels), PIXELS[:, 2:14, 2:14])


def test_waiting_is_measured_and_a_pass_may_be_left_early() -> None:
    batches = _batches()
    for _ in batches.train_batches(0):
        break
    assert batches.wait_seconds > 0
    assert len(list(batches.train_batches(0))) == batches.steps_per_epoch


def test_an_empty_split_has_no_batches() -> None:
    assert list(_batches(0).eval_batches()) == []


@given(ranks=st.integers(1, 3), batch_size=st.integers(3, 12), epoch=st.integers(0, 3))
def test_split_over_processes_the_shares_make_up_the_batches(ranks: int, batch: int, epoch: int) -> None:
    def batches(rank: int, ranks: int) -> list[tuple[np.ndarray, np.ndarray]]:
        part, places = TrainingConfig(sampling="balanced"), np.arange(30)
        made = BatchLoader(PIXELS, places, places % 3, VIEWS, part, batch, rank=rank, world_size=ranks)
        return [(pixels.numpy(), labels.numpy()) for pixels, labels in made.train_batches(epoch)]

    whole, shares = batches(0, 1), [batches(rank, ranks) for rank in range(ranks)]
    for number, (pixels, labels) in enumerate(whole):
        for rank, share in enumerate(shares):
            if rank < len(labels):
                np.testing.assert_array_equal(share[number][0], pixels[rank::ranks])
                np.testing.assert_array_equal(share[number][1], labels[rank::ranks])


@given(images=st.integers(1, 60), batch_size=st.integers(1, 20), ranks=st.integers(1, 9))
def test_every_process_takes_every_step_or_the_batch_is_refused_and_a_better_named(
    images: int, batch: int, ranks: int
) -> None:
    def steps(batch: int) -> set[int]:
        """Return how many batches each process has an image of."""
        parts = np.array_split(np.arange(images), -(-images // batch))
        return {sum(len(part[rank::ranks]) > 0 for part in parts) for rank in range(ranks)}

    try:
        check_batch_covers_processes(images, batch, ranks)
    except UsageError as error:
        assert len(steps(batch)) > 1
        named = re.search(r"smallest batch that works is batch_size=(\d+);", str(error))
        assert (named is None) == (images < ranks)
        if named:
            assert len(steps(int(named[1]))) == 1
            assert int(named[1]) == batch + 1 or len(steps(int(named[1]) - 1)) > 1
    else:
        assert len(steps(batch)) == 1


def test_an_epoch_that_some_process_cannot_follow_is_not_begun_and_evaluation_is() -> None:
    places = np.arange(15)
    shares = [
        BatchLoader(PIXELS, places, places % 3, VIEWS, TrainingConfig(), 8, rank=rank, world_size=8)
        for rank in range(8)
    ]
    for share in shares:
        with pytest.raises(
            UsageError, match=r"batch_size=8 parts 15 images into batches of 7 .* 8 processes .* batch_size=15;"
        ):
            share.train_batches(0)
    assert sum(len(labels) for share in shares for _, labels in share.eval_batches()) == 15


def test_albumentations_gives_the_same_bytes_whatever_the_threads() -> None:
    def batches(threads: int) -> list[np.ndarray]:
        part = ViewsConfig(crop_size=12, custom_transform="tests.data.test_views:jittered")
        places = np.arange(30)
        made = BatchLoader(PIXELS, places, places, part, TrainingConfig(), 4, n_threads=threads)
        return [pixels.numpy() for pixels, _ in made.train_batches(2)]

    one, seven = batches(1), batches(7)
    for first, second in zip(one, seven, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one[0], one[1][: len(one[0])])


def _shares(rank: int) -> list[tuple[bytes, list[int]]]:
    places = np.arange(30)
    made = BatchLoader(
        PIXELS, places, places % 3, VIEWS, TrainingConfig(sampling="balanced"), 8, rank=rank, world_size=2
    )
    return [(pixels.numpy().tobytes(), labels.tolist()) for pixels, labels in made.train_batches(1)]


def test_two_processes_render_what_one_would() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        apart = list(processes.map(_shares, range(2)))
    assert apart == [_shares(0), _shares(1)]
    places = np.arange(30)
    whole = BatchLoader(PIXELS, places, places % 3, VIEWS, TrainingConfig(sampling="balanced"), 8)
    for number, (pixels, _) in enumerate(whole.train_batches(1)):
        for rank in range(2):
            assert apart[rank][number][0] == pixels.numpy()[rank::2].tobytes()


# The grades of a hundred thousandth of the documents' photographs.
COUNTS = np.array([735, 69, 150, 25, 21])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS))
WAYS: dict[str, dict[str, Any]] = {
    "natural": {},
    "balanced": {},
    "square_root": {},
    "decay": {"epochs": 5},
    "factors": {"factors": (1, 7, 7, 7, 7)},
    "oversample": {"oversample": 0.5},
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
    counts = compute_samples_per_class(COUNTS, _part("oversample"), 0)
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
