"""A run is trained by one process at a time."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import parfocal
from parfocal.errors import ParfocalError
from parfocal.run import Run
from parfocal.training import run_lock
from parfocal.training.run_lock import LOCK_FILE, lock_runs
from tests.cells import SMALL_RECIPE

HOLD_AND_DIE = """
import os, signal, sys
from pathlib import Path
from parfocal.run import Run
from parfocal.training.run_lock import lock_runs
with lock_runs([Run(Path(sys.argv[1]))]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_is_being_trained_is_not_resumed_by_another_call(cells: Path, tmp_path: Path) -> None:
    messages: list[str] = []

    def resume_again(run: Run) -> None:
        before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
        with pytest.raises(ParfocalError) as error:
            parfocal.train(cells, out=tmp_path / "runs", resume=True)
        messages.append(str(error.value))
        assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before

    changes = {**SMALL_RECIPE, "epochs": 1}
    (run,) = parfocal.train(cells, out=tmp_path / "runs", after_epoch=resume_again, **changes)
    assert messages == [f"{run.folder} is being trained by another process. Wait until that ends, or stop it first."]
    assert run.is_finished
    # A finished run is not trained, so it needs no lock.
    with lock_runs([run]):
        parfocal.train(cells, out=tmp_path / "runs", resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / LOCK_FILE).is_file()
    with lock_runs([Run(tmp_path)]), pytest.raises(ParfocalError, match="is being trained"), lock_runs([Run(tmp_path)]):
        pass


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError()])
def test_without_locks_on_the_file_system_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class NoLock:
        def __init__(self, *_: object, **__: object) -> None:
            raise error

    lines: list[str] = []
    monkeypatch.setattr(run_lock, "FileLock", NoLock)
    monkeypatch.setattr(run_lock, "print_warning", lines.append)
    with lock_runs([Run(tmp_path)]):
        pass
    assert len(lines) == 1
    assert lines[0].startswith(f"The file system of {tmp_path} has no locks")


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ParfocalError, match="Cannot write"), lock_runs([Run(tmp_path / "run")]):
        pass
    assert not (tmp_path / "elsewhere").exists()
