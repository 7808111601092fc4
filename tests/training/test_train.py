"""Training from a folder to a judged run: what is written, what is refused, and going on after a kill."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import parfocal
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.predictions import Predictions
from parfocal.models.checkpoints import read_tensors
from parfocal.training import step as epoch
from parfocal.training import trainer
from parfocal.training.train import default_folder
from tests.cells import SMALL_RECIPE


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": "resnet18", "groups": 2}, "groups and width_per_group need"),
        ({"sampling": "factors", "factors": (1, 2, 3)}, "factors"),
        ({"model": "resnet18", "batch_size": 1}, "The smallest batch that works is batch_size=2"),
    ],
)
def test_what_cannot_train_is_refused_before_a_run_is_begun(
    cells: Path, tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(ParfocalError, match=said):
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, **wrong})
    assert not list((tmp_path / "runs").rglob("recipe.yaml"))


def test_a_run_folder_holds_everything(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", test_curve=True, **SMALL_RECIPE)
    assert run.is_finished
    history = run.read_history()
    assert history["epoch"].tolist() == [1, 2, 3]
    columns = {"train_loss", "train_accuracy", "valid_accuracy", "test_accuracy", "learning_rate"}
    assert columns | {"images_per_second", "waiting"} <= set(history.columns)
    metrics = run.read_metrics()
    assert metrics["valid"]["accuracy"] == pytest.approx(history["valid_accuracy"].max())
    assert metrics["best_epoch"] == history["valid_accuracy"].to_numpy().argmax() + 1
    assert metrics["test"]["count"] == 12
    assert Predictions.load(run.predictions_path("test")).classes == ("normal", "blast")
    assert list(pd.read_csv(run.folder / "submission.csv").columns) == ["ID", "label"]
    environment = run.read_environment()
    assert environment["seed"] == 0
    assert environment["packages"]["torch"]
    assert len(Table.load(run)) == 76


@pytest.mark.parametrize("select", ["balanced_accuracy", "kappa", "quadratic_kappa", "auc", "loss"])
def test_the_best_epoch_is_that_of_the_selected_figure(cells: Path, tmp_path: Path, select: str) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "select": select})
    figures = run.read_history()[f"valid_{select}"].to_numpy()
    assert run.read_metrics()["best_epoch"] == (figures.argmin() if select == "loss" else figures.argmax()) + 1


def test_a_figure_that_valid_cannot_tell_is_refused_before_a_run_is_begun(cells: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(cells / "valid.csv")
    rows[rows["label"] == 0].to_csv(cells / "valid.csv", index=False)
    with pytest.raises(UsageError, match=r"select=auc needs two classes .* no image of blast\."):
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "select": "auc"})
    assert not (tmp_path / "runs").exists()


def test_small_cells_are_learnt(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 8})
    assert run.read_metrics()["valid"]["accuracy"] >= 0.9
    assert run.read_history()["train_loss"].iloc[-1] < run.read_history()["train_loss"].iloc[0]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(cells: Path, tmp_path: Path) -> None:
    runs = [
        parfocal.train(cells, out=tmp_path / name, **{**SMALL_RECIPE, "epochs": 1, "dropout": 0.3, "seed": seed})[0]
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    ]
    weights = [read_tensors(run.weights_path)[0] for run in runs]
    assert all(weights[1][key].equal(value) for key, value in weights[0].items())
    assert not weights[2]["conv1.weight"].equal(weights[0]["conv1.weight"])


def test_several_networks_share_everything_else(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "epochs": 1, "model": ["plain20", "resnet20"]}
    runs = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert [run.name for run in runs] == ["plain20", "resnet20"]
    tables = [run.table_path.read_text() for run in runs]
    assert tables[0] == tables[1]


def _train_command(cells: Path, out: Path, *words: str) -> list[str]:
    changes = {
        **SMALL_RECIPE,
        "epochs": 4,
        "dropout": 0.2,
        "optimizer": "adam",
        "learning_rate": 0.002,
        "schedule": "cosine",
    }
    pairs = [f"{key}={value}" for key, value in changes.items()]
    return [sys.executable, "-c", _KILLED_TRAINING, "train", str(cells), *pairs, "--out", str(out), *words]


# Runs the command line, but the process kills itself at the step named in the environment, as a power cut would.
_KILLED_TRAINING = """
import os, signal
from parfocal.commands import main
from parfocal.training import epoch, trainer

steps, step = int(os.environ.get("KILL_AT", "-1")), epoch.train_step
def counted(*given):
    global steps
    if steps == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    steps -= 1
    return step(*given)
epoch.train_step = counted
main()
"""


@pytest.mark.parametrize("kill_at", [2, 15])
def test_killed_and_gone_on_with_it_ends_with_the_same_weights(cells: Path, tmp_path: Path, kill_at: int) -> None:
    def run(out: str, *words: str, kill: int = -1) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KILL_AT": str(kill), "OMP_NUM_THREADS": "2"}
        command = _train_command(cells, tmp_path / out, *words)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert run("whole").returncode == 0
    assert run("cut", kill=kill_at).returncode == -signal.SIGKILL
    assert not list((tmp_path / "cut").rglob("metrics.json"))
    assert run("cut", "--resume").returncode == 0
    _same_to_the_bit(tmp_path / "whole" / "resnet20", tmp_path / "cut" / "resnet20")


def _same_to_the_bit(whole: Path, cut: Path) -> None:
    for name in ("model.safetensors", "last.ckpt"):
        (one, _), (other, _) = (read_tensors(folder / name) for folder in (whole, cut))
        assert one.keys() == other.keys()
        assert all(other[key].equal(value) for key, value in one.items())
    timed = ["images_per_second", "waiting", "seconds"]
    one, other = (pd.read_csv(folder / "history.csv") for folder in (whole, cut))
    pd.testing.assert_frame_equal(one.drop(columns=timed), other.drop(columns=timed))


@pytest.mark.parametrize(
    ("loss", "ema"), [("cross_entropy", 0.9), ("regression", 0), ("regression", 0.9), ("cumulative_link", 0.9)]
)
def test_plateau_average_and_gathered_gradients_go_on_to_the_bit(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, ema: float
) -> None:
    changes = {"schedule": "plateau", "lr_gamma": 0.5, "lr_step": 1, "ema": ema, "accumulate": 4, "clip_grad": 1.0}
    changes |= {
        **SMALL_RECIPE,
        "epochs": 4,
        "loss": loss,
        "mixup": 0.2,
        "no_decay_norm_bias": True,
        "weight_decay": 0.01,
    }
    measure = trainer.validate
    # The same accuracy after every epoch is a plateau, whatever this processor makes of the network.
    monkeypatch.setattr(trainer, "validate", lambda *given: {**measure(*given), "valid_accuracy": 0.5})
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", **changes)
    step, steps = epoch.train_step, itertools.count()

    def cut(*given: Any) -> Any:
        if next(steps) == 5:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(epoch, "train_step", cut)
    with pytest.raises(KeyboardInterrupt):
        parfocal.train(cells, out=tmp_path / "cut", **changes)
    (run,) = parfocal.train(cells, out=tmp_path / "cut", resume=True)
    assert whole.read_history()["learning_rate"].is_monotonic_decreasing
    assert whole.read_history()["learning_rate"].nunique() == 3
    _same_to_the_bit(whole.folder, run.folder)


def test_a_run_in_the_way_is_not_overwritten(cells: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {**SMALL_RECIPE, "epochs": 1}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    before = run.weights_path.read_bytes()
    with pytest.raises(ParfocalError, match=r"holds a run already\. Go on with --resume"):
        parfocal.train(cells, out=tmp_path / "runs", **changes)
    with pytest.raises(UsageError, match=r"another recipe: training\.epochs was 1, now 2"):
        parfocal.train(cells, out=tmp_path / "runs", resume=True, **{**changes, "epochs": 2})
    parfocal.train(cells, out=tmp_path / "runs", resume=True)
    assert run.weights_path.read_bytes() == before


def test_a_finished_run_stays_as_it_is_and_one_that_is_gone_on_with_tells_where(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()}

    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    begun, before = run.read_environment(), written()
    monkeypatch.setattr(parfocal, "__version__", "elsewhere")
    parfocal.train(cells, out=tmp_path / "runs", resume=True, save_every=3)
    assert written() == before
    (run.folder / "metrics.json").unlink()
    parfocal.train(cells, out=tmp_path / "runs", resume=True)
    assert run.read_environment() == {**begun, "gone_on": run.read_environment()["gone_on"]}
    assert [one["parfocal"] for one in run.read_environment()["gone_on"]] == ["elsewhere"]
    changed = {name for name, when in written().items() if when != before.get(name)}
    assert not changed & {"table.csv", "views.png", "model.safetensors"}


def test_going_on_with_nothing_or_other_rows_is_refused(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="holds no run to go on with"):
        parfocal.train(cells, out=tmp_path / "runs", resume=True)
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    (run.folder / "metrics.json").unlink()
    pd.read_csv(cells / "train.csv").iloc[:-1].to_csv(cells / "train.csv", index=False)
    with pytest.raises(ParfocalError, match=r"are not those that .* was begun with"):
        parfocal.train(cells, out=tmp_path / "runs", resume=True)


def test_an_unknown_network_is_named_before_any_work(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        parfocal.train(cells, out=tmp_path / "runs", model="resnet-18")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_a_bad_image_stops_training_or_is_left_out_by_name(cells: Path, tmp_path: Path, fault: str) -> None:
    image = cells / "new_dataset" / "train" / "5.bmp"
    code = {"missing": "missing_files", "corrupt": "unreadable_images"}[fault]
    image.unlink() if fault == "missing" else image.write_bytes(image.read_bytes()[:99])
    with pytest.raises(ParfocalError, match=rf"train/5\.bmp.*allow={code}"):
        parfocal.train(cells, out=tmp_path / "runs", **SMALL_RECIPE)
    assert not (tmp_path / "runs").exists()
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1, "allow": [code]})
    assert "./new_dataset/train/5.bmp" not in run.table_path.read_text()
    told = {one["code"]: one for one in run.read_environment()["data"]["findings"]}
    assert f"Waived by allow={code}" in told[code]["text"]


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_a_waiver_that_leaves_nothing_of_a_split_or_one_class_is_refused(
    cells: Path, tmp_path: Path, fault: str
) -> None:
    def spoil(images: list[Path]) -> None:
        for image in images:
            image.unlink() if fault == "missing" else image.write_bytes(b"")

    changes = {**SMALL_RECIPE, "allow": ["missing_files", "unreadable_images"]}
    spoil([cells / "new_dataset" / "train" / f"{number}.bmp" for number in range(1, 48, 2)])
    with pytest.raises(ParfocalError, match="The train split has one class only"):
        parfocal.train(cells, out=tmp_path / "runs", **changes)
    spoil(list((cells / "new_dataset" / "valid").iterdir()))
    with pytest.raises(ParfocalError, match=r"The valid split of .* is empty"):
        parfocal.train(cells, out=tmp_path / "runs", **changes)


def test_without_a_valid_split_one_is_carved_and_written_down(draw: Callable[..., Path], tmp_path: Path) -> None:
    folder = draw(tmp_path / "cells", train=60)
    (folder / "valid.csv").unlink()
    (run,) = parfocal.train(folder, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    rows = pd.read_csv(run.table_path)
    assert set(rows["split"]) == {"train", "valid", "test"}
    assert rows.groupby("group")["split"].nunique().max() == 1
    assert "by group, are valid" in run.read_environment()["data"]["source"]


def test_training_that_blows_up_says_what_to_change(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ParfocalError, match=r"blew up in epoch 1, step \d, .*new_dataset/train/\d+\.bmp.*lower learning"
    ):
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "learning_rate": 1e30})
    with pytest.raises(ParfocalError, match=r"blew up in epoch 1, step \d"):
        parfocal.train(cells, out=tmp_path / "high", **{**SMALL_RECIPE, "learning_rate": 1e4})
    assert not (tmp_path / "runs" / "resnet20" / "last.ckpt").exists()


def test_a_run_ends_early_when_its_patience_does_and_going_on_adds_nothing(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "epochs": 9, "patience": 2, "learning_rate": 1e-9, "schedule": "constant"}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    history, metrics = run.read_history(), run.read_metrics()
    assert len(history) == metrics["best_epoch"] + 2 < 9
    (run.folder / "metrics.json").unlink()
    parfocal.train(cells, out=tmp_path / "runs", resume=True)
    pd.testing.assert_frame_equal(run.read_history(), history)
    assert run.read_metrics() == metrics


def test_a_recipe_that_needs_a_run_before_says_which(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"parfocal train cifar10 --recipe cifar10 --out runs/cifar10\.$"):
        parfocal.train(cells, "fundus-cifar10", out=tmp_path / "runs", init="nowhere")
    with pytest.raises(UsageError, match=r"or a run folder\.$"):
        parfocal.train(cells, "fundus", out=tmp_path / "runs", init="nowhere")


@pytest.mark.parametrize(
    ("source", "experiment", "folder"),
    [(None, "", "cells-custom"), ("demo", "", "cells-demo"), ("fundus", "pretraining", "cells-fundus-pretraining")],
)
def test_runs_lie_in_a_folder_named_after_what_they_are(source: str, experiment: str, folder: str) -> None:
    assert default_folder("some/cells", source, experiment) == Path("runs") / folder


def test_every_json_of_a_run_is_plain(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    for path in run.folder.glob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
