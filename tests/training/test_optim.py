"""The learning rate as a function of the step, and the optimisers by name."""
# MERGED: """Held stages do not move by a bit, norms included; more are let go as epochs pass, and rates go by depth."""

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
from parfocal.run import Run
from parfocal.schema import NetworkConfig, TrainingConfig
from parfocal.training import step as one_epoch
from parfocal.training.optim import (
    build_optimizer,
    compute_learning_rate,
    freeze_stages,
    peak_learning_rate,
    update_ema,
)
from tests.cells import SMALL_RECIPE
from tests.report.read_report import read_report


@given(epochs=st.integers(1, 30), steps=st.integers(1, 50), warmup=st.integers(0, 5))
def test_cosine_climbs_then_falls_and_stays_within_its_top(epochs: int, steps: int, warmup: int) -> None:
    part = TrainingConfig(epochs=epochs, warmup=min(warmup, epochs), learning_rate=0.1, schedule="cosine")
    rates = [compute_learning_rate(step, steps, part) for step in range(epochs * steps)]
    warm = round(part.warmup * steps)
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[warm:] == sorted(rates[warm:], reverse=True)
    if warm < len(rates):
        assert rates[warm] == pytest.approx(0.1)


def test_constant_stays_after_warm_up() -> None:
    part = TrainingConfig(epochs=4, warmup=1, learning_rate=0.1, schedule="constant")
    rates = [compute_learning_rate(step, 4, part) for step in range(16)]
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert set(rates[4:]) == {0.1}


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimisers_by_name(name: str, kind: type[torch.optim.Optimizer]) -> None:
    part = TrainingConfig(optimizer=name, learning_rate=0.01, weight_decay=0.1)  # type: ignore[arg-type]
    made = build_optimizer(torch.nn.Linear(2, 2), part)
    assert type(made) is kind
    assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (0.01, 0.1)


SCHEDULES = ("constant", "step", "cosine", "one_cycle", "plateau")


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(epochs=st.integers(1, 30), steps=st.integers(1, 50), warmup=st.floats(0, 5), falls=st.integers(0, 3))
def test_every_schedule_climbs_while_it_warms_up_and_never_after(
    schedule: str, epochs: int, steps: int, warmup: float, falls: int
) -> None:
    part = TrainingConfig(epochs=epochs, warmup=min(warmup, epochs), learning_rate=0.1, schedule=schedule)  # type: ignore[arg-type]
    rates = np.array([compute_learning_rate(step, steps, part, falls) for step in range(epochs * steps)])
    assert (rates > 0).all()
    assert (rates <= 0.1 + 1e-12).all()
    top = rates.argmax()
    assert (np.diff(rates[: top + 1]) >= 0).all()
    assert (np.diff(rates[top:]) <= 1e-12).all()


@pytest.mark.parametrize(("epochs", "steps", "warmup"), [(10, 10, 0), (4, 25, 1), (3, 7, 0.9)])
def test_one_cycle_is_pytorchs(epochs: int, steps: int, warmup: float) -> None:
    part = TrainingConfig(epochs=epochs, warmup=warmup, learning_rate=0.4, schedule="one_cycle")
    optimise = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.4)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimise, 0.4, total_steps=epochs * steps, pct_start=warmup / epochs or 0.3, cycle_momentum=False
    )
    for step in range(epochs * steps):
        assert compute_learning_rate(step, steps, part) == pytest.approx(optimise.param_groups[0]["lr"])
        optimise.step()
        theirs.step()


def test_steps_fall_every_so_many_epochs_and_plateaus_when_told() -> None:
    part = TrainingConfig(epochs=7, learning_rate=1, schedule="step", lr_gamma=0.5, lr_step=3)
    assert [compute_learning_rate(epoch * 10, 10, part) for epoch in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    part = TrainingConfig(epochs=7, learning_rate=1, schedule="plateau", lr_gamma=0.5)
    assert [compute_learning_rate(30, 10, part, falls) for falls in range(3)] == [1, 0.5, 0.25]


def test_the_rate_is_scaled_with_the_images_of_a_step() -> None:
    def scaled(rule: str) -> float:
        return peak_learning_rate(TrainingConfig(learning_rate=0.1, batch_size=64, accumulate=2, lr_scaling=rule))  # type: ignore[arg-type]

    assert [scaled(rule) for rule in ("none", "linear", "square_root")] == pytest.approx([0.1, 0.4, 0.2])
    part = TrainingConfig(learning_rate=0.1, batch_size=8, lr_scaling="linear", schedule="constant")
    assert compute_learning_rate(5, 10, part) == pytest.approx(0.025)


def test_norms_and_biases_decay_only_when_all_does() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    (everything,) = build_optimizer(network, TrainingConfig(weight_decay=0.1)).param_groups
    assert len(everything["params"]) == 4
    weights, others = build_optimizer(network, TrainingConfig(weight_decay=0.1, no_decay_norm_bias=True)).param_groups
    assert [tuple(one.shape) for one in weights["params"]] == [(4, 3, 3, 3)]
    assert (weights["weight_decay"], others["weight_decay"], len(others["params"])) == (0.1, 0, 3)


def test_the_average_follows_the_weights_faster_at_the_start() -> None:
    network, average = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(network.weight, 3)
    network(torch.randn(4, 2))
    update_ema(average, network, 0.9, step=0)
    assert average.weight.tolist() == pytest.approx([0.1 * 1 + 0.9 * 3] * 2)
    torch.nn.init.constant_(average.weight, 1)
    update_ema(average, network, 0.9, step=1000)
    assert average.weight.tolist() == pytest.approx([0.9 * 1 + 0.1 * 3] * 2)
    assert average.num_batches_tracked == network.num_batches_tracked == 1
    assert network.weight.tolist() == [3, 3]


STARTED: dict[str, Any] = {**SMALL_RECIPE, "weight_decay": 0.01}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    torch.save(resnet.build_resnet("resnet20", 1000).state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


def _moved(run: Run, file: Path) -> set[str]:
    """Name the stages of which any weight or statistic differs from the file's."""
    first, (last, _) = torch.load(file, weights_only=True), read_tensors(run.checkpoint_path)
    now = {name.removeprefix("network/network."): value for name, value in last.items()}
    return {name.split(".")[0] for name in first if name[:2] != "fc" and not now[name].equal(first[name])}


@pytest.mark.parametrize(
    ("freeze", "free"),
    [
        ("head", set()),
        ("stage3", {"layer3"}),
        ("stage1", {"layer3", "layer2", "layer1"}),
        ("none", {"layer3", "layer2", "layer1", "conv1", "bn1"}),
    ],
)
def test_held_stages_are_bit_equal_after_training(
    cells: Path, tmp_path: Path, weights: Path, freeze: str, free: set[str]
) -> None:
    changes = {**STARTED, "epochs": 1, "init": str(weights), "freeze": freeze}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert _moved(run, weights) == free
    assert run.initial_weights_path.exists()


def test_more_stages_are_let_go_as_epochs_pass() -> None:
    network = nn.Sequential(resnet.build_resnet("resnet18", 2))
    part = TrainingConfig(freeze="head", unfreeze_every=2)
    expected = ["fc", "layer4", "layer3", "layer2", "layer1", "conv1"]
    for epoch in range(14):
        network.train()
        freeze_stages(network, part, epoch)
        training = {name.split(".")[1] for name, weight in network.named_parameters() if weight.requires_grad}
        assert training - {"bn1"} == set(expected[: 1 + epoch // 2])
        norms = {
            name.split(".")[1] for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training
        }
        assert norms == training - {"fc", "conv1"}


class _KilledError(Exception):
    pass


def test_killed_and_gone_on_with_while_stages_are_let_go_it_ends_the_same(
    cells: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**STARTED, "epochs": 4, "init": str(weights), "freeze": "head", "unfreeze_every": 1, "layer_decay": 0.5}
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", optimizer="adam", learning_rate=0.01, **changes)
    step, taken = one_epoch.train_step, 0

    def killed(*given: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 16:
            raise _KilledError
        return step(*given)

    monkeypatch.setattr(one_epoch, "train_step", killed)
    with pytest.raises(_KilledError):
        parfocal.train(cells, out=tmp_path / "cut", optimizer="adam", learning_rate=0.01, **changes)
    assert _moved(whole, weights) == {"layer3", "layer2", "layer1"}
    weights.unlink()
    (cut,) = parfocal.train(cells, out=tmp_path / "cut", resume=True)
    for one, other in ((whole.weights_path, cut.weights_path), (whole.checkpoint_path, cut.checkpoint_path)):
        first, second = read_tensors(one)[0], read_tensors(other)[0]
        assert first.keys() == second.keys()
        assert all(second[name].equal(value) for name, value in first.items())


def test_the_rate_falls_from_stage_to_stage() -> None:
    network = resnet.build_resnet("resnet18", 2)
    made = build_optimizer(network, TrainingConfig(layer_decay=0.5))
    assert [group["factor"] for group in made.param_groups] == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert made.param_groups[0]["params"][0] is network.fc.weight
    counted = sum(weight.numel() for group in made.param_groups for weight in group["params"])
    assert counted == sum(weight.numel() for weight in network.parameters())


def test_steps_are_as_long_as_the_rate_of_their_stage(cells: Path, tmp_path: Path) -> None:
    moved: list[float] = []
    for factor in (1.0, 1e-30):
        changes = {**SMALL_RECIPE, "epochs": 1, "layer_decay": factor, "seed": 5}
        (run,) = parfocal.train(cells, out=tmp_path / str(factor), **changes)
        torch.manual_seed(5)
        fresh = resnet.build_resnet("resnet20", 2).conv1.weight
        moved.append((read_tensors(run.weights_path)[0]["conv1.weight"] - fresh).abs().max().item())
    assert moved[0] > 1e-3
    assert moved[1] == 0


def test_what_cannot_be_is_named_before_any_work(cells: Path, tmp_path: Path, weights: Path) -> None:
    with pytest.raises(UsageError, match=r"freeze=stage4: resnet20 has the stages 1 to 3"):
        parfocal.train(cells, out=tmp_path / "runs", **{**STARTED, "init": str(weights), "freeze": "stage4"})
    with pytest.raises(UsageError, match=r"init=nowhere\.pth does not exist"):
        parfocal.train(cells, out=tmp_path / "runs", **{**STARTED, "init": "nowhere.pth"})
    with pytest.raises(ParfocalError, match="does not fit resnet56"):
        parfocal.train(cells, out=tmp_path / "runs", **{**STARTED, "init": str(weights), "model": "resnet56"})
    assert not (tmp_path / "runs").exists()


def test_several_starts_make_runs_with_names_that_are_folders(cells: Path, tmp_path: Path, weights: Path) -> None:
    changes = {**STARTED, "epochs": 1, "init": ["scratch", str(weights)]}
    runs = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert all(run.folder.parent == tmp_path / "runs" for run in runs)
    assert [run.initial_weights_path.exists() for run in runs] == [False, True]
    (again,) = parfocal.train(cells, out=tmp_path / "next", **{**STARTED, "epochs": 1, "init": str(runs[0].folder)})
    assert '"newly_initialized": []' in again.initial_weights_path.read_text()
    page = read_report([run.folder for run in runs])
    assert f"{runs[1].name}: Started from {weights}" in page
    assert f"{runs[0].name}: Started from" not in page


@pytest.mark.parametrize("decay", [False, True])
def test_cutpoints_between_grades_learn_with_the_head(decay: bool) -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20"), ("a", "b", "c"), loss="cumulative_link")
    part = TrainingConfig(layer_decay=0.5, no_decay_norm_bias=decay)
    groups = build_optimizer(classifier, part).param_groups
    factors = {id(weight): group["factor"] for group in groups for weight in group["params"]}
    assert set(factors) == {id(weight) for weight in classifier.parameters()}
    assert classifier.ordinal_head is not None
    assert {factors[id(weight)] for weight in classifier.ordinal_head.parameters()} == {1}
