"""Everything needed to go on with a run, in one file of tensors and plain types."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parfocal.models.checkpoints import read_tensors, write_tensors
from parfocal.training.step import EpochState, Learner


@dataclass
class Progress:
    """How far a run is: rows of its history, the best value so far, and seconds: spent in all, and on judging last."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    elapsed_seconds: float = 0.0
    validation_seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)


def save_checkpoint(path: Path, learner: Learner, progress: Progress, epoch_state: EpochState | None = None) -> None:
    """Write all of a learner's state, how far the run is, and in the middle of an epoch how far that is."""
    state = learner.optimizer.state_dict()
    tensors = {f"network/{key}": value for key, value in learner.classifier.state_dict().items()}
    if learner.ema_model is not None:
        tensors |= {f"ema/{key}": value for key, value in learner.ema_model.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{key}"] = value
            else:
                plain.setdefault(str(number), {})[key] = value
    about = {
        "groups": state["param_groups"],
        "state": plain,
        "progress": vars(progress),
        "n_micro_batches": learner.n_micro_batches,
    }
    if epoch_state is not None:
        counted = vars(epoch_state)
        tensors |= {f"epoch_state/{key}": value for key, value in counted.items() if isinstance(value, Tensor)}
        about["epoch_state"] = {key: value for key, value in counted.items() if not isinstance(value, Tensor)}
    write_tensors(path, tensors, about)


def load_checkpoint(path: Path, learner: Learner) -> tuple[Progress, EpochState | None]:
    """Put the state of a file written by `save` back in place; return how far the run is, and its epoch if begun."""
    tensors, about = read_tensors(path)
    learner.classifier.load_state_dict(_select_prefix("network/", tensors))
    if learner.ema_model is not None:
        learner.ema_model.load_state_dict(_select_prefix("ema/", tensors))
    state: dict[int, dict[str, Any]] = {int(number): dict(values) for number, values in about["state"].items()}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, number, name = key.split("/")
            layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
            state.setdefault(int(number), {})[name] = value.to(memory_format=layout)
    learner.optimizer.load_state_dict({"state": state, "param_groups": about["groups"]})
    learner.n_micro_batches = about["n_micro_batches"]
    progress = Progress(**about["progress"])
    if "epoch_state" not in about:
        return progress, None
    counted = {key: value.to(learner.fabric.device) for key, value in _select_prefix("epoch_state/", tensors).items()}
    tally = EpochState(counted["loss_sum"], counted["n_correct"], counted["first_bad_batch"], **about["epoch_state"])
    if learner.fabric.global_rank:
        # The sums are those of all processes, and the first one brings them.
        tally = replace(tally, loss_sum=torch.zeros_like(tally.loss_sum), n_correct=torch.zeros_like(tally.n_correct))
    return progress, tally


def _select_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
