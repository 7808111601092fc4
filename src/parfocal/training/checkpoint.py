"""Save and load a training checkpoint: weights, optimizer, EMA and progress in a file of tensors and plain types."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parfocal.models.checkpoints import read_tensors, write_tensors
from parfocal.run_files import DamagedFileError
from parfocal.training.step import EpochState, Learner


@dataclass
class Progress:
    """How far a run has come: its history, its best epoch, and the seconds that it took.

    Of all `elapsed_seconds`, `preparation_seconds` passed before training; `reserve_seconds` are kept back for the end.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    elapsed_seconds: float = 0.0
    preparation_seconds: float = 0.0
    reserve_seconds: float = 0.0
    best_crop_size: int = 0

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)


def save_checkpoint(path: Path, learner: Learner, progress: Progress, epoch_state: EpochState | None = None) -> None:
    """Write the state of the learner and its progress; within an epoch also the state of that epoch."""
    optimizer_state = learner.optimizer.state_dict()
    tensors = {f"network/{key}": value for key, value in learner.classifier.state_dict().items()}
    if learner.ema_model is not None:
        tensors |= {f"ema/{key}": value for key, value in learner.ema_model.state_dict().items()}
    plain_state: dict[str, dict[str, Any]] = {}
    for index, values in optimizer_state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                plain_state.setdefault(str(index), {})[key] = value
    content = {
        "param_groups": optimizer_state["param_groups"],
        "optimizer_state": plain_state,
        "progress": vars(progress),
        "n_micro_batches": learner.n_micro_batches,
    }
    if epoch_state is not None:
        fields = vars(epoch_state)
        tensors |= {f"epoch_state/{key}": value for key, value in fields.items() if isinstance(value, Tensor)}
        content["epoch_state"] = {key: value for key, value in fields.items() if not isinstance(value, Tensor)}
    write_tensors(path, tensors, content)


def load_checkpoint(path: Path, learner: Learner) -> tuple[Progress, EpochState | None]:
    """Restore a learner from a file written by `save_checkpoint`.

    Return the progress of the run, and the state of its current epoch if that was saved before its end.
    """
    tensors, content = read_tensors(path)
    try:
        return _restore(tensors, content, learner)
    # Every value is from the file, and what a wrong value raises depends on where it is used first.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedFileError(path, f"its tensors and metadata are no checkpoint of this run ({reason})") from None


def _restore(
    tensors: dict[str, Tensor], content: dict[str, Any], learner: Learner
) -> tuple[Progress, EpochState | None]:
    learner.classifier.load_state_dict(_select_prefix("network/", tensors))
    if learner.ema_model is not None:
        learner.ema_model.load_state_dict(_select_prefix("ema/", tensors))
    optimizer_state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in content["optimizer_state"].items()
    }
    for key, value in _select_prefix("optimizer/", tensors).items():
        index, name = key.split("/")
        memory_format = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        optimizer_state.setdefault(int(index), {})[name] = value.to(memory_format=memory_format)
    learner.optimizer.load_state_dict({"state": optimizer_state, "param_groups": content["param_groups"]})
    learner.n_micro_batches = content["n_micro_batches"]
    progress = Progress(**content["progress"])
    if "epoch_state" not in content:
        return progress, None
    sums = {key: value.to(learner.fabric.device) for key, value in _select_prefix("epoch_state/", tensors).items()}
    epoch_state = EpochState(**sums, **content["epoch_state"])
    if learner.fabric.global_rank:
        # The saved sums are those of all processes; only the first process keeps them, so that none counts twice.
        epoch_state = replace(
            epoch_state,
            loss_sum=torch.zeros_like(epoch_state.loss_sum),
            n_correct=torch.zeros_like(epoch_state.n_correct),
        )
    return progress, epoch_state


def _select_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with the prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
