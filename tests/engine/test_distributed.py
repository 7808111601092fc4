"""Distributed training: two processes have the losses of one, predict each image once, and report errors once."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import parfocal
from parfocal.engine.device import resolve_devices
from parfocal.engine.distributed import CpuSyncBatchNorm, convert_sync_batchnorm
from parfocal.models.checkpoints import read_tensors
from parfocal.models.resnet import build_resnet
from parfocal.recipe_schema import MachineConfig
from parfocal.run import Run
from parfocal.training.stopping import TrainingInterruptedError
from tests.cells import SMALL_RECIPE, draw_cells
from tests.training.resuming import assert_identical_runs, call_at_step

SLOW_RECIPE = {**SMALL_RECIPE, "epochs": 2, "learning_rate": 0.002}


def _format_changes(changes: dict[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in changes.items()]


def _build_command(cells: Path, out: Path, *changes: str) -> list[str]:
    return [sys.executable, "-m", "parfocal", "train", str(cells), "--out", str(out), *changes]


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _find_free_address() -> dict[str, str]:
    """Return the environment variables with an address on which processes can meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}


def _read_probabilities(run: Run, split: str) -> pd.DataFrame:
    return pd.read_csv(run.predictions_path(split)).filter(like="probability")


def test_two_processes_have_the_losses_of_one_and_predict_each_image_once(cells: Path, tmp_path: Path) -> None:
    (single,) = parfocal.train(cells, out=tmp_path / "one", **SLOW_RECIPE)
    changes = _format_changes({**SLOW_RECIPE, "devices": 2, "sync_batchnorm": True})
    done = _run(_build_command(cells, tmp_path / "two", *changes))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report: ") == 1
    double = Run(tmp_path / "two" / "resnet20")
    for column in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(double.read_history()[column], single.read_history()[column], rtol=5e-3)
    assert double.read_history()["learning_rate"].tolist() == single.read_history()["learning_rate"].tolist()
    probabilities = {split: _read_probabilities(double, split) for split in ("valid", "test")}
    assert {split: len(rows) for split, rows in probabilities.items()} == {"valid": 16, "test": 12}
    parfocal.evaluate(double.folder)
    for split, rows in probabilities.items():
        np.testing.assert_allclose(_read_probabilities(double, split), rows, atol=1e-6)


def test_two_machines_unfreeze_one_stage_after_another(cells: Path, tmp_path: Path) -> None:
    (first,) = parfocal.train(cells, out=tmp_path / "first", **{**SMALL_RECIPE, "epochs": 1})
    changes = {
        **SLOW_RECIPE,
        "epochs": 3,
        "nodes": 2,
        "devices": 1,
        "freeze": "head",
        "unfreeze_every": 1,
        "head": "warm_start",
        "init": first.folder,
        "ema": 0.9,
        "class_weights": "balanced",
    }
    command = _build_command(cells, tmp_path / "two", *_format_changes(changes))
    address = _find_free_address()
    environments = [{**os.environ, **address, "NODE_RANK": str(rank)} for rank in range(2)]
    machines = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for environment in environments
    ]
    errors = [machine.communicate()[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    run = Run(tmp_path / "two" / "resnet20")
    assert run.is_finished
    before = read_tensors(first.weights_path)[0]
    after = read_tensors(run.checkpoint_path)[0]
    changed = {
        name.split(".")[0]
        for name, value in before.items()
        if "num_batches" not in name and not after[f"network/network.{name}"].equal(value)
    }
    assert changed == {"fc", "layer3", "layer2"}


# Runs command lines one after another in each of two processes, because a start takes longer than a small run. Of each
# job, only the second process receives SIGTERM at the step `stop_at`, and the disk is full at the checkpoint `full_at`.
_JOBS_SCRIPT = """
import errno, io, json, os, signal, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from parfocal.commands import main
from parfocal.io import explain_write_errors
from parfocal.training import checkpoint, step
from tests.report.read_report import draw_blank_figures

train_step, write_tensors = step.train_step, checkpoint.write_tensors
steps = saves = 0
def count_steps(*args):
    global steps
    steps -= 1
    if steps == 0 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return train_step(*args)
def count_saves(path, *args):
    global saves
    saves -= 1
    if saves == 0:
        with explain_write_errors(path):
            raise OSError(errno.ENOSPC, "No space left on device")
    write_tensors(path, *args)
step.train_step, checkpoint.write_tensors = count_steps, count_saves

for name, job in json.loads(Path("jobs.json").read_text()).items():
    steps, saves = job.get("stop_at", -1), job.get("full_at", -1)
    sys.argv = ["parfocal", "train", *job["arguments"]]
    errors, code = io.StringIO(), 0
    with redirect_stdout(io.StringIO()), redirect_stderr(errors), draw_blank_figures():
        try:
            main()
        except SystemExit as end:
            code = end.code
    Path(f"{name}-{os.environ['RANK']}.json").write_text(json.dumps([code, errors.getvalue()]))
"""
_ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "first-checkpoint": ({}, "last.ckpt: the disk is full"),
    "checkpoint-within-an-epoch": ({"save_every": 1e-9}, "last.ckpt: the disk is full"),
    "logger": ({"loggers": "tensorboard"}, "loggers=tensorboard cannot be opened"),
    "submission": ({"epochs": 1}, "submission.csv"),
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs, exit codes and errors of jobs that the same two processes ran."""
    folder = tmp_path_factory.mktemp("jobs")
    cells = str(draw_cells(folder / "cells"))
    changes = {**SMALL_RECIPE, "batch_size": 4, "devices": 2}
    arguments = _format_changes({**changes, "optimizer": "adam", "dropout": 0.2})
    jobs: dict[str, dict[str, Any]] = {
        "whole": {"arguments": [cells, "--out", "whole", *arguments]},
        "stopped": {"arguments": [cells, "--out", "stopped", *arguments], "stop_at": 16},
        "resumed": {"arguments": [cells, "--out", "stopped", "--resume"]},
    }
    for name, (error_changes, message) in _ERRORS.items():
        # A file is in the place of the logger's folder, and a folder in the place of the submission.
        (folder / name / "resnet20" / "submission.csv").mkdir(parents=True)
        (folder / name / "resnet20" / "tensorboard").touch()
        arguments = _format_changes({**changes, **error_changes})
        jobs[name] = {"arguments": [cells, "--out", name, *arguments], "full_at": 1 if "ckpt" in message else -1}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    shared = {
        **_find_free_address(),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PARFOCAL_STORES": str(folder / "stores"),
        "TORCHELASTIC_RUN_ID": "jobs",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    command = [sys.executable, "-c", _JOBS_SCRIPT]
    processes = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return folder


def _read_job(folder: Path, name: str) -> tuple[list[int], str]:
    """Return the exit codes of both processes, and all that they wrote to stderr."""
    codes, errors = zip(*(json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)), strict=True)
    return list(codes), "".join(errors)


def test_a_signal_to_one_process_stops_all_and_they_resume_to_the_bit(jobs: Path) -> None:
    assert _read_job(jobs, "whole")[0] == [0, 0]
    codes, errors = _read_job(jobs, "stopped")
    assert codes == [128 + signal.SIGTERM] * 2
    assert "Stopped by SIGTERM in epoch 2, after step 10 of 12" in errors
    assert _read_job(jobs, "resumed")[0] == [0, 0]
    assert_identical_runs(jobs / "whole" / "resnet20", jobs / "stopped" / "resnet20")


@pytest.mark.parametrize("name", _ERRORS)
def test_an_error_of_rank_zero_is_reported_once_and_ends_all_processes(jobs: Path, name: str) -> None:
    codes, errors = _read_job(jobs, name)
    assert codes == [1, 1]
    assert errors.count("Error: ") == 1
    assert _ERRORS[name][1] in errors
    assert "Traceback" not in errors


def test_an_error_in_the_data_is_reported_once(cells: Path, tmp_path: Path) -> None:
    (cells / "new_dataset" / "train" / "5.bmp").unlink()
    done = _run(_build_command(cells, tmp_path / "two", *_format_changes({**SMALL_RECIPE, "devices": 2})))
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1
    assert "Traceback" not in done.stderr


def test_two_processes_resume_a_run_of_one(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", **SLOW_RECIPE)
    with monkeypatch.context() as patch:
        call_at_step(8, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        with pytest.raises(TrainingInterruptedError, match="in epoch 2, after step 2 of 6"):
            parfocal.train(cells, out=tmp_path / "stopped", **SLOW_RECIPE)
    done = _run(_build_command(cells, tmp_path / "stopped", "--resume", "devices=2"))
    assert done.returncode == 0, done.stderr
    stopped = Run(tmp_path / "stopped" / "resnet20")
    assert "Traceback" not in done.stderr
    assert stopped.recipe.machine.devices == 2
    np.testing.assert_allclose(stopped.read_history()["train_loss"], whole.read_history()["train_loss"], rtol=5e-2)


def test_machine_settings_may_change_on_resume(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    (run.folder / "metrics.json").unlink()
    (resumed,) = parfocal.train(cells, out=tmp_path / "runs", resume=True, save_every=3, loggers=["tensorboard"])
    assert resumed.recipe.machine.save_every == Run(run.folder).recipe.machine.save_every == 3
    assert (run.folder / "tensorboard").is_dir()


@pytest.mark.parametrize(("environment", "expected"), [
    ({"TORCHELASTIC_RUN_ID": "one", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (4, 2)),
    ({"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "train"}, (2, 3)),
    ({}, (1, 1)),
])  # fmt: skip
def test_devices_and_machines_are_those_that_the_launcher_started(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert resolve_devices(MachineConfig()) == expected
    assert resolve_devices(MachineConfig(devices=5, nodes=7)) == (5, 7)


@pytest.mark.parametrize(("device", "kind"), [("cpu", CpuSyncBatchNorm), ("cuda", nn.SyncBatchNorm)])
def test_synchronized_batch_norm_keeps_names_and_weights(device: str, kind: type[nn.Module]) -> None:
    network = build_resnet("resnet20", n_classes=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    n_norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    convert_sync_batchnorm(network, torch.device(device))
    assert sum(type(module) is kind for module in network.modules()) == n_norms
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].equal(value) for name, value in before.items())
