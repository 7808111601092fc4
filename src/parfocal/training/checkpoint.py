"""Everything needed to go on with a run, in one file of tensors and plain types."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parfocal.model.weights import read_tensors, write_tensors


@dataclass
class Progress:
    """How far a run has come: finished epochs as rows of its history, and the best value so far."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)


def save(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    average: nn.Module | None = None,
) -> None:
    """Write weights, their average where there is one, the optimiser's state and progress."""
    state = optimiser.state_dict()
    tensors = {f"network/{key}": value for key, value in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{key}": value for key, value in average.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{number}/{key}"] = value
            else:
                plain.setdefault(str(number), {})[key] = value
    about = {"groups": state["param_groups"], "state": plain, "progress": vars(progress)}
    write_tensors(path, tensors, about)


def load(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: nn.Module | None = None
) -> Progress:
    """Put the state of a file written by `save` back in place and return the progress."""
    tensors, about = read_tensors(path)
    network.load_state_dict(_below("network/", tensors))
    if average is not None:
        average.load_state_dict(_below("average/", tensors))
    state: dict[int, dict[str, Any]] = {int(number): dict(values) for number, values in about["state"].items()}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, number, name = key.split("/")
            layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
            state.setdefault(int(number), {})[name] = value.to(memory_format=layout)
    optimiser.load_state_dict({"state": state, "param_groups": about["groups"]})
    return Progress(**about["progress"])


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
