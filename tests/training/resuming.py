"""Helpers for tests that interrupt training and resume it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from parfocal.models.checkpoints import read_tensors
from parfocal.training import step


def call_at_step(n_steps: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call the action at the given training step, counted from 1."""
    n_taken = 0
    train_step = step.train_step

    def counted_train_step(*args: Any, **kwargs: Any) -> Any:
        nonlocal n_taken
        n_taken += 1
        if n_taken == n_steps:
            action()
        return train_step(*args, **kwargs)

    monkeypatch.setattr(step, "train_step", counted_train_step)


def assert_identical_runs(first: Path, second: Path) -> None:
    """Assert that two run folders have the same weights, checkpoint and history, bit for bit, except for times."""
    for name in ("model.safetensors", "last.ckpt"):
        first_tensors, _ = read_tensors(first / name)
        second_tensors, _ = read_tensors(second / name)
        assert first_tensors.keys() == second_tensors.keys()
        assert all(second_tensors[key].equal(value) for key, value in first_tensors.items())
    times = ["images_per_second", "waiting", "seconds"]
    first_history = pd.read_csv(first / "history.csv").drop(columns=times)
    second_history = pd.read_csv(second / "history.csv").drop(columns=times)
    pd.testing.assert_frame_equal(first_history, second_history)
