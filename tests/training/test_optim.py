"""Learning-rate schedules, optimizers, layer-wise learning rates, frozen stages and the EMA of the weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.models import resnet
from parfocal.models.checkpoints import read_tensors
from parfocal.models.classifier import build_classifier
from parfocal.recipe_schema import NetworkConfig, TrainingConfig
from parfocal.run import Run
from parfocal.training.optim import (
    build_optimizer,
    compute_learning_rate,
    freeze_stages,
    peak_learning_rate,
    update_ema,
)
from tests.cells import SMALL_RECIPE
from tests.report.read_report import read_report
from tests.training.resuming import assert_identical_runs, call_at_step

SCHEDULES = ("constant", "step", "cosine", "one_cycle", "plateau")
DECAYED: dict[str, Any] = {**SMALL_RECIPE, "weight_decay": 0.01}


@given(epochs=st.integers(1, 30), steps_per_epoch=st.integers(1, 50), warmup=st.integers(0, 5))
def test_the_cosine_schedule_rises_then_falls_and_never_exceeds_its_peak(
    epochs: int, steps_per_epoch: int, warmup: int
) -> None:
    config = TrainingConfig(epochs=epochs, warmup=min(warmup, epochs), learning_rate=0.1, schedule="cosine")
    rates = [compute_learning_rate(step, steps_per_epoch, config) for step in range(epochs * steps_per_epoch)]
    warmup_steps = round(config.warmup * steps_per_epoch)
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates[:warmup_steps] == sorted(rates[:warmup_steps])
    assert rates[warmup_steps:] == sorted(rates[warmup_steps:], reverse=True)
    if warmup_steps < len(rates):
        assert rates[warmup_steps] == pytest.approx(0.1)


def test_the_constant_schedule_does_not_change_after_the_warmup() -> None:
    config = TrainingConfig(epochs=4, warmup=1, learning_rate=0.1, schedule="constant")
    rates = [compute_learning_rate(step, 4, config) for step in range(16)]
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert set(rates[4:]) == {0.1}


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(
    epochs=st.integers(1, 30),
    steps_per_epoch=st.integers(1, 50),
    warmup=st.floats(0, 5),
    n_reductions=st.integers(0, 3),
)
def test_every_schedule_rises_during_the_warmup_and_never_after(
    schedule: str, epochs: int, steps_per_epoch: int, warmup: float, n_reductions: int
) -> None:
    config = TrainingConfig(epochs=epochs, warmup=min(warmup, epochs), learning_rate=0.1, schedule=schedule)  # type: ignore[arg-type]
    steps = range(epochs * steps_per_epoch)
    rates = np.array([compute_learning_rate(step, steps_per_epoch, config, n_reductions) for step in steps])
    assert (rates > 0).all()
    assert (rates <= 0.1 + 1e-12).all()
    peak_step = rates.argmax()
    assert (np.diff(rates[: peak_step + 1]) >= 0).all()
    assert (np.diff(rates[peak_step:]) <= 1e-12).all()


@pytest.mark.parametrize(("epochs", "steps_per_epoch", "warmup"), [(10, 10, 0), (4, 25, 1), (3, 7, 0.9)])
def test_the_one_cycle_schedule_is_pytorchs(epochs: int, steps_per_epoch: int, warmup: float) -> None:
    config = TrainingConfig(epochs=epochs, warmup=warmup, learning_rate=0.4, schedule="one_cycle")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.4, total_steps=epochs * steps_per_epoch, pct_start=warmup / epochs or 0.3, cycle_momentum=False
    )
    for step in range(epochs * steps_per_epoch):
        expected = optimizer.param_groups[0]["lr"]
        assert compute_learning_rate(step, steps_per_epoch, config) == pytest.approx(expected)
        optimizer.step()
        scheduler.step()


def test_the_step_schedule_falls_every_lr_step_epochs_and_the_plateau_schedule_by_its_reductions() -> None:
    config = TrainingConfig(epochs=7, learning_rate=1, schedule="step", lr_gamma=0.5, lr_step=3)
    assert [compute_learning_rate(epoch * 10, 10, config) for epoch in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    config = TrainingConfig(epochs=7, learning_rate=1, schedule="plateau", lr_gamma=0.5)
    assert [compute_learning_rate(30, 10, config, n_reductions) for n_reductions in range(3)] == [1, 0.5, 0.25]


def test_the_learning_rate_is_scaled_with_the_images_of_a_step() -> None:
    def scale(lr_scaling: str) -> float:
        config = TrainingConfig(learning_rate=0.1, batch_size=64, accumulate=2, lr_scaling=lr_scaling)  # type: ignore[arg-type]
        return peak_learning_rate(config)

    assert [scale("none"), scale("linear"), scale("square_root")] == pytest.approx([0.1, 0.4, 0.2])
    config = TrainingConfig(learning_rate=0.1, batch_size=8, lr_scaling="linear", schedule="constant")
    assert compute_learning_rate(5, 10, config) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("name", "optimizer_class"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_each_optimizer_is_built_by_its_name(name: str, optimizer_class: type[torch.optim.Optimizer]) -> None:
    config = TrainingConfig(optimizer=name, learning_rate=0.01, weight_decay=0.1)  # type: ignore[arg-type]
    optimizer = build_optimizer(torch.nn.Linear(2, 2), config)
    assert type(optimizer) is optimizer_class
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.01, 0.1)


def test_batch_norm_and_biases_decay_unless_the_recipe_excludes_them() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    (group,) = build_optimizer(network, TrainingConfig(weight_decay=0.1)).param_groups
    assert len(group["params"]) == 4
    config = TrainingConfig(weight_decay=0.1, no_decay_norm_bias=True)
    weights, norms_and_biases = build_optimizer(network, config).param_groups
    assert [tuple(weight.shape) for weight in weights["params"]] == [(4, 3, 3, 3)]
    assert weights["weight_decay"] == 0.1
    assert norms_and_biases["weight_decay"] == 0
    assert len(norms_and_biases["params"]) == 3


def test_layer_decay_lowers_the_learning_rate_from_stage_to_stage() -> None:
    network = resnet.build_resnet("resnet18", 2)
    groups = build_optimizer(network, TrainingConfig(layer_decay=0.5)).param_groups
    assert [group["lr_scale"] for group in groups] == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert groups[0]["params"][0] is network.fc.weight
    n_parameters = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert n_parameters == sum(parameter.numel() for parameter in network.parameters())


def test_layer_decay_shortens_the_steps_of_early_stages(cells: Path, tmp_path: Path) -> None:
    movements: list[float] = []
    for layer_decay in (1.0, 1e-30):
        changes = {**SMALL_RECIPE, "epochs": 1, "layer_decay": layer_decay, "seed": 5}
        (run,) = parfocal.train(cells, out=tmp_path / str(layer_decay), **changes)
        torch.manual_seed(5)
        initial = resnet.build_resnet("resnet20", 2).conv1.weight
        movements.append((read_tensors(run.weights_path)[0]["conv1.weight"] - initial).abs().max().item())
    assert movements[0] > 1e-3
    assert movements[1] == 0


@pytest.mark.parametrize("no_decay_norm_bias", [False, True])
def test_the_cutpoints_of_an_ordinal_head_have_the_learning_rate_of_the_head(no_decay_norm_bias: bool) -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20"), ("a", "b", "c"), loss="cumulative_link")
    config = TrainingConfig(layer_decay=0.5, no_decay_norm_bias=no_decay_norm_bias)
    groups = build_optimizer(classifier, config).param_groups
    scales = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    assert set(scales) == {id(parameter) for parameter in classifier.parameters()}
    assert classifier.ordinal_head is not None
    assert {scales[id(parameter)] for parameter in classifier.ordinal_head.parameters()} == {1}


def test_the_ema_follows_the_weights_faster_at_the_start() -> None:
    network = torch.nn.BatchNorm1d(2)
    ema_model = torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(network.weight, 3)
    network(torch.randn(4, 2))
    update_ema(ema_model, network, 0.9, step=0)
    assert ema_model.weight.tolist() == pytest.approx([0.1 * 1 + 0.9 * 3] * 2)
    torch.nn.init.constant_(ema_model.weight, 1)
    update_ema(ema_model, network, 0.9, step=1000)
    assert ema_model.weight.tolist() == pytest.approx([0.9 * 1 + 0.1 * 3] * 2)
    assert ema_model.num_batches_tracked == network.num_batches_tracked == 1
    assert network.weight.tolist() == [3, 3]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of initial weights."""
    torch.manual_seed(3)
    torch.save(resnet.build_resnet("resnet20", 1000).state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


def _find_changed_stages(run: Run, weights: Path) -> set[str]:
    """Name the stages in which any weight or running statistic differs from the initial weights."""
    initial = torch.load(weights, weights_only=True)
    trained = read_tensors(run.checkpoint_path)[0]
    return {
        name.split(".")[0]
        for name, value in initial.items()
        if not name.startswith("fc") and not trained[f"network/network.{name}"].equal(value)
    }


@pytest.mark.parametrize(
    ("freeze", "trained_stages"),
    [
        ("head", set()),
        ("stage3", {"layer3"}),
        ("stage1", {"layer3", "layer2", "layer1"}),
        ("none", {"layer3", "layer2", "layer1", "conv1", "bn1"}),
    ],
)
def test_frozen_stages_are_bit_identical_after_training(
    cells: Path, tmp_path: Path, weights: Path, freeze: str, trained_stages: set[str]
) -> None:
    changes = {**DECAYED, "epochs": 1, "init": str(weights), "freeze": freeze}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert _find_changed_stages(run, weights) == trained_stages
    assert run.initial_weights_path.exists()


def test_stages_are_unfrozen_as_epochs_pass() -> None:
    network = nn.Sequential(resnet.build_resnet("resnet18", 2))
    config = TrainingConfig(freeze="head", unfreeze_every=2)
    stages = ["fc", "layer4", "layer3", "layer2", "layer1", "conv1"]
    for epoch in range(14):
        network.train()
        freeze_stages(network, config, epoch)
        trainable = {name.split(".")[1] for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert trainable - {"bn1"} == set(stages[: 1 + epoch // 2])
        training_norms = {
            name.split(".")[1]
            for name, module in network.named_modules()
            if isinstance(module, nn.BatchNorm2d) and module.training
        }
        assert training_norms == trainable - {"fc", "conv1"}


def test_killed_while_stages_are_unfrozen_it_resumes_bit_exactly(
    cells: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def kill() -> None:
        raise KilledError

    changes = {**DECAYED, "epochs": 4, "init": str(weights), "freeze": "head", "unfreeze_every": 1, "layer_decay": 0.5}
    changes |= {"optimizer": "adam", "learning_rate": 0.01}
    (complete,) = parfocal.train(cells, out=tmp_path / "complete", **changes)
    call_at_step(16, kill, monkeypatch)
    with pytest.raises(KilledError):
        parfocal.train(cells, out=tmp_path / "killed", **changes)
    assert _find_changed_stages(complete, weights) == {"layer3", "layer2", "layer1"}
    weights.unlink()
    (resumed,) = parfocal.train(cells, out=tmp_path / "killed", resume=True)
    assert_identical_runs(complete.folder, resumed.folder)


def test_invalid_stages_and_initial_weights_are_named_before_any_work(
    cells: Path, tmp_path: Path, weights: Path
) -> None:
    with pytest.raises(UsageError, match=r"freeze=stage4: resnet20 has the stages 1 to 3"):
        parfocal.train(cells, out=tmp_path / "runs", **{**DECAYED, "init": str(weights), "freeze": "stage4"})
    with pytest.raises(UsageError, match=r"init=nowhere\.pth "):
        parfocal.train(cells, out=tmp_path / "runs", **{**DECAYED, "init": "nowhere.pth"})
    with pytest.raises(ParfocalError, match="resnet56"):
        parfocal.train(cells, out=tmp_path / "runs", **{**DECAYED, "init": str(weights), "model": "resnet56"})
    assert not (tmp_path / "runs").exists()


def test_runs_with_different_initial_weights_have_valid_folder_names_and_report_their_weights(
    cells: Path, tmp_path: Path, weights: Path
) -> None:
    changes = {**DECAYED, "epochs": 1, "init": ["scratch", str(weights)]}
    scratch, pretrained = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert scratch.folder.parent == pretrained.folder.parent == tmp_path / "runs"
    assert not scratch.initial_weights_path.exists()
    description = json.loads(pretrained.initial_weights_path.read_text())["text"]
    assert str(weights) in description
    changes = {**DECAYED, "epochs": 1, "init": str(scratch.folder)}
    (fine_tuned,) = parfocal.train(cells, out=tmp_path / "next", **changes)
    assert json.loads(fine_tuned.initial_weights_path.read_text())["newly_initialized"] == []
    report = read_report([scratch.folder, pretrained.folder])
    assert f"{pretrained.name}: {description[:30]}" in report
    assert f"{scratch.name}: {description[:10]}" not in report
