"""Several processes that train one network: the same losses as one, every image judged once, one voice."""

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

import parfocal
from parfocal.models.checkpoints import read_tensors
from parfocal.run import Run
from parfocal.training.signals import TrainingInterruptedError
from tests.cells import SMALL_RECIPE
from tests.training.resuming import assert_identical_runs, call_at_step

SLOW = {**SMALL_RECIPE, "epochs": 2, "learning_rate": 0.002}


def _words(changes: dict[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in changes.items()]


def _command(cells: Path, out: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "parfocal", "train", str(cells), "--out", str(out), *words]


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)


def _probabilities(run: Run, split: str) -> pd.DataFrame:
    return pd.read_csv(run.predictions_path(split)).filter(like="probability")


def test_two_processes_learn_like_one_and_judge_every_image_once(cells: Path, tmp_path: Path) -> None:
    (alone,) = parfocal.train(cells, out=tmp_path / "one", **SLOW)
    done = _run(_command(cells, tmp_path / "two", *_words({**SLOW, "devices": 2, "sync_batchnorm": True})))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report: ") == 1
    both = Run(tmp_path / "two" / "resnet20")
    for column in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(both.read_history()[column], alone.read_history()[column], rtol=5e-3)
    assert both.read_history()["learning_rate"].tolist() == alone.read_history()["learning_rate"].tolist()
    together = {split: _probabilities(both, split) for split in ("valid", "test")}
    assert {split: len(rows) for split, rows in together.items()} == {"valid": 16, "test": 12}
    parfocal.evaluate(both.folder)
    for split, rows in together.items():
        np.testing.assert_allclose(_probabilities(both, split), rows, atol=1e-6)


def test_two_machines_let_stages_go_one_after_another(cells: Path, tmp_path: Path) -> None:
    (first,) = parfocal.train(cells, out=tmp_path / "first", **{**SMALL_RECIPE, "epochs": 1})
    changes = {
        **SLOW,
        "epochs": 3,
        "nodes": 2,
        "devices": 1,
        "freeze": "head",
        "unfreeze_every": 1,
        "init": first.folder,
    }
    command = _command(cells, tmp_path / "two", *_words({**changes, "ema": 0.9, "class_weights": "balanced"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    surroundings = [{**os.environ, **place, "NODE_RANK": str(rank)} for rank in range(2)]
    machines = [subprocess.Popen(command, env=one, stderr=subprocess.PIPE, text=True) for one in surroundings]
    faults = [machine.communicate()[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], faults
    run = Run(tmp_path / "two" / "resnet20")
    assert run.is_finished
    before, after = read_tensors(first.weights_path)[0], read_tensors(run.checkpoint_path)[0]
    same = {key: after[f"network/network.{key}"].equal(value) for key, value in before.items()}
    moved = {key.split(".")[0] for key, kept in same.items() if not kept and "num_batches" not in key}
    assert moved == {"fc", "layer3", "layer2"}


# Runs the command line; at the step named in the environment the second process, alone, is asked to stop.
_ASKED = """
import os, signal
from parfocal.commands import main
from parfocal.training import epoch

steps, step = int(os.environ["STOP_AT"]), epoch.train_step
def counted(*given):
    global steps
    steps -= 1
    if steps == 0 and os.environ.get("LOCAL_RANK") == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*given)
epoch.train_step = counted
main()
"""


def test_one_process_that_is_asked_to_stop_stops_all_and_they_go_on_to_the_bit(cells: Path, tmp_path: Path) -> None:
    script = tmp_path / "asked.py"
    script.write_text(_ASKED)
    words = _words({**SMALL_RECIPE, "batch_size": 4, "devices": 2, "optimizer": "adam", "dropout": 0.2})

    def run(out: str, stop_at: int, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), "train", str(cells), "--out", str(tmp_path / out), *words]
        return _run(command, STOP_AT=str(stop_at))

    assert run("whole", -1, *words).returncode == 0
    stopped = run("cut", 16, *words)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM in epoch 2, after step 10 of 12" in stopped.stderr
    assert run("cut", -1, "--resume").returncode == 0
    assert_identical_runs(tmp_path / "whole" / "resnet20", tmp_path / "cut" / "resnet20")


def test_a_fault_in_the_data_is_told_once(cells: Path, tmp_path: Path) -> None:
    (cells / "new_dataset" / "train" / "5.bmp").unlink()
    done = _run(_command(cells, tmp_path / "two", *_words({**SMALL_RECIPE, "devices": 2})))
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1
    assert "Traceback" not in done.stderr


# Runs the command line; the disk is full when the first process saves the checkpoint named in the environment.
_FULL = """
import errno, os
from parfocal.commands import main
from parfocal.files import explained
from parfocal.training import checkpoint

saves, save = int(os.environ["FULL_AT"]), checkpoint.write_tensors
def counted(path, *given):
    global saves
    saves -= 1
    if saves == 0:
        with explained(path):
            raise OSError(errno.ENOSPC, "No space left on device")
    save(path, *given)
checkpoint.write_tensors = counted
main()
"""


@pytest.mark.parametrize(("changes", "fault"), [
    ({}, "last.ckpt: the disk is full"),
    ({"save_every": 1e-9}, "last.ckpt: the disk is full"),
    ({"loggers": "tensorboard"}, "loggers=tensorboard cannot be opened"),
    ({"epochs": 1}, "submission.csv"),
])  # fmt: skip
def test_a_fault_of_the_first_process_alone_is_told_once_and_ends_all(
    cells: Path, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    script = tmp_path / "full.py"
    script.write_text(_FULL)
    # Where a tracker would have its folder, and judging a file.
    (tmp_path / "two" / "resnet20" / "submission.csv").mkdir(parents=True)
    (tmp_path / "two" / "resnet20" / "tensorboard").touch()
    words = _words({**SMALL_RECIPE, "batch_size": 4, "devices": 2, **changes})
    command = [sys.executable, str(script), "train", str(cells), "--out", str(tmp_path / "two"), *words]
    done = _run(command, FULL_AT="1" if "ckpt" in fault else "-1")
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_one_process_began_is_gone_on_with_by_two(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = parfocal.train(cells, out=tmp_path / "whole", **SLOW)
    with monkeypatch.context() as patched:
        call_at_step(8, lambda: os.kill(os.getpid(), signal.SIGTERM), patched)
        with pytest.raises(TrainingInterruptedError, match="in epoch 2, after step 2 of 6"):
            parfocal.train(cells, out=tmp_path / "cut", **SLOW)
    done = _run(_command(cells, tmp_path / "cut", "--resume", "devices=2"))
    assert done.returncode == 0, done.stderr
    cut = Run(tmp_path / "cut" / "resnet20")
    assert "Traceback" not in done.stderr
    assert cut.recipe.machine.devices == 2
    np.testing.assert_allclose(cut.read_history()["train_loss"], whole.read_history()["train_loss"], rtol=5e-2)


def test_going_on_trains_on_the_machine_that_is_said_now(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **{**SMALL_RECIPE, "epochs": 1})
    (run.folder / "metrics.json").unlink()
    (again,) = parfocal.train(cells, out=tmp_path / "runs", resume=True, save_every=3, loggers=["tensorboard"])
    assert again.recipe.machine.save_every == Run(run.folder).recipe.machine.save_every == 3
    assert (run.folder / "tensorboard").is_dir()


@pytest.mark.parametrize(("environment", "expected"), [
    ({"TORCHELASTIC_RUN_ID": "one", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (4, 2)),
    ({"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "train"}, (2, 3)),
    ({}, (1, 1)),
])  # fmt: skip
def test_devices_and_machines_are_those_the_launcher_started(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    from parfocal.engine.device import resolve_devices
    from parfocal.schema import MachineConfig

    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert resolve_devices(MachineConfig()) == expected
    assert resolve_devices(MachineConfig(devices=5, nodes=7)) == (5, 7)
