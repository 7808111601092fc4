"""MixUp and CutMix on a batch of uint8 pixels."""
# MERGED: """Losses against hand-computed values and those of PyTorch and scikit-learn, and that each of them learns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

import parfocal
from parfocal.errors import UsageError
from parfocal.models.classifier import Classifier
from parfocal.models.ordinal import OrdinalHeadName, build_ordinal_head
from parfocal.recipe import load_recipe
from parfocal.schema import TrainingConfig
from parfocal.training.losses import (
    LOSS_HEADS,
    MixedTargets,
    build_loss,
    compute_class_weights,
    epoch_class_counts,
    mix_batch,
    mixed_loss,
)
from tests.cells import SMALL_RECIPE

BATCH = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 12, 16, 3) * 30
LABELS = torch.arange(8)


@given(step=st.integers(0, 500))
def test_mixup_blends_each_image_with_its_partner_by_its_share(step: int) -> None:
    pixels, blend = mix_batch(BATCH, LABELS, TrainingConfig(mixup=0.4), (0, 0, step))
    assert blend is not None
    expected = BATCH.float() * blend.lam + BATCH[blend.partner_labels].float() * (1 - blend.lam)
    assert pixels.dtype == torch.uint8
    assert (pixels.float() - expected).abs().max() <= 0.5001


@given(step=st.integers(0, 500))
def test_cutmix_takes_a_box_of_the_partner_and_counts_its_area(step: int) -> None:
    pixels, blend = mix_batch(BATCH, LABELS, TrainingConfig(cutmix=1.0), (0, 0, step))
    assert blend is not None
    taken = (pixels != BATCH).any(dim=3)
    for image, partner in enumerate(blend.partner_labels.tolist()):
        if partner != image:
            assert taken[image].float().mean().item() == pytest.approx(1 - blend.lam)
            assert set(pixels[image].unique().tolist()) <= {30 * image, 30 * partner}
    assert (BATCH[3] == 90).all()


def test_both_take_turns_and_hang_on_seed_epoch_and_step() -> None:
    part = TrainingConfig(mixup=0.4, cutmix=1.0)
    boxes = [bool(np.isin(mix_batch(BATCH, LABELS, part, (0, 0, step))[0].numpy() % 30, 0).all()) for step in range(60)]
    assert 0.2 < np.mean(boxes) < 0.8
    one, same, other = (mix_batch(BATCH, LABELS, part, seed)[0] for seed in ((1, 2, 3), (1, 2, 3), (1, 2, 4)))
    assert one.equal(same)
    assert not one.equal(other)


def test_without_either_a_batch_is_left_alone() -> None:
    assert mix_batch(BATCH, LABELS, TrainingConfig(), (0, 0, 0)) == (BATCH, None)


COUNTS = np.array([70, 20, 10])
LOSSES = ("cross_entropy", "focal", "regression", "cumulative_link")


def _part(**changes: Any) -> TrainingConfig:
    return load_recipe(None, **changes).training


def _batch(count: int = 12, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(1)
    return torch.randn(count, classes, generator=dice) * 3, torch.arange(count) % classes


def test_cross_entropy_with_and_without_smoothing_is_pytorchs() -> None:
    logits, labels = _batch()
    for smoothing in (0.0, 0.1):
        found = build_loss(_part(label_smoothing=smoothing), COUNTS)(logits, labels)
        expected = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        torch.testing.assert_close(found, expected)


def test_focal_counts_what_is_known_less() -> None:
    logits = torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log()
    found = build_loss(_part(loss="focal", focal_gamma=2), np.array([1, 1]))(logits, torch.tensor([0, 0]))
    assert found.tolist() == pytest.approx([-(0.2**2) * np.log(0.8), -(0.6**2) * np.log(0.4)])
    logits, labels = _batch()
    plain = build_loss(_part(loss="focal", focal_gamma=0), COUNTS)(logits, labels)
    torch.testing.assert_close(plain, functional.cross_entropy(logits, labels, reduction="none"))


def test_class_weights_are_the_known_ones_and_one_in_the_mean() -> None:
    labels = np.repeat([0, 1, 2], COUNTS)
    balanced = compute_class_weights(_part(class_weights="balanced"), COUNTS)
    np.testing.assert_allclose(balanced, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    root = compute_class_weights(_part(class_weights="square_root"), COUNTS)
    np.testing.assert_allclose(root / root[0], np.sqrt(70 / COUNTS))
    effective = compute_class_weights(_part(class_weights="effective_number"), COUNTS)
    np.testing.assert_allclose(effective[2] / effective[0], (1 - 0.999**70) / (1 - 0.999**10))
    for weights in (balanced, root, effective):
        assert (weights * COUNTS).sum() == pytest.approx(100)
    assert compute_class_weights(_part(class_weights="balanced"), np.array([5, 0, 5])).tolist() == [1, 0, 1]


@pytest.mark.parametrize("loss", LOSSES)
def test_class_weights_multiply_every_loss(loss: str) -> None:
    logits, labels = _batch()
    link = build_ordinal_head(LOSS_HEADS.get(loss, "none"), 3)
    plain = build_loss(_part(loss=loss), COUNTS, link)(logits, labels)
    weighted = build_loss(_part(loss=loss, class_weights="balanced"), COUNTS, link)(logits, labels)
    weights = torch.tensor(compute_class_weights(_part(class_weights="balanced"), COUNTS), dtype=torch.float32)
    torch.testing.assert_close(weighted, plain * weights[labels])


def test_weights_go_by_what_is_shown_so_that_nothing_is_balanced_twice() -> None:
    labels = np.repeat([0, 1], [90, 10])
    assert epoch_class_counts(labels, 3, _part(), 0).tolist() == [90, 10, 0]
    even = epoch_class_counts(labels, 2, _part(sampling="balanced"), 0)
    assert compute_class_weights(_part(class_weights="balanced"), even).tolist() == [1, 1]


def test_logit_adjustment_adds_the_logarithm_of_the_shares_in_training_only() -> None:
    logits, labels = _batch()
    found = build_loss(_part(logit_adjustment=1.5), COUNTS)(logits, labels)
    shifted = logits + 1.5 * torch.tensor([0.7, 0.2, 0.1]).log()
    torch.testing.assert_close(found, functional.cross_entropy(shifted, labels, reduction="none"))


@pytest.mark.parametrize(("distance", "expected"), [("squared", [0.0625, 4.0]), ("smooth_l1", [0.03125, 1.5])])
def test_regression_measures_the_grade_from_the_truth(distance: str, expected: list[float]) -> None:
    link = build_ordinal_head("regression", 4)
    assert link is not None
    logits = link(torch.tensor([[1.25], [3.0]]) - 1.5)
    found = build_loss(_part(loss="regression", regression_loss=distance), np.ones(4), link)(
        logits, torch.tensor([1, 1])
    )
    assert found.tolist() == pytest.approx(expected)


@given(share=st.floats(0, 1))
def test_a_blended_batch_has_the_loss_of_both_truths(share: float) -> None:
    logits, labels = _batch()
    blend = MixedTargets(labels.roll(1), share)
    truth = share * functional.one_hot(labels, 3).float()
    truth += (1 - share) * functional.one_hot(blend.partner_labels, 3).float()
    found = mixed_loss(build_loss(_part(), COUNTS), logits, labels, blend)
    torch.testing.assert_close(found, functional.cross_entropy(logits, truth))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("changes", [{}, {"class_weights": "effective_number", "focal_gamma": 0.5}])
def test_gradients_are_finite_however_far_off_the_network_is(loss: str, changes: dict[str, Any]) -> None:
    link = build_ordinal_head(LOSS_HEADS.get(loss, "none"), 5)
    extra = {} if loss == "regression" else {"label_smoothing": 0.1, "logit_adjustment": 1.0}
    for size in (0.0, 1.0, 50.0, 1e4):
        scores = (torch.randn(20, 5 if link is None else 1) * size).requires_grad_()
        logits = scores if link is None else link(scores)
        part = _part(loss=loss, **changes, **extra)
        value = mixed_loss(
            build_loss(part, np.array([9, 4, 3, 2, 0]), link),
            logits,
            torch.arange(20) % 4,
            MixedTargets((torch.arange(20) % 4).flip(0), 0.3),
        )
        value.backward()
        assert value.isfinite()
        assert scores.grad is not None
        assert scores.grad.isfinite().all()
        if loss == "cumulative_link":
            assert all(one.grad is not None and one.grad.isfinite().all() for one in (link or scores).parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_learns_to_order_five_grades(loss: str) -> None:
    torch.manual_seed(0)
    name: OrdinalHeadName = LOSS_HEADS.get(loss, "none")
    link, counts = build_ordinal_head(name, 5), np.array([50, 20, 15, 10, 5])
    grades = torch.repeat_interleave(torch.arange(5), torch.tensor(counts))
    seen = torch.stack([grades + 0.2 * torch.randn(100), torch.randn(100)], dim=1)
    body = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1 if link else 5))
    network = body if link is None else torch.nn.Sequential(body, link)
    optimise, loss_each = torch.optim.Adam(network.parameters(), 0.02), build_loss(_part(loss=loss), counts, link)
    for _ in range(400):
        optimise.zero_grad()
        loss_each(network(seen), grades).mean().backward()
        optimise.step()
    assert (network(seen).argmax(dim=1) == grades).float().mean() > 0.93


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_learns_the_small_cells_also_when_they_are_blended(cells: Path, tmp_path: Path, loss: str) -> None:
    changes = {"loss": loss, "epochs": 6, "mixup": 0.2, "cutmix": 1.0, "select": "loss", "class_weights": "balanced"}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "learning_rate": 0.02, **changes})
    metrics = run.read_metrics()["valid"]
    assert metrics["accuracy"] >= 0.9
    assert metrics["loss"] == pytest.approx(run.read_history()["valid_loss"].min(), rel=1e-3, abs=1e-6)
    assert Classifier.load(run.weights_path)(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 2)


def test_what_needs_classes_is_refused_with_regression() -> None:
    with pytest.raises(UsageError, match="need a loss of classes"):
        load_recipe(None, loss="regression", label_smoothing=0.1)
    with pytest.raises(UsageError, match="need a loss of classes"):
        load_recipe(None, loss="regression", logit_adjustment=1)
