"""Linear probing: the features, the fit, its cross-validation, and runs that start or end with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_predict
from torch import Tensor

import parfocal
from parfocal.data.loader import BatchLoader
from parfocal.errors import UsageError
from parfocal.evaluation.predictions import Predictions
from parfocal.models.checkpoints import read_tensors
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.models.resnet import build_resnet
from parfocal.recipe_schema import NetworkConfig, TrainingConfig, ViewsConfig
from parfocal.run import Run
from parfocal.training import trainer
from parfocal.training.probe import (
    LinearProbe,
    choose_penalty,
    compute_features,
    fit_linear_probe,
    split_folds,
    write_head,
)
from tests.cells import SMALL_RECIPE
from tests.training.resuming import assert_identical_runs, call_at_step

FABRIC = Fabric(accelerator="cpu", devices=1)
CLASSES = ("a", "b", "c")


def _draw_features(n_rows: int = 120, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features of very different scale that tell the classes apart, their labels, and groups of two rows."""
    rng = np.random.default_rng(0)
    labels = np.arange(n_rows) // 2 % n_classes
    centers = rng.normal(0, 1, (n_classes, 6))
    features = (centers[labels] + rng.normal(0, 1, (n_rows, 6))) * 10.0 ** np.arange(-2, 4) + 5
    return features, labels, np.arange(n_rows) // 2


def _compute_logits(probe: LinearProbe, features: np.ndarray) -> Tensor:
    return torch.from_numpy(features @ probe.weight.T + probe.bias)


def test_the_features_are_the_input_of_the_head_for_images_that_are_not_augmented() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 40, 40, 3), dtype=np.uint8)
    rows = np.array([5, 1, 2, 6, 0])
    views = ViewsConfig(crop_size=32, rotate=180, brightness=0.5)
    loader = BatchLoader(pixels, rows, rows % 3, views, TrainingConfig(), batch_size=2)
    torch.manual_seed(0)
    classifier = build_classifier(NetworkConfig(model="resnet20", dropout=0.5), CLASSES).train()
    features = compute_features(FABRIC, classifier, loader)
    head_inputs: list[Tensor] = []
    classifier.network.fc.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))
    with torch.no_grad():
        classifier.eval()(torch.from_numpy(pixels[rows][:, 4:36, 4:36]))
    np.testing.assert_allclose(features, head_inputs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_fit_is_the_optimum_of_the_penalized_loss_for_standardized_features(n_classes: int) -> None:
    features, labels, groups = _draw_features(n_classes=n_classes)
    probe = fit_linear_probe(features, labels, groups, n_classes)
    std = features.std(axis=0)
    # For two classes scikit-learn penalizes the difference of the two rows; each row has one half of it.
    factor = 2 if n_classes == 2 else 1
    weight = torch.from_numpy(probe.weight * std).requires_grad_()
    bias = torch.from_numpy(probe.bias + probe.weight @ features.mean(axis=0)).requires_grad_()
    logits = torch.from_numpy((features - features.mean(axis=0)) / std) @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="sum")
    (probe.c * loss + factor * weight.square().sum() / 2).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-3 * probe.c
    torch.testing.assert_close(logits.detach(), _compute_logits(probe, features))
    assert np.mean(_compute_logits(probe, features).argmax(dim=1).numpy() == labels) > 0.8
    assert 0.6 < probe.accuracy < 1


def test_the_cross_validation_never_splits_a_group() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    groups = rng.integers(0, 20, 90)
    folds = split_folds(labels, groups, seed=0)
    assert len(folds) == 5
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(90))
    for fit, test in folds:
        assert not set(groups[fit]) & set(groups[test])


def test_a_fold_is_left_out_where_a_class_would_have_no_image_left_to_fit() -> None:
    labels = np.repeat([0, 1, 2], [20, 20, 4])
    groups = np.concatenate([np.arange(40), np.full(4, 40)])
    folds = split_folds(labels, groups, seed=0)
    assert len(folds) == 4
    assert all(set(labels[fit]) == {0, 1, 2} for fit, _ in folds)


def test_with_a_single_group_the_penalty_is_the_default() -> None:
    features, labels, _ = _draw_features()
    probe = fit_linear_probe(features, labels, np.zeros(len(labels)), 3)
    assert (probe.c, probe.n_folds) == (0.01, 0)
    assert probe.describe("patients").endswith("C=0.01, the default: there are too few patients for cross-validation.")


@pytest.mark.parametrize("noise", [1, 100])
def test_the_penalty_has_the_lowest_log_loss_in_cross_validation(noise: float) -> None:
    features, labels, groups = _draw_features()
    features = (features - features.mean(axis=0)) / features.std(axis=0) + np.random.default_rng(1).normal(
        0, noise, features.shape
    )
    c, n_folds, accuracy = choose_penalty(features, labels, groups, seed=0)
    folds = split_folds(labels, groups, seed=0)
    losses: dict[float, float] = {}
    for candidate in 10.0 ** np.arange(-4, 1.5, 0.5):
        model = LogisticRegression(C=candidate, max_iter=1000)
        predicted = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
        probabilities = np.asarray(predicted)
        losses[candidate] = log_loss(labels, probabilities)
        if candidate == pytest.approx(c):
            assert accuracy == pytest.approx(np.mean(probabilities.argmax(axis=1) == labels), abs=0.01)
    assert c == pytest.approx(min(losses, key=losses.__getitem__))
    assert n_folds == 5


def test_a_class_without_images_is_never_predicted_and_a_constant_feature_has_no_weight() -> None:
    features, labels, groups = _draw_features()
    features[:, 2] = 7
    probe = fit_linear_probe(features, labels * 2 % 5, groups, 5)
    assert set(_compute_logits(probe, features).argmax(dim=1).tolist()) == {0, 2, 4}
    assert np.isfinite(probe.bias).all()
    assert not probe.weight[:, 2].any()


def test_a_single_class_is_rejected() -> None:
    features, labels, groups = _draw_features()
    with pytest.raises(UsageError, match="need training images of two classes"):
        fit_linear_probe(features, labels * 0, groups, 3)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Initial weights of a ResNet-20 with a head for other classes."""
    torch.manual_seed(1)
    path = tmp_path / "weights.pth"
    torch.save(build_resnet("resnet20", 10).state_dict(), path)
    return path


def _train(cells: Path, weights: Path, out: Path, **changes: Any) -> Run:
    return parfocal.train(cells, out=out, **{**SMALL_RECIPE, "init": str(weights), **changes})[0]


def test_a_run_with_the_probe_alone_changes_only_the_head_and_is_finished_whatever_else_the_recipe_says(
    cells: Path, weights: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"ema": 0.9, "minutes": 5, "mixup": 0.2, "freeze": "stage3"}
    run = _train(cells, weights, tmp_path / "run", head="probe", **changes)
    tensors = read_tensors(run.weights_path)[0]
    initial = torch.load(weights)
    changed = {name for name, value in tensors.items() if not value.equal(initial[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert run.is_finished
    history = run.read_history().iloc[0]
    assert len(run.read_history()) == 1
    assert history["learning_rate"] == 0
    assert history["train_accuracy"] >= 0.9
    assert history["train_loss"] < 0.5
    assert run.read_metrics()["valid"]["accuracy"] == history["valid_accuracy"] >= 0.9
    load_report = run.read_load_report()
    assert load_report is not None
    assert "The head was fitted to the features by logistic regression" in load_report["text"]
    assert "in cross-validation over patients (5 folds)." in load_report["text"]
    classifier = Classifier.load(run.weights_path)
    dataset = parfocal.ImageDataset(cells, "valid", run.recipe)
    pixels = torch.stack([dataset[row][0] for row in range(len(dataset))]).mul(255).round().byte()
    with torch.no_grad():
        features = classifier.eval().network.forward_pooled(classifier.normalize(pixels))
        weight, bias = classifier.network.fc.weight.double(), classifier.network.fc.bias.double()
    expected = torch.softmax(features.double() @ weight.T + bias, dim=1)
    predictions = Predictions.load(run.predictions_path("valid"))
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)


def test_training_goes_on_from_the_fitted_head_if_there_is_time(
    cells: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(trainer, "print_line", lines.append)
    fitted = _train(cells, weights, tmp_path / "fitted", head="warm_start", minutes=1e-6)
    assert fitted.read_history()["learning_rate"].tolist() == [0]
    accuracy = fitted.read_metrics()["valid"]["accuracy"]
    (first_result,) = [line for line in lines if "First result after" in line]
    assert f"s: accuracy {accuracy:.3f}, kappa " in first_result
    assert first_result.endswith(" on validation.")
    changes = {"learning_rate": 1e-9, "ema": 0.999, "epochs": 1}
    trained = _train(cells, weights, tmp_path / "trained", head="warm_start", **changes)
    assert trained.read_history()["learning_rate"].iloc[0] > 0
    expected, weights_after = (read_tensors(run.weights_path)[0] for run in (fitted, trained))
    for name in ("fc.weight", "fc.bias", "conv1.weight"):
        torch.testing.assert_close(weights_after[name], expected[name], atol=1e-6, rtol=1e-6)


def test_killed_before_the_first_checkpoint_it_fits_the_head_again_and_ends_with_the_same_weights(
    cells: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"head": "warm_start", "epochs": 1, "ema": 0.9}
    complete = _train(cells, weights, tmp_path / "complete", **changes)

    def kill() -> None:
        raise KeyboardInterrupt

    call_at_step(3, kill, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        _train(cells, weights, tmp_path / "killed", **changes)
    (resumed,) = parfocal.train(cells, out=tmp_path / "killed", resume=True)
    assert_identical_runs(complete.folder, resumed.folder)


def test_the_head_takes_the_weights_of_the_probe() -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20"), CLASSES)
    rng = np.random.default_rng(0)
    write_head(classifier, LinearProbe(rng.normal(size=(3, 64)), rng.normal(size=3), 1.0, 5, 0.5))
    features = torch.rand(2, 64)
    rng = np.random.default_rng(0)
    expected = features.double() @ torch.from_numpy(rng.normal(size=(3, 64))).T + torch.from_numpy(rng.normal(size=3))
    torch.testing.assert_close(classifier.network.fc(features).double(), expected, atol=1e-5, rtol=1e-5)
