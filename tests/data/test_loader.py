"""The batch loader yields the same bytes with any number of threads or processes; sampling has exact class counts."""

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.custom_transform import AllowedCode, load_custom_transform
from parfocal.data.loader import (
    BatchLoader,
    assign_view_indices,
    check_batch_covers_processes,
    compute_samples_per_class,
    draw_epoch_order,
    find_kept_class,
)
from parfocal.errors import UsageError
from parfocal.recipe_schema import TrainingConfig, ViewsConfig

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
VIEWS = ViewsConfig(crop_size=12, rotate=180, flip_horizontal=0.5, zoom=0.2, brightness=0.3, hue=0.1)
BALANCED = TrainingConfig(sampling="balanced")


def _build_loader(n_images: int = 30, batch_size: int = 8, n_threads: int = 2, seed: int = 0) -> BatchLoader:
    rows = np.arange(n_images)
    return BatchLoader(PIXELS, rows, rows, VIEWS, TrainingConfig(), batch_size, seed=seed, n_threads=n_threads)


def _build_balanced_loader(batch_size: int = 8, rank: int = 0, world_size: int = 1) -> BatchLoader:
    rows = np.arange(30)
    return BatchLoader(PIXELS, rows, rows % 3, VIEWS, BALANCED, batch_size, rank=rank, world_size=world_size)


@pytest.mark.parametrize("n_threads", [2, 7])
def test_the_number_of_threads_changes_no_byte(n_threads: int) -> None:
    single = _build_loader(n_threads=1).train_batches(3)
    threaded = _build_loader(n_threads=n_threads).train_batches(3)
    for (pixels, labels), (threaded_pixels, threaded_labels) in zip(single, threaded, strict=True):
        assert pixels.equal(threaded_pixels)
        assert labels.equal(threaded_labels)


@given(n_images=st.integers(1, 30), batch_size=st.integers(1, 12), epoch=st.integers(0, 5))
def test_every_image_comes_once_and_batch_sizes_differ_by_at_most_one(
    n_images: int, batch_size: int, epoch: int
) -> None:
    loader = _build_loader(n_images, batch_size)
    sizes: list[int] = []
    all_labels: list[int] = []
    for pixels, labels in loader.train_batches(epoch):
        sizes.append(len(pixels))
        all_labels += labels.tolist()
    assert sorted(all_labels) == list(range(n_images))
    assert len(sizes) == loader.steps_per_epoch
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_differ_in_order() -> None:
    _, labels = next(iter(_build_loader().train_batches(0)))
    assert not labels.equal(next(iter(_build_loader().train_batches(1)))[1])
    assert not labels.equal(next(iter(_build_loader(seed=1).train_batches(0)))[1])


def test_evaluation_yields_center_crops_in_the_order_of_the_split() -> None:
    pixels, labels = zip(*_build_loader().eval_batches(), strict=True)
    assert np.concatenate(labels).tolist() == list(range(30))
    np.testing.assert_array_equal(np.concatenate(pixels), PIXELS[:, 2:14, 2:14])


def test_wait_time_is_measured_and_a_pass_can_be_stopped_early() -> None:
    loader = _build_loader()
    for _ in loader.train_batches(0):
        break
    assert loader.wait_seconds > 0
    assert len(list(loader.train_batches(0))) == loader.steps_per_epoch


def test_an_empty_split_has_no_batches() -> None:
    assert list(_build_loader(0).eval_batches()) == []


@given(world_size=st.integers(1, 3), batch_size=st.integers(3, 12), epoch=st.integers(0, 3))
def test_the_shares_of_all_processes_make_up_the_batches(world_size: int, batch_size: int, epoch: int) -> None:
    complete = list(_build_balanced_loader(batch_size).train_batches(epoch))
    shares = [
        list(_build_balanced_loader(batch_size, rank, world_size).train_batches(epoch)) for rank in range(world_size)
    ]
    for number, (pixels, labels) in enumerate(complete):
        for rank, share in enumerate(shares):
            if rank < len(labels):
                np.testing.assert_array_equal(share[number][0], pixels[rank::world_size])
                np.testing.assert_array_equal(share[number][1], labels[rank::world_size])


@given(n_images=st.integers(1, 60), batch_size=st.integers(1, 20), world_size=st.integers(1, 9))
def test_every_process_takes_every_step_or_the_error_names_a_batch_size_that_works(
    n_images: int, batch_size: int, world_size: int
) -> None:
    def count_steps(batch_size: int) -> set[int]:
        """Return in how many batches each process has an image."""
        batches = np.array_split(np.arange(n_images), -(-n_images // batch_size))
        return {sum(len(batch[rank::world_size]) > 0 for batch in batches) for rank in range(world_size)}

    try:
        check_batch_covers_processes(n_images, batch_size, world_size)
    except UsageError as error:
        assert len(count_steps(batch_size)) > 1
        named = re.search(r"smallest batch that works is batch_size=(\d+);", str(error))
        assert (named is None) == (n_images < world_size)
        if named:
            assert len(count_steps(int(named[1]))) == 1
            assert int(named[1]) == batch_size + 1 or len(count_steps(int(named[1]) - 1)) > 1
    else:
        assert len(count_steps(batch_size)) == 1


def test_a_batch_with_too_few_images_for_the_processes_is_rejected_in_training_and_accepted_in_evaluation() -> None:
    rows = np.arange(15)
    loaders = [
        BatchLoader(PIXELS, rows, rows % 3, VIEWS, TrainingConfig(), 8, rank=rank, world_size=8) for rank in range(8)
    ]
    message = r"batch_size=8 splits 15 images into batches of 7 .* 8 processes .* batch_size=15;"
    for loader in loaders:
        with pytest.raises(UsageError, match=message):
            loader.train_batches(0)
    assert sum(len(labels) for loader in loaders for _, labels in loader.eval_batches()) == 15


def test_albumentations_gives_the_same_bytes_with_any_number_of_threads() -> None:
    def render(n_threads: int) -> list[np.ndarray]:
        name = "tests.data.test_augment:jitter_and_noise"
        config = ViewsConfig(crop_size=12, custom_transform=name)
        transform = load_custom_transform(name, AllowedCode(("tests.data.test_augment",)))
        rows = np.arange(30)
        loader = BatchLoader(
            PIXELS, rows, rows, config, TrainingConfig(), 4, n_threads=n_threads, custom_transform=transform
        )
        return [pixels.numpy() for pixels, _ in loader.train_batches(2)]

    single = render(1)
    for pixels, threaded_pixels in zip(single, render(7), strict=True):
        np.testing.assert_array_equal(pixels, threaded_pixels)
    assert not np.array_equal(single[0], single[1][: len(single[0])])


def _render_share(rank: int) -> list[tuple[bytes, list[int]]]:
    batches = _build_balanced_loader(rank=rank, world_size=2).train_batches(1)
    return [(pixels.numpy().tobytes(), labels.tolist()) for pixels, labels in batches]


def test_two_processes_render_the_same_bytes_as_one() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        shares = list(processes.map(_render_share, range(2)))
    assert shares == [_render_share(0), _render_share(1)]
    for number, (pixels, _) in enumerate(_build_balanced_loader().train_batches(1)):
        for rank in range(2):
            assert shares[rank][number][0] == pixels.numpy()[rank::2].tobytes()


# The class frequencies of the retinopathy data, for 1,000 images.
COUNTS = np.array([735, 69, 150, 25, 21])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS))
SAMPLINGS: dict[str, dict[str, Any]] = {
    "natural": {},
    "balanced": {},
    "square_root": {},
    "decay": {"epochs": 5},
    "factors": {"factors": (1, 7, 7, 7, 7)},
    "oversample": {"oversample": 0.5},
}


def _build_config(sampling: str, **settings: Any) -> TrainingConfig:
    return TrainingConfig(sampling=sampling, **{**SAMPLINGS[sampling], **settings})  # type: ignore[arg-type]


def _compute(sampling: str, epoch: int = 0) -> np.ndarray:
    return compute_samples_per_class(COUNTS, _build_config(sampling), epoch)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("epoch", [0, 4])
def test_an_epoch_shows_exactly_the_computed_number_of_images_per_class(sampling: str, epoch: int) -> None:
    config = _build_config(sampling)
    order = draw_epoch_order(LABELS, config, seed=0, epoch=epoch)
    np.testing.assert_array_equal(np.bincount(LABELS[order], minlength=5), _compute(sampling, epoch))
    assert len(order) == len(draw_epoch_order(LABELS, config, seed=0, epoch=0))
    np.testing.assert_array_equal(order, draw_epoch_order(LABELS, config, seed=0, epoch=epoch))
    assert not np.array_equal(order, draw_epoch_order(LABELS, config, seed=0, epoch=epoch + 1))
    assert not np.array_equal(order, draw_epoch_order(LABELS, config, seed=1, epoch=epoch))


def test_each_sampling_has_its_class_counts() -> None:
    assert _compute("balanced").tolist() == [200] * 5
    assert _compute("factors").tolist() == [735, 483, 1050, 175, 147]
    roots = _compute("square_root")
    np.testing.assert_allclose(roots / roots.sum(), np.sqrt(COUNTS) / np.sqrt(COUNTS).sum(), atol=0.001)
    assert _compute("decay").tolist() == [200] * 5
    assert _compute("decay", 4).tolist() == COUNTS.tolist()
    assert _compute("decay", 2)[0] == pytest.approx((200 + 735) / 2, abs=1)


def test_oversampling_by_half_adds_only_images_of_the_rare_classes() -> None:
    counts = _compute("oversample")
    assert counts.sum() == 1500
    assert counts[0] == 735
    np.testing.assert_allclose((counts - COUNTS)[1:] / 500, COUNTS[1:] / COUNTS[1:].sum(), atol=0.002)


def test_oversampling_leaves_out_the_class_that_the_recipe_names_not_the_largest() -> None:
    counts = np.array([100, 400, 50, 30, 20])
    config = _build_config("oversample")
    assert compute_samples_per_class(counts, config, epoch=0).tolist() == [100, 640, 80, 48, 32]
    grades = tuple("01234")
    assert find_kept_class(config, grades, ("no DR", "mild", "moderate", "severe", "proliferative")) == 0
    named = _build_config("oversample", oversample_except="normal")
    kept_class = find_kept_class(named, ("blast", "normal"), ("blast", "normal"))
    assert compute_samples_per_class(np.array([100, 300]), named, 0, kept_class).tolist() == [300, 300]


def test_oversampling_asks_for_the_class_without_extra_images() -> None:
    with pytest.raises(UsageError, match=r"oversample_except=0 is not a class of the data.*: blast, normal"):
        find_kept_class(_build_config("oversample"), ("blast", "normal"), ("blast", "normal"))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_no_image_is_repeated_before_every_image_of_its_class_was_shown(sampling: str) -> None:
    order = draw_epoch_order(LABELS, _build_config(sampling), seed=0, epoch=0)
    repetitions = np.bincount(order, minlength=len(LABELS))
    for label in range(5):
        assert np.ptp(repetitions[label == LABELS]) <= 1


def test_factors_needs_a_number_for_each_class() -> None:
    with pytest.raises(UsageError, match="factors has 2 numbers, train has 5 classes"):
        draw_epoch_order(LABELS, _build_config("factors", factors=(1, 2)), seed=0, epoch=0)


@given(order=st.lists(st.integers(0, 9), max_size=40))
def test_the_first_occurrence_of_an_image_has_its_own_view_and_each_repetition_a_new_one(order: list[int]) -> None:
    view_indices = assign_view_indices(np.array(order, dtype=int), 10)
    assert len(set(view_indices.tolist())) == len(order)
    for position, row in enumerate(order):
        assert (view_indices[position] == row) == (order.index(row) == position)
