"""Noticing while it happens that a network says one class for everything, or no more than chance would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from parfocal.errors import UsageError
from parfocal.models import resnet
from parfocal.models.pretrained import PRETRAINED_HASHES
from parfocal.recipe import Recipe
from parfocal.recipe import load_recipe as changed

PREDICTED_COLUMN_PREFIX = "valid_says:"
"""What columns of the history that hold the share of each class among the predictions begin with."""

_COLLAPSE_SHARE = 0.95
_COLLAPSE_MARGIN = 0.02
_Z_SCORE_95 = 1.645
"""So many deviations of chance are what it exceeds once in twenty times."""
_MIN_KAPPA_LIMIT, _MAX_KAPPA_LIMIT = 0.005, 0.05
"""Below the first kappa is none, whatever chance may give; from the second on it is some, though images be few."""
_MIN_EPOCHS_AT_CHANCE = 3


@dataclass(frozen=True)
class Alarm:
    """What is wrong, since which epoch and until which; `text` says why that may be and what to try next."""

    code: str
    since: int
    until: int
    text: str


def alarms(history: Sequence[Mapping[Any, Any]], counts: Mapping[str, int], recipe: Recipe) -> list[Alarm]:
    """Return the alarms of a history, those of its last epoch last; `counts` are the images of each class of valid."""
    found = _find_collapses(history, counts, recipe)
    # That nothing but one class is said tells of kappa too.
    found += [
        flat
        for flat in _find_epochs_at_chance(history, counts, recipe)
        if not any(one.since <= flat.since and flat.until <= one.until for one in found)
    ]
    return sorted(found, key=lambda alarm: alarm.until)


def predicted_shares(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns of a history that say how often each class was predicted."""
    return {
        PREDICTED_COLUMN_PREFIX + name: one["predicted"] / metrics["count"]
        for name, one in metrics["per_class"].items()
    }


def _find_collapses(history: Sequence[Mapping[Any, Any]], counts: Mapping[str, int], recipe: Recipe) -> list[Alarm]:
    found: list[Alarm] = []
    shares = _compute_shares(counts)
    for name, of_images in shares.items():
        said = [float(row.get(PREDICTED_COLUMN_PREFIX + name, 0)) for row in history]
        # A class that is almost everything leaves less room above it.
        most = max(_COLLAPSE_SHARE, min(of_images + _COLLAPSE_MARGIN, (1 + of_images) / 2))
        for since, until in _find_stretches([share > most for share in said]):
            text = (
                f"{_format_epochs(since, until)}: {said[until - 1]:.1%} of the predictions on valid are {name!r}, which is "
                f"{of_images:.1%} of the images. {_explain_collapse(of_images == max(shares.values()), recipe)} {_suggest_remedies(recipe)}"
            )
            found.append(Alarm("collapse", since, until, text))
    return found


def _find_epochs_at_chance(
    history: Sequence[Mapping[Any, Any]], counts: Mapping[str, int], recipe: Recipe
) -> list[Alarm]:
    found: list[Alarm] = []
    for since, until in _find_stretches(
        [float(row["valid_kappa"]) < _compute_kappa_limit(row, counts) for row in history]
    ):
        if until - since + 1 >= min(_MIN_EPOCHS_AT_CHANCE, recipe.training.epochs):
            kappa = float(history[until - 1]["valid_kappa"])
            text = (
                f"{_format_epochs(since, until)}: kappa on valid is {kappa:.3f}, no better than chance. What the images show "
                f"is not learnt: the steps are too few or too large, or the size is too small. {_suggest_remedies(recipe)}"
            )
            found.append(Alarm("no_kappa", since, until, text))
    return found


def _compute_kappa_limit(row: Mapping[Any, Any], counts: Mapping[str, int]) -> float:
    """Return the kappa that answers as often as these, but without regard to the image, seldom exceed."""
    pairs = [
        (share, float(row.get(PREDICTED_COLUMN_PREFIX + name, 0))) for name, share in _compute_shares(counts).items()
    ]
    agreed = sum(true * said for true, said in pairs)
    spread = agreed + agreed**2 - sum(true * said * (true + said) for true, said in pairs)
    if agreed >= 1:
        return _MIN_KAPPA_LIMIT
    # Fleiss, Cohen and Everitt (1969).
    deviation = sqrt(max(0.0, spread) / max(1, sum(counts.values()))) / (1 - agreed)
    return min(max(_Z_SCORE_95 * deviation, _MIN_KAPPA_LIMIT), _MAX_KAPPA_LIMIT)


def _compute_shares(counts: Mapping[str, int]) -> dict[str, float]:
    return {name: count / max(1, sum(counts.values())) for name, count in counts.items()}


def _find_stretches(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Return first and last epoch, counted from 1, of each stretch over which something holds."""
    found: list[tuple[int, int]] = []
    for epoch, one in enumerate(flags, start=1):
        if one and found and found[-1][1] == epoch - 1:
            found[-1] = (found[-1][0], epoch)
        elif one:
            found.append((epoch, epoch))
    return found


def _format_epochs(since: int, until: int) -> str:
    return f"Epoch {since}" if since == until else f"Epochs {since} to {until}"


def _explain_collapse(is_largest_class: bool, recipe: Recipe) -> str:
    """Say why one class may be said of almost everything, given whether it is the largest one."""
    training = recipe.training
    alike = training.sampling == "natural" and training.class_weights == "none" and not training.logit_adjustment
    if is_largest_class and alike:
        return "Always saying it is right that often, and the loss has settled for that."
    if is_largest_class or alike:
        return "A network comes to that by steps that are too large, or too few."
    return "Rare classes that are shown more often or count for more bring that about, or steps that are too large."


def _suggest_remedies(recipe: Recipe) -> str:
    """Name what is most likely to help, is not done yet, and fits the rest of the recipe."""
    training, steps = recipe.training, []
    if training.optimizer != "sgd" and training.learning_rate > 3e-4:
        steps.append(f"a lower learning_rate than {training.learning_rate:g}")
    if not training.warmup and training.schedule != "one_cycle" and _is_valid_change(recipe, warmup=2):
        steps.append("warmup=2")
    if training.sampling == "natural":
        begins = "sampling=decay, which begins with all classes alike"
        steps.append(
            begins if _is_valid_change(recipe, sampling="decay") else "sampling=square_root, for the rare classes"
        )
    to_grades = recipe.evaluation.ordered and training.loss in ("cross_entropy", "focal")
    if to_grades and _is_valid_change(recipe, loss="regression"):
        steps.append("loss=regression, which learns the grade as a number")
    if recipe.network.init == "scratch":
        published = "init=imagenet, or " if _has_pretrained_weights(recipe) else ""
        steps.append(f"{published}init=RUN with an earlier run on such images")
    if training.select == "accuracy":
        steps.append("select=kappa, so that no such epoch is chosen")
    if len(steps) < 2:
        steps.append("more minutes" if training.minutes else "more epochs")
    return f"Try {'; '.join(steps)}."


def _is_valid_change(recipe: Recipe, **changes: Any) -> bool:
    """Say whether a recipe may be changed so."""
    try:
        changed(recipe, **changes)
    except UsageError:
        return False
    return True


def _has_pretrained_weights(recipe: Recipe) -> bool:
    """Say whether ImageNet's weights are published for a recipe's network, and fit it and its pixels."""
    part = recipe.network
    if part.model not in PRETRAINED_HASHES["imagenet"] or not _is_valid_change(recipe, init="imagenet"):
        return False
    own = resnet.resolve_architecture(part.model, groups=part.groups, width_per_group=part.width_per_group)
    return own == resnet.get_architecture(part.model)
