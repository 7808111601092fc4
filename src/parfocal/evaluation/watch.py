"""Noticing while it happens that a network says one class for everything, or no more than chance would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from parfocal.recipe import Recipe

SAYS = "valid_says:"
"""What columns of the history that hold the share of each class among the predictions begin with."""

_ALMOST_ALL = 0.95
_BEYOND = 0.02
_CHANCE = 1.645
"""So many deviations of chance are what it exceeds once in twenty times."""
_NO_KAPPA, _SOME_KAPPA = 0.005, 0.05
"""Below the first kappa is none, whatever chance may give; from the second on it is some, though images be few."""
_EPOCHS_WITHOUT = 3


@dataclass(frozen=True)
class Alarm:
    """What is wrong, since which epoch and until which, and what to try next."""

    code: str
    since: int
    until: int
    text: str


def alarms(history: Sequence[Mapping[Any, Any]], counts: Mapping[str, int], recipe: Recipe) -> list[Alarm]:
    """Return the alarms of a history, those of its last epoch last; `counts` are the images of each class of valid."""
    found = _collapsed(history, counts, recipe)
    # That nothing but one class is said tells of kappa too.
    found += [
        flat
        for flat in _without_kappa(history, counts, recipe)
        if not any(one.since <= flat.since and flat.until <= one.until for one in found)
    ]
    return sorted(found, key=lambda alarm: alarm.until)


def shares_said(judged: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns of a history that say how often each class was predicted."""
    return {SAYS + name: one["predicted"] / judged["count"] for name, one in judged["per_class"].items()}


def _collapsed(history: Sequence[Mapping[Any, Any]], counts: Mapping[str, int], recipe: Recipe) -> list[Alarm]:
    found: list[Alarm] = []
    for name, share_of_images in _shares(counts).items():
        said = [float(row.get(SAYS + name, 0)) for row in history]
        for since, until in _stretches([share > max(_ALMOST_ALL, share_of_images + _BEYOND) for share in said]):
            text = (
                f"{_epochs(since, until)}: {said[until - 1]:.1%} of the predictions on valid are {name!r}, which is "
                f"{share_of_images:.1%} of the images. {_advice(recipe)}"
            )
            found.append(Alarm("collapse", since, until, text))
    return found


def _without_kappa(history: Sequence[Mapping[Any, Any]], counts: Mapping[str, int], recipe: Recipe) -> list[Alarm]:
    found: list[Alarm] = []
    for since, until in _stretches([float(row["valid_kappa"]) < _kappa_of_chance(row, counts) for row in history]):
        if until - since + 1 >= min(_EPOCHS_WITHOUT, recipe.training.epochs):
            kappa = float(history[until - 1]["valid_kappa"])
            text = f"{_epochs(since, until)}: kappa on valid is {kappa:.3f}, no better than chance. {_advice(recipe)}"
            found.append(Alarm("no_kappa", since, until, text))
    return found


def _kappa_of_chance(row: Mapping[Any, Any], counts: Mapping[str, int]) -> float:
    """Return the kappa that answers as often as these, but without regard to the image, seldom exceed."""
    pairs = [(share, float(row.get(SAYS + name, 0))) for name, share in _shares(counts).items()]
    agreed = sum(true * said for true, said in pairs)
    spread = agreed + agreed**2 - sum(true * said * (true + said) for true, said in pairs)
    if agreed >= 1:
        return _NO_KAPPA
    # Fleiss, Cohen and Everitt (1969).
    deviation = sqrt(max(0.0, spread) / max(1, sum(counts.values()))) / (1 - agreed)
    return min(max(_CHANCE * deviation, _NO_KAPPA), _SOME_KAPPA)


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    return {name: count / max(1, sum(counts.values())) for name, count in counts.items()}


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
    if recipe.judgement.ordered and training.loss in ("cross_entropy", "focal"):
        steps.append("loss=regression, which learns the grade as a number")
    if recipe.network.init == "scratch":
        steps.append("init=imagenet, or init=RUN with an earlier run on such images")
    if training.select == "accuracy":
        steps.append("select=kappa, so that no such epoch is chosen")
    steps.append("more epochs" if len(steps) < 2 else "")
    return f"Try {'; '.join(step for step in steps if step)}."
