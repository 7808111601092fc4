"""Losses, class weights and logit adjustment against PyTorch and scikit-learn; MixUp and CutMix."""

from pathlib import Path
from typing import Any, get_args

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
from parfocal.models.ordinal import build_ordinal_head
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import TrainingConfig
from parfocal.training.losses import (
    LOSSES,
    LossContext,
    MixedTargets,
    build_loss,
    compute_class_weights,
    epoch_class_counts,
    mix_batch,
    mixed_loss,
    register_loss,
)
from tests.cells import SMALL_RECIPE

CLASS_COUNTS = np.array([70, 20, 10])
NAMES = ("cross_entropy", "focal", "joint", "regression", "cumulative_link")
BATCH = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 12, 16, 3) * 30
LABELS = torch.arange(8)


def _config(**changes: Any) -> TrainingConfig:
    return load_recipe(None, **changes).training


def _draw_logits(n_images: int = 12, n_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n_images, n_classes, generator=generator) * 3, torch.arange(n_images) % n_classes


def test_every_loss_of_the_recipe_is_registered() -> None:
    assert sorted(LOSSES) == sorted(get_args(TrainingConfig.model_fields["loss"].annotation)) == sorted(NAMES)


def test_a_new_loss_is_a_registered_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parfocal.training.losses.LOSSES", dict(LOSSES))

    @register_loss("squared_error")
    def squared_error(logits: torch.Tensor, labels: torch.Tensor, context: LossContext) -> torch.Tensor:
        targets = functional.one_hot(labels, logits.shape[1]).float()
        return (torch.softmax(logits, dim=1) - targets).square().sum(dim=1)

    config = _config(class_weights="balanced").model_copy(update={"loss": "squared_error"})
    logits, labels = _draw_logits()
    losses = build_loss(config, CLASS_COUNTS)(logits, labels)
    weights = torch.tensor(compute_class_weights(config, CLASS_COUNTS), dtype=torch.float32)
    context = LossContext(config, torch.zeros(3))
    torch.testing.assert_close(losses, squared_error(logits, labels, context) * weights[labels])


def test_cross_entropy_with_and_without_label_smoothing_is_pytorchs() -> None:
    logits, labels = _draw_logits()
    for label_smoothing in (0.0, 0.1):
        losses = build_loss(_config(label_smoothing=label_smoothing), CLASS_COUNTS)(logits, labels)
        expected = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
        torch.testing.assert_close(losses, expected)


def test_the_focal_loss_gives_less_weight_to_well_classified_images() -> None:
    logits = torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log()
    losses = build_loss(_config(loss="focal", focal_gamma=2), np.array([1, 1]))(logits, torch.tensor([0, 0]))
    assert losses.tolist() == pytest.approx([-(0.2**2) * np.log(0.8), -(0.6**2) * np.log(0.4)])
    logits, labels = _draw_logits()
    plain = build_loss(_config(loss="focal", focal_gamma=0), CLASS_COUNTS)(logits, labels)
    torch.testing.assert_close(plain, functional.cross_entropy(logits, labels, reduction="none"))


def test_class_weights_are_the_published_formulas_with_a_mean_of_1() -> None:
    labels = np.repeat([0, 1, 2], CLASS_COUNTS)
    balanced = compute_class_weights(_config(class_weights="balanced"), CLASS_COUNTS)
    np.testing.assert_allclose(balanced, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    square_root = compute_class_weights(_config(class_weights="square_root"), CLASS_COUNTS)
    np.testing.assert_allclose(square_root / square_root[0], np.sqrt(70 / CLASS_COUNTS))
    effective = compute_class_weights(_config(class_weights="effective_number"), CLASS_COUNTS)
    np.testing.assert_allclose(effective[2] / effective[0], (1 - 0.999**70) / (1 - 0.999**10))
    for weights in (balanced, square_root, effective):
        assert (weights * CLASS_COUNTS).sum() == pytest.approx(100)
    assert compute_class_weights(_config(class_weights="balanced"), np.array([5, 0, 5])).tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_class_weights_multiply_every_loss(name: str) -> None:
    logits, labels = _draw_logits()
    config = _config(loss=name)
    weighted_config = _config(loss=name, class_weights="balanced")
    head = build_ordinal_head(config.loss, 3)
    losses = build_loss(config, CLASS_COUNTS, head)(logits, labels)
    weighted = build_loss(weighted_config, CLASS_COUNTS, head)(logits, labels)
    weights = torch.tensor(compute_class_weights(weighted_config, CLASS_COUNTS), dtype=torch.float32)
    torch.testing.assert_close(weighted, losses * weights[labels])


def test_class_weights_follow_the_sampling_so_that_nothing_is_balanced_twice() -> None:
    labels = np.repeat([0, 1], [90, 10])
    assert epoch_class_counts(labels, 3, _config(), 0).tolist() == [90, 10, 0]
    balanced_counts = epoch_class_counts(labels, 2, _config(sampling="balanced"), 0)
    assert compute_class_weights(_config(class_weights="balanced"), balanced_counts).tolist() == [1, 1]


def test_logit_adjustment_adds_the_log_priors_to_the_logits() -> None:
    logits, labels = _draw_logits()
    losses = build_loss(_config(logit_adjustment=1.5), CLASS_COUNTS)(logits, labels)
    adjusted = logits + 1.5 * torch.tensor([0.7, 0.2, 0.1]).log()
    torch.testing.assert_close(losses, functional.cross_entropy(adjusted, labels, reduction="none"))


@pytest.mark.parametrize(("distance", "expected"), [("squared", [0.0625, 4.0]), ("smooth_l1", [0.03125, 1.5])])
def test_regression_measures_the_distance_between_grade_and_truth(distance: str, expected: list[float]) -> None:
    config = _config(loss="regression", regression_loss=distance)
    head = build_ordinal_head(config.loss, 4)
    assert head is not None
    logits = head(torch.tensor([[1.25], [3.0]]) - 1.5)
    losses = build_loss(config, np.ones(4), head)(logits, torch.tensor([1, 1]))
    assert losses.tolist() == pytest.approx(expected)


@given(lam=st.floats(0, 1))
def test_the_loss_of_a_mixed_batch_is_that_of_mixed_targets(lam: float) -> None:
    logits, labels = _draw_logits()
    mixed_targets = MixedTargets(labels.roll(1), lam)
    soft_labels = lam * functional.one_hot(labels, 3).float()
    soft_labels += (1 - lam) * functional.one_hot(mixed_targets.partner_labels, 3).float()
    loss = mixed_loss(build_loss(_config(), CLASS_COUNTS), logits, labels, mixed_targets)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, soft_labels))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("changes", [{}, {"class_weights": "effective_number", "focal_gamma": 0.5}])
def test_gradients_are_finite_however_wrong_the_network_is(name: str, changes: dict[str, Any]) -> None:
    class_changes = {} if name == "regression" else {"label_smoothing": 0.1, "logit_adjustment": 1.0}
    config = _config(loss=name, **changes, **class_changes)
    head = build_ordinal_head(config.loss, 5)
    loss_fn = build_loss(config, np.array([9, 4, 3, 2, 0]), head)
    labels = torch.arange(20) % 4
    for size in (0.0, 1.0, 50.0, 1e4):
        scores = (torch.randn(20, 5 if head is None else 1) * size).requires_grad_()
        logits = scores if head is None else head(scores)
        loss = mixed_loss(loss_fn, logits, labels, MixedTargets(labels.flip(0), 0.3))
        loss.backward()
        assert loss.isfinite()
        assert scores.grad is not None
        assert scores.grad.isfinite().all()
        for parameter in head.parameters() if head is not None else ():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_each_loss_learns_to_order_five_grades(name: str) -> None:
    torch.manual_seed(0)
    config = _config(loss=name)
    head = build_ordinal_head(config.loss, 5)
    class_counts = np.array([50, 20, 15, 10, 5])
    grades = torch.repeat_interleave(torch.arange(5), torch.tensor(class_counts))
    features = torch.stack([grades + 0.2 * torch.randn(100), torch.randn(100)], dim=1)
    body = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1 if head else 5))
    network = body if head is None else torch.nn.Sequential(body, head)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    loss_fn = build_loss(config, class_counts, head)
    for _ in range(400):
        optimizer.zero_grad()
        loss_fn(network(features), grades).mean().backward()
        optimizer.step()
    assert (network(features).argmax(dim=1) == grades).float().mean() > 0.93


@pytest.mark.parametrize("name", NAMES)
def test_each_loss_learns_small_cells_with_mixup_and_cutmix(cells: Path, tmp_path: Path, name: str) -> None:
    changes = {"loss": name, "epochs": 6, "mixup": 0.2, "cutmix": 1.0, "select": "loss", "class_weights": "balanced"}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "learning_rate": 0.02, **changes})
    metrics = run.read_metrics()["valid"]
    assert metrics["accuracy"] >= 0.9
    assert metrics["loss"] == pytest.approx(run.read_history()["valid_loss"].min(), rel=1e-3, abs=1e-6)
    assert Classifier.load(run.weights_path)(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 2)


def test_keys_that_need_a_classification_loss_are_rejected_with_regression() -> None:
    with pytest.raises(UsageError, match="smoothing and logit_adjustment need a"):
        load_recipe(None, loss="regression", label_smoothing=0.1)
    with pytest.raises(UsageError, match="smoothing and logit_adjustment need a"):
        load_recipe(None, loss="regression", logit_adjustment=1)


@given(step=st.integers(0, 500))
def test_mixup_mixes_each_image_with_its_partner_by_lam(step: int) -> None:
    pixels, mixed_targets = mix_batch(BATCH, LABELS, TrainingConfig(mixup=0.4), (0, 0, step))
    assert mixed_targets is not None
    partners = BATCH[mixed_targets.partner_labels]
    expected = BATCH.float() * mixed_targets.lam + partners.float() * (1 - mixed_targets.lam)
    assert pixels.dtype == torch.uint8
    assert (pixels.float() - expected).abs().max() <= 0.5001


@given(step=st.integers(0, 500))
def test_cutmix_pastes_a_box_of_the_partner_and_lam_is_the_area_that_is_left(step: int) -> None:
    pixels, mixed_targets = mix_batch(BATCH, LABELS, TrainingConfig(cutmix=1.0), (0, 0, step))
    assert mixed_targets is not None
    is_pasted = (pixels != BATCH).any(dim=3)
    for image, partner in enumerate(mixed_targets.partner_labels.tolist()):
        if partner != image:
            assert is_pasted[image].float().mean().item() == pytest.approx(1 - mixed_targets.lam)
            assert set(pixels[image].unique().tolist()) <= {30 * image, 30 * partner}
    assert (BATCH[3] == 90).all()


def test_mixup_and_cutmix_alternate_at_random_by_seed_epoch_and_step() -> None:
    config = TrainingConfig(mixup=0.4, cutmix=1.0)
    batches = [mix_batch(BATCH, LABELS, config, (0, 0, step))[0] for step in range(60)]
    is_cutmix = [bool(np.isin(batch.numpy() % 30, 0).all()) for batch in batches]
    assert 0.2 < np.mean(is_cutmix) < 0.8
    first = mix_batch(BATCH, LABELS, config, (1, 2, 3))[0]
    assert first.equal(mix_batch(BATCH, LABELS, config, (1, 2, 3))[0])
    assert not first.equal(mix_batch(BATCH, LABELS, config, (1, 2, 4))[0])


def test_without_mixup_and_cutmix_a_batch_does_not_change() -> None:
    assert mix_batch(BATCH, LABELS, TrainingConfig(), (0, 0, 0)) == (BATCH, None)
