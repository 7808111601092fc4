"""Held stages do not move by a bit, norms included; more are let go as epochs pass, and rates go by depth."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import parfocal
from parfocal.errors import ParfocalError, UsageError
from parfocal.model import resnet
from parfocal.model.classifier import build_classifier
from parfocal.model.weights import read_tensors
from parfocal.parts import NetworkConfig, TrainingConfig
from parfocal.run import Run
from parfocal.training import epoch as one_epoch
from parfocal.training.optimise import build_optimizer
from parfocal.training.stages import freeze_stages
from tests.cells import SMALL_RECIPE
from tests.report.reading import read_report

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
    part = TrainingConfig(freeze="head", unfreeze=2)
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
    changes = {**STARTED, "epochs": 4, "init": str(weights), "freeze": "head", "unfreeze": 1, "rate_factor": 0.5}
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", optimiser="adam", learning_rate=0.01, **changes)
    step, taken = one_epoch.train_step, 0

    def killed(*given: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 16:
            raise _KilledError
        return step(*given)

    monkeypatch.setattr(one_epoch, "train_step", killed)
    with pytest.raises(_KilledError):
        parfocal.train(cells, out=tmp_path / "cut", optimiser="adam", learning_rate=0.01, **changes)
    assert _moved(whole, weights) == {"layer3", "layer2", "layer1"}
    weights.unlink()
    (cut,) = parfocal.train(cells, out=tmp_path / "cut", resume=True)
    for one, other in ((whole.weights_path, cut.weights_path), (whole.checkpoint_path, cut.checkpoint_path)):
        first, second = read_tensors(one)[0], read_tensors(other)[0]
        assert first.keys() == second.keys()
        assert all(second[name].equal(value) for name, value in first.items())


def test_the_rate_falls_from_stage_to_stage() -> None:
    network = resnet.build_resnet("resnet18", 2)
    made = build_optimizer(network, TrainingConfig(rate_factor=0.5))
    assert [group["factor"] for group in made.param_groups] == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert made.param_groups[0]["params"][0] is network.fc.weight
    counted = sum(weight.numel() for group in made.param_groups for weight in group["params"])
    assert counted == sum(weight.numel() for weight in network.parameters())


def test_steps_are_as_long_as_the_rate_of_their_stage(cells: Path, tmp_path: Path) -> None:
    moved: list[float] = []
    for factor in (1.0, 1e-30):
        changes = {**SMALL_RECIPE, "epochs": 1, "rate_factor": factor, "seed": 5}
        (run,) = parfocal.train(cells, out=tmp_path / str(factor), **changes)
        torch.manual_seed(5)
        fresh = resnet.build_resnet("resnet20", 2).conv1.weight
        moved.append((read_tensors(run.weights_path)[0]["conv1.weight"] - fresh).abs().max().item())
    assert moved[0] > 1e-3
    assert moved[1] == 0


def test_what_cannot_be_is_named_before_any_work(cells: Path, tmp_path: Path, weights: Path) -> None:
    with pytest.raises(UsageError, match=r"freeze=stage4: resnet20 has the stages 1 to 3"):
        parfocal.train(cells, out=tmp_path / "runs", **{**STARTED, "init": str(weights), "freeze": "stage4"})
    with pytest.raises(UsageError, match=r"init=nowhere\.pth is not there"):
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
    assert '"left_as_new": []' in again.initial_weights_path.read_text()
    page = read_report([run.folder for run in runs])
    assert f"{runs[1].name}: Started from {weights}" in page
    assert f"{runs[0].name}: Started from" not in page


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_cutpoints_between_grades_learn_with_the_head(decay: str) -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20"), ("a", "b", "c"), ordinal_head="cutpoints")
    part = TrainingConfig(rate_factor=0.5, decay=decay)  # type: ignore[arg-type]
    groups = build_optimizer(classifier, part).param_groups
    factors = {id(weight): group["factor"] for group in groups for weight in group["params"]}
    assert set(factors) == {id(weight) for weight in classifier.parameters()}
    assert classifier.ordinal_head is not None
    assert {factors[id(weight)] for weight in classifier.ordinal_head.parameters()} == {1}
