"""Everything needed to go on with a run, in one file of tensors and plain types."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parfocal.model.weights import read_tensors, write_tensors
from parfocal.training.epoch import Tally
from parfocal.training.learner import Learner


@dataclass
class Progress:
    """How far a run is: rows of its history, the best value so far, and seconds: spent in all, and on judging last."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    spent: float = 0.0
    judging: float = 0.0

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)


def save(path: Path, learner: Learner, progress: Progress, tally: Tally | None = None) -> None:
    """Write all of a learner's state, how far the run is, and in the middle of an epoch how far that is."""
    state = learner.optimise.state_dict()
    tensors = {f"network/{key}": value for key, value in learner.classifier.state_dict().items()}
    if learner.average is not None:
        tensors |= {f"average/{key}": value for key, value in learner.average.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{number}/{key}"] = value
            else:
                plain.setdefault(str(number), {})[key] = value
    about = {"groups": state["param_groups"], "state": plain, "progress": vars(progress), "pieces": learner.pieces}
    if tally is not None:
        counted = vars(tally)
        tensors |= {f"tally/{key}": value for key, value in counted.items() if isinstance(value, Tensor)}
        about["tally"] = {key: value for key, value in counted.items() if not isinstance(value, Tensor)}
    write_tensors(path, tensors, about)


def load(path: Path, learner: Learner) -> tuple[Progress, Tally | None]:
    """Put the state of a file written by `save` back in place; return how far the run is, and its epoch if begun."""
    tensors, about = read_tensors(path)
    learner.classifier.load_state_dict(_below("network/", tensors))
    if learner.average is not None:
        learner.average.load_state_dict(_below("average/", tensors))
    state: dict[int, dict[str, Any]] = {int(number): dict(values) for number, values in about["state"].items()}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, number, name = key.split("/")
            layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
            state.setdefault(int(number), {})[name] = value.to(memory_format=layout)
    learner.optimise.load_state_dict({"state": state, "param_groups": about["groups"]})
    learner.pieces = about["pieces"]
    progress = Progress(**about["progress"])
    if "tally" not in about:
        return progress, None
    counted = {key: value.to(learner.fabric.device) for key, value in _below("tally/", tensors).items()}
    tally = Tally(counted["loss"], counted["right"], counted["bad"], **about["tally"])
    if learner.fabric.global_rank:
        # The sums are those of all processes, and the first one brings them.
        tally = replace(tally, loss=torch.zeros_like(tally.loss), right=torch.zeros_like(tally.right))
    return progress, tally


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
