"""Noticing while it happens that a network says one class for everything, or no more than chance would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parfocal.data.table import Table
from parfocal.recipe import Recipe

SAYS = "valid_says:"
"""What columns of the history that hold the share of each class among the predictions begin with."""

_ALMOST_ALL = 0.95
_BEYOND = 0.02
_NO_KAPPA = 0.005
_EPOCHS_WITHOUT = 3


@dataclass(frozen=True)
class Alarm:
    """What is wrong, since which epoch and until which, and what to try next."""

    code: str
    since: int
    until: int
    text: str


def alarms(history: Sequence[Mapping[Any, Any]], true: Mapping[str, float], recipe: Recipe) -> list[Alarm]:
    """Return the alarms of a history, those of its last epoch last; `true` is each class's share of valid."""
    found = [*_collapsed(history, true, recipe), *_without_kappa(history, recipe)]
    return sorted(found, key=lambda alarm: alarm.until)


def prevalence(table: Table) -> dict[str, float]:
    """Return the true share of each class on valid."""
    counts = table.counts("valid")
    return {name: count / max(1, sum(counts.values())) for name, count in counts.items()}


def shares_said(judged: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns of a history that say how often each class was predicted."""
    return {SAYS + name: one["predicted"] / judged["count"] for name, one in judged["per_class"].items()}


def _collapsed(history: Sequence[Mapping[Any, Any]], true: Mapping[str, float], recipe: Recipe) -> list[Alarm]:
    found: list[Alarm] = []
    for name, share_of_images in true.items():
        said = [float(row.get(SAYS + name, 0)) for row in history]
        for since, until in _stretches([share > max(_ALMOST_ALL, share_of_images + _BEYOND) for share in said]):
            text = (
                f"{_epochs(since, until)}: {said[until - 1]:.1%} of the predictions on valid are {name!r}, which is "
                f"{share_of_images:.1%} of the images. {_advice(recipe)}"
            )
            found.append(Alarm("collapse", since, until, text))
    return found


def _without_kappa(history: Sequence[Mapping[Any, Any]], recipe: Recipe) -> list[Alarm]:
    flat = [abs(float(row["valid_kappa"])) < _NO_KAPPA for row in history]
    return [
        Alarm("no_kappa", since, until, f"{_epochs(since, until)}: kappa on valid is 0, no better than chance. "
              f"{_advice(recipe)}")
        for since, until in _stretches(flat)
        if until - since + 1 >= _EPOCHS_WITHOUT
    ]  # fmt: skip


def _stretches(holds: Sequence[bool]) -> list[tuple[int, int]]:
    """Return first and last epoch, counted from 1, of each stretch over which something holds."""
    found: list[tuple[int, int]] = []
    for epoch, one in enumerate(holds, start=1):
        if one and found and found[-1][1] == epoch - 1:
            found[-1] = (found[-1][0], epoch)
        elif one:
            found.append((epoch, epoch))
    return found


def _epochs(since: int, until: int) -> str:
    return f"Epoch {since}" if since == until else f"Epochs {since} to {until}"


def _advice(recipe: Recipe) -> str:
    """Name what is most likely to help and is not done yet."""
    training, steps = recipe.training, []
    if training.optimiser != "sgd" and training.learning_rate > 3e-4:
        steps.append(f"a lower learning_rate than {training.learning_rate:g}")
    if not training.warmup and training.schedule != "one_cycle":
        steps.append("warmup=2")
    if training.sampling == "natural":
        steps.append("sampling=decay, which begins with all classes alike")
    if training.select == "accuracy":
        steps.append("select=kappa, so that no such epoch is chosen")
    steps.append("more epochs" if len(steps) < 2 else "")
    return f"Try {'; '.join(step for step in steps if step)}."
