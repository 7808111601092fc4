"""Training from a data folder to an evaluated run: files, rejected input, and resuming after a kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import parfocal
from parfocal.data.table import Table, build_rows
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.predictions import Predictions
from parfocal.models.checkpoints import read_tensors
from parfocal.models.resnet import build_resnet
from parfocal.recipe import expand_recipes, load_recipe
from parfocal.training import environment as environment_module
from parfocal.training import train as train_module
from parfocal.training import trainer
from parfocal.training.train import validate_feasible, validate_select
from tests.cells import SMALL_RECIPE
from tests.report.read_report import read_report
from tests.training.resuming import assert_identical_runs, call_at_step

FINAL_MAP_1X1: dict[str, Any] = {"model": "resnet18", "crop_size": 32}
"""A network whose last feature map is a single pixel."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet18", "groups": 2}, "groups and width_per_group need"),
        ({"sampling": "factors", "factors": (1, 2, 3)}, "factors"),
        ({"model": "resnet18", "batch_size": 1}, "The smallest batch that works is batch_size=2"),
    ],
)
def test_a_recipe_that_cannot_train_is_rejected_before_a_run_is_created(
    cells: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParfocalError, match=message):
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, **changes})
    assert not list((tmp_path / "runs").rglob("recipe.yaml"))


def test_a_run_folder_contains_everything(cells: Path, tmp_path: Path) -> None:
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
def test_the_best_epoch_has_the_best_value_of_the_selection_metric(cells: Path, tmp_path: Path, select: str) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "select": select})
    values = run.read_history()[f"valid_{select}"].to_numpy()
    assert run.read_metrics()["best_epoch"] == (values.argmin() if select == "loss" else values.argmax()) + 1


def test_a_selection_metric_that_is_undefined_on_validation_is_rejected_before_a_run_is_created(
    cells: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(cells / "valid.csv")
    rows[rows["label"] == 0].to_csv(cells / "valid.csv", index=False)
    with pytest.raises(UsageError, match=r"select=auc needs two classes .* no image of blast\."):
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "select": "auc"})
    assert not (tmp_path / "runs").exists()


def test_small_cells_are_learned(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 8})
    assert run.read_metrics()["valid"]["accuracy"] >= 0.9
    assert run.read_history()["train_loss"].iloc[-1] < run.read_history()["train_loss"].iloc[0]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(cells: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("first", 0), ("same", 0), ("other", 1)):
        changes = {**SMALL_RECIPE, "epochs": 1, "dropout": 0.3, "seed": seed}
        (run,) = parfocal.train(cells, out=tmp_path / name, **changes)
        weights.append(read_tensors(run.weights_path)[0])
    first, same, other = weights
    assert all(same[key].equal(value) for key, value in first.items())
    assert not other["conv1.weight"].equal(first["conv1.weight"])


@pytest.mark.parametrize("has_labels", [True, False])
def test_a_line_says_why_there_is_no_test_curve(cells: Path, tmp_path: Path, has_labels: bool) -> None:
    if not has_labels:
        (cells / "test_truth.csv").unlink()
    lines: list[str] = []
    changes = {**SMALL_RECIPE, "epochs": 1, "test_curve": True}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", show_line=lines.append, **changes)
    assert ("test_accuracy" in run.read_history()) == has_labels
    assert ("The test split has no labels, so there is no test curve." in lines) != has_labels


def test_the_recipe_leukemia_records_the_test_accuracy_of_each_epoch() -> None:
    recipes = expand_recipes("leukemia", experiment="depth")
    assert [recipe.training.test_curve for recipe in recipes.values()] == [True] * 3


def test_drawing_the_test_curve_changes_no_weight(cells: Path, tmp_path: Path) -> None:
    runs = [parfocal.train(cells, out=tmp_path / str(on), test_curve=on, **SMALL_RECIPE)[0] for on in (False, True)]
    without, with_curve = (read_tensors(run.weights_path)[0] for run in runs)
    assert all(with_curve[key].equal(value) for key, value in without.items())
    assert runs[0].read_metrics()["best_epoch"] == runs[1].read_metrics()["best_epoch"]


def test_networks_that_are_compared_share_everything_else(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "epochs": 1, "model": ["plain20", "resnet20"]}
    runs = parfocal.train(cells, out=tmp_path / "runs", **changes)
    assert [run.name for run in runs] == ["plain20", "resnet20"]
    assert runs[0].table_path.read_text() == runs[1].table_path.read_text()


# Runs the command line, but kills its own process at the step given in the environment, like a power failure.
_KILLED_TRAINING = """
import os, signal
from parfocal.commands import main
from parfocal.training import step

n_left = int(os.environ.get("KILL_AT", "-1"))
train_step = step.train_step
def counted_train_step(*args):
    global n_left
    if n_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    n_left -= 1
    return train_step(*args)
step.train_step = counted_train_step
main()
"""


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Compute with two threads."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.parametrize("kill_at", [2, 15])
@pytest.mark.usefixtures("two_threads")
def test_killed_and_resumed_it_ends_with_the_same_weights(cells: Path, tmp_path: Path, kill_at: int) -> None:
    changes = {
        **SMALL_RECIPE,
        "epochs": 3,
        "dropout": 0.2,
        "optimizer": "adam",
        "learning_rate": 0.002,
        "schedule": "cosine",
    }
    pairs = [f"{key}={value}" for key, value in changes.items()]
    command = [sys.executable, "-c", _KILLED_TRAINING, "train", str(cells), *pairs, "--out", str(tmp_path / "killed")]
    environment = {**os.environ, "KILL_AT": str(kill_at), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list((tmp_path / "killed").rglob("metrics.json"))
    (complete,) = parfocal.train(cells, out=tmp_path / "complete", **changes)
    (resumed,) = parfocal.train(cells, out=tmp_path / "killed", resume=True)
    assert_identical_runs(complete.folder, resumed.folder)


@pytest.mark.parametrize(
    ("loss", "ema"), [("cross_entropy", 0.9), ("regression", 0), ("regression", 0.9), ("cumulative_link", 0.9)]
)
def test_plateau_ema_and_accumulated_gradients_resume_bit_exactly(
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
    validate = trainer.validate
    # The same accuracy after every epoch is a plateau, whatever this processor computes.
    monkeypatch.setattr(trainer, "validate", lambda state: {**validate(state), "valid_accuracy": 0.5})
    (complete,) = parfocal.train(cells, out=tmp_path / "complete", **changes)

    def interrupt() -> None:
        raise KeyboardInterrupt

    call_at_step(6, interrupt, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        parfocal.train(cells, out=tmp_path / "interrupted", **changes)
    (resumed,) = parfocal.train(cells, out=tmp_path / "interrupted", resume=True)
    assert complete.read_history()["learning_rate"].is_monotonic_decreasing
    assert complete.read_history()["learning_rate"].nunique() == 3
    assert_identical_runs(complete.folder, resumed.folder)


def test_an_existing_run_is_not_overwritten(cells: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {**SMALL_RECIPE, "epochs": 1}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    before = run.weights_path.read_bytes()
    with pytest.raises(ParfocalError, match=r"already contains a run\. Continue it with resume"):
        parfocal.train(cells, out=tmp_path / "runs", **changes)
    with pytest.raises(UsageError, match=r"another recipe: training\.epochs was 1, now 2"):
        parfocal.train(cells, out=tmp_path / "runs", resume=True, **{**changes, "epochs": 2})
    parfocal.train(cells, out=tmp_path / "runs", resume=True)
    assert run.weights_path.read_bytes() == before


def test_a_finished_run_stays_as_it_is_and_a_resumed_one_records_its_environment(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def modification_times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()}

    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    environment = run.read_environment()
    before = modification_times()
    monkeypatch.setattr(environment_module, "__version__", "another version")
    parfocal.train(cells, out=tmp_path / "runs", resume=True, save_every=3)
    assert modification_times() == before
    (run.folder / "metrics.json").unlink()
    parfocal.train(cells, out=tmp_path / "runs", resume=True)
    resumed = run.read_environment()["resumed"]
    assert run.read_environment() == {**environment, "resumed": resumed}
    assert [entry["parfocal"] for entry in resumed] == ["another version"]
    changed = {name for name, time in modification_times().items() if time != before.get(name)}
    assert not changed & {"table.csv", "views.png", "model.safetensors"}


def test_resuming_without_a_run_or_with_other_rows_is_rejected(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="contains no run to resume"):
        parfocal.train(cells, out=tmp_path / "runs", resume=True)
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    (run.folder / "metrics.json").unlink()
    pd.read_csv(cells / "train.csv").iloc[:-1].to_csv(cells / "train.csv", index=False)
    with pytest.raises(ParfocalError, match=r"The rows of .* differ from those that .* was started with"):
        parfocal.train(cells, out=tmp_path / "runs", resume=True)


def test_an_unknown_network_is_named_before_any_work(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        parfocal.train(cells, out=tmp_path / "runs", model="resnet-18")
    assert not (tmp_path / "runs").exists()


def _damage(images: list[Path], fault: str, n_bytes: int) -> None:
    """Remove the images, or truncate them to this many bytes."""
    for image in images:
        if fault == "missing":
            image.unlink()
        else:
            image.write_bytes(image.read_bytes()[:n_bytes])


@pytest.mark.parametrize(("fault", "code"), [("missing", "missing_files"), ("corrupt", "unreadable_images")])
def test_a_bad_image_stops_training_unless_its_fault_is_waived(
    cells: Path, tmp_path: Path, fault: str, code: str
) -> None:
    _damage([cells / "new_dataset" / "train" / "5.bmp"], fault, n_bytes=99)
    with pytest.raises(ParfocalError, match=rf"train/5\.bmp.*allow={code}"):
        parfocal.train(cells, out=tmp_path / "runs", **SMALL_RECIPE)
    assert not (tmp_path / "runs").exists()
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1, "allow": [code]})
    assert "./new_dataset/train/5.bmp" not in run.table_path.read_text()
    findings = {finding["code"]: finding for finding in run.read_environment()["data"]["findings"]}
    assert f"Waived by allow={code}" in findings[code]["message"]
    assert f"Checks that the recipe waives: {code}." in read_report(run)


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_waived_faults_that_leave_an_empty_split_or_a_single_class_are_rejected(
    cells: Path, tmp_path: Path, fault: str
) -> None:
    changes = {**SMALL_RECIPE, "allow": ["missing_files", "unreadable_images"]}
    _damage([cells / "new_dataset" / "train" / f"{index}.bmp" for index in range(1, 48, 2)], fault, n_bytes=0)
    with pytest.raises(ParfocalError, match="The train split has"):
        parfocal.train(cells, out=tmp_path / "runs", **changes)
    _damage(list((cells / "new_dataset" / "valid").iterdir()), fault, n_bytes=0)
    with pytest.raises(ParfocalError, match=r"The valid split of .* is empty"):
        parfocal.train(cells, out=tmp_path / "runs", **changes)


def test_without_a_valid_split_some_groups_are_held_out_and_recorded(draw: Callable[..., Path], tmp_path: Path) -> None:
    folder = draw(tmp_path / "cells", train=60)
    (folder / "valid.csv").unlink()
    (run,) = parfocal.train(folder, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    rows = pd.read_csv(run.table_path)
    assert set(rows["split"]) == {"train", "valid", "test"}
    assert rows.groupby("group")["split"].nunique().max() == 1
    assert "by group" in run.read_environment()["data"]["source"]


def test_training_that_diverges_names_the_images_and_what_to_change(cells: Path, tmp_path: Path) -> None:
    message = r"diverged in epoch 1, step \d, .*new_dataset/train/\d+\.bmp.*lower learning_rate"
    with pytest.raises(ParfocalError, match=message):
        parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "learning_rate": 1e30})
    with pytest.raises(ParfocalError, match=r"diverged in epoch 1, step \d"):
        parfocal.train(cells, out=tmp_path / "high", **{**SMALL_RECIPE, "learning_rate": 1e4})
    assert not (tmp_path / "runs" / "resnet20" / "last.ckpt").exists()


def test_training_that_diverges_later_keeps_its_last_checkpoint(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**SMALL_RECIPE, "epochs": 2}
    (complete,) = parfocal.train(cells, out=tmp_path / "complete", **changes)
    cross_entropy = torch.nn.functional.cross_entropy

    def diverge() -> None:
        monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda *args, **kw: cross_entropy(*args, **kw) * 1e9)

    n_steps = -(-complete.read_environment()["data"]["rows"]["train"] // complete.recipe.training.batch_size)
    call_at_step(n_steps + 2, diverge, monkeypatch)
    with pytest.raises(ParfocalError, match="diverged in epoch 2, step 2"):
        parfocal.train(cells, out=tmp_path / "runs", **changes)
    monkeypatch.undo()
    (resumed,) = parfocal.train(cells, out=tmp_path / "runs", resume=True)
    assert_identical_runs(resumed.folder, complete.folder)


def test_early_stopping_ends_a_run_and_resuming_adds_nothing(cells: Path, tmp_path: Path) -> None:
    changes = {**SMALL_RECIPE, "epochs": 9, "patience": 2, "learning_rate": 1e-9, "schedule": "constant"}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **changes)
    history = run.read_history()
    metrics = run.read_metrics()
    assert len(history) == metrics["best_epoch"] + 2 < 9
    (run.folder / "metrics.json").unlink()
    parfocal.train(cells, out=tmp_path / "runs", resume=True)
    pd.testing.assert_frame_equal(run.read_history(), history)
    assert run.read_metrics() == metrics


def test_a_recipe_that_needs_another_run_first_names_its_command(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"parfocal train cifar10 --recipe cifar10 --out runs/cifar10\.$"):
        parfocal.train(cells, "fundus-cifar10", out=tmp_path / "runs", init="nowhere")
    with pytest.raises(UsageError, match=r"or a run folder\.$"):
        parfocal.train(cells, "fundus", out=tmp_path / "runs", init="nowhere")


@pytest.mark.parametrize(
    ("recipe", "experiment", "folder"),
    [(None, "", "cells-custom"), ("demo", "", "cells-demo"), ("fundus", "pretraining", "cells-fundus-pretraining")],
)
def test_the_default_folder_is_named_after_data_recipe_and_experiment(
    recipe: str | None, experiment: str, folder: str
) -> None:
    assert train_module.default_folder("some/cells", recipe, experiment) == Path("runs") / folder


def test_every_json_file_of_a_run_is_standard_json(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    for path in run.folder.glob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("select", ["kappa", "quadratic_kappa", "auc"])
def test_a_selection_metric_that_is_undefined_on_validation_is_rejected_with_the_missing_classes(select: str) -> None:
    with pytest.raises(UsageError, match=rf"select={select} needs two classes .* no image of b, c\. Use select="):
        validate_select(select, {"a": 5, "b": 0, "c": 0})
    validate_select(select, {"a": 5, "b": 1, "c": 0})
    validate_select("balanced_accuracy", {"a": 5, "b": 0, "c": 0})


def _table(n_images: int) -> Table:
    names = [str(index) for index in range(n_images)]
    labels = [index % 2 for index in range(n_images)]
    rows = build_rows(names, [Path(name) for name in names], labels, ["train"] * n_images, names)
    return Table(rows, ("no", "yes"), ("0", "1"), "synthetic")


@pytest.mark.parametrize(
    ("n_images", "changes", "message"),
    [
        (7995, {"batch_size": 8, "devices": 8}, r"7,995 images into batches of 7 .*is batch_size=9; or use fewer"),
        (
            47,
            {"batch_size": 2, "nodes": 2},
            r"batches of 1 and more; each of 2 processes .* smallest .* is batch_size=3;",
        ),
        (
            3,
            {"batch_size": 8, "devices": 4},
            "each of 4 processes needs an image of every batch. Instead, use fewer",
        ),
        (48, {"sampling": "factors", "factors": [1, 2, 3]}, "factors has 3 numbers, train has 2 classes"),
        (
            48,
            {"sampling": "factors", "factors": [0.001, 0]},
            "factors=0.001, 0.0 select no image of the training split",
        ),
        (
            48,
            {**FINAL_MAP_1X1, "batch_size": 1},
            r"with crop_size=32 the last feature map is 1×1.*The smallest batch that works is batch_size=2; or",
        ),
        (
            49,
            {**FINAL_MAP_1X1, "batch_size": 2},
            r"batches of 1 and more; with crop_size=32 .*batch_size=3; or choose a larger crop_size",
        ),
        (48, {**FINAL_MAP_1X1, "batch_size": 2, "devices": 2}, r"two images on each device.*is batch_size=4;"),
        (1, {**FINAL_MAP_1X1, "batch_size": 1}, "Instead, choose a larger crop_size"),
    ],
)
def test_a_recipe_that_cannot_train_is_rejected(n_images: int, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate_feasible(load_recipe(None, **changes), _table(n_images))


@pytest.mark.parametrize(
    ("n_images", "changes"),
    [
        (7995, {"batch_size": 9, "devices": 8}),
        (7995, {"batch_size": 8, "devices": 7, "crop_size": 224}),
        (48, {**FINAL_MAP_1X1, "batch_size": 2}),
        (48, {**FINAL_MAP_1X1, "batch_size": 2, "devices": 2, "sync_batchnorm": True}),
        (48, {**FINAL_MAP_1X1, "batch_size": 1, "crop_size": 40}),
        (48, {**FINAL_MAP_1X1, "batch_size": 1, "stem": "small"}),
        (48, {**FINAL_MAP_1X1, "batch_size": 1, "init": "imagenet", "freeze": "head"}),
        (48, {"sampling": "factors", "factors": [1, 0]}),
    ],
)
def test_a_recipe_that_can_train_is_accepted(n_images: int, changes: dict[str, Any]) -> None:
    validate_feasible(load_recipe(None, **changes), _table(n_images))


def test_batch_norm_cannot_train_on_a_single_image_with_a_1x1_feature_map() -> None:
    network = build_resnet("resnet18", n_classes=2).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.rand(1, 3, 32, 32))
    assert network(torch.rand(1, 3, 33, 33)).shape == (1, 2)
