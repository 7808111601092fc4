"""Alarms during training: the network predicts the same class for almost everything, or is no better than chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from parfocal.errors import UsageError
from parfocal.models.auto_init import explain_misfit
from parfocal.recipe import Recipe, load_recipe
from parfocal.reported import has_source_document

PREDICTED_COLUMN_PREFIX = "valid_predicted:"
"""Prefix of the history columns with the share of each class among the predictions on validation."""

ALARMS_OF_NO_LEARNING = ("collapse", "no_kappa")
"""Codes of the alarms that say that the network has learned nothing."""

# A class with more than this share of the predictions is a collapse, unless it has nearly that share of the images.
_COLLAPSE_SHARE = 0.95
_COLLAPSE_MARGIN = 0.02

_Z_SCORE_95 = 1.645
"""One-sided: chance exceeds this many standard deviations 1 time in 20."""
# A kappa below the first limit is always chance; above the second it never is, even with few images.
_MIN_KAPPA_LIMIT = 0.005
_MAX_KAPPA_LIMIT = 0.05
_MIN_EPOCHS_AT_CHANCE = 3


@dataclass(frozen=True)
class Alarm:
    """What is wrong from epoch `since` to epoch `until`; `text` explains the likely cause and what to try next."""

    code: str
    since: int
    until: int
    text: str


def alarms(history: Sequence[Mapping[Any, Any]], counts: Mapping[str, int], recipe: Recipe) -> list[Alarm]:
    """Return the alarms of a training history, ordered by their last epoch.

    `counts` holds the number of validation images of each class.
    """
    n_images = max(1, sum(counts.values()))
    true_shares = {name: count / n_images for name, count in counts.items()}
    is_at_chance = [float(row["valid_kappa"]) < _compute_kappa_limit(row, true_shares, n_images) for row in history]
    remedies = _suggest_remedies(recipe, kappa_selects=not all(is_at_chance))
    found: list[Alarm] = []
    for name, true_share in true_shares.items():
        shares = [float(row.get(PREDICTED_COLUMN_PREFIX + name, 0)) for row in history]
        # The closer the share of the images is to 1, the less room there is above it.
        limit = max(_COLLAPSE_SHARE, min(true_share + _COLLAPSE_MARGIN, (1 + true_share) / 2))
        for since, until in _find_stretches([share > limit for share in shares]):
            cause = _explain_collapse(true_share == max(true_shares.values()), recipe)
            text = (
                f"{_format_epochs(since, until)}: {shares[until - 1]:.1%} of the validation images are predicted as "
                f"{name!r}, the true class of {true_share:.1%}. {cause} {remedies}"
            )
            found.append(Alarm("collapse", since, until, text))

    collapses = [(alarm.since, alarm.until) for alarm in found]
    min_epochs = min(_MIN_EPOCHS_AT_CHANCE, recipe.training.n_epochs)
    present = [name for name, count in counts.items() if count]
    for since, until in _find_stretches(is_at_chance):
        # A network that predicts only a single class has a kappa of 0 as well: one alarm is enough.
        is_collapse = any(first <= since and until <= last for first, last in collapses)
        if until - since + 1 < min_epochs:
            continue
        if len(present) == 1:
            text = (
                f"{_format_epochs(since, until)}: kappa on validation is 0 whatever the network predicts, because all "
                f"validation images are {present[0]!r}. Add validation images of another class, or split again "
                "(keep=false)."
            )
            found.append(Alarm("one_class", since, until, text))
        elif not is_collapse:
            kappa = float(history[until - 1]["valid_kappa"])
            text = (
                f"{_format_epochs(since, until)}: kappa on validation is {kappa:.3f}, no better than chance. The "
                "network does not learn from the images: there are too few training steps, the learning rate is too "
                f"high, or the images are too small. {remedies}"
            )
            found.append(Alarm("no_kappa", since, until, text))
    return sorted(found, key=lambda alarm: alarm.until)


def predicted_shares(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the share of each class among the predictions, as columns of the history."""
    return {
        PREDICTED_COLUMN_PREFIX + name: values["predicted"] / metrics["count"]
        for name, values in metrics["per_class"].items()
    }


def _compute_kappa_limit(row: Mapping[Any, Any], true_shares: Mapping[str, float], n_images: int) -> float:
    """Return the kappa that random predictions with the same class frequencies exceed only 1 time in 20."""
    shares = [(share, float(row.get(PREDICTED_COLUMN_PREFIX + name, 0))) for name, share in true_shares.items()]
    expected = sum(true * predicted for true, predicted in shares)
    if expected >= 1:
        return _MIN_KAPPA_LIMIT
    # Standard error under independence: Fleiss, Cohen and Everitt (1969).
    variance = expected + expected**2 - sum(true * predicted * (true + predicted) for true, predicted in shares)
    standard_error = sqrt(max(0.0, variance) / n_images) / (1 - expected)
    return min(max(_Z_SCORE_95 * standard_error, _MIN_KAPPA_LIMIT), _MAX_KAPPA_LIMIT)


def _find_stretches(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the first and last epoch, counted from 1, of each stretch of true flags."""
    stretches: list[tuple[int, int]] = []
    for epoch, flag in enumerate(flags, start=1):
        if flag and stretches and stretches[-1][1] == epoch - 1:
            stretches[-1] = (stretches[-1][0], epoch)
        elif flag:
            stretches.append((epoch, epoch))
    return stretches


def _format_epochs(since: int, until: int) -> str:
    return f"Epoch {since}" if since == until else f"Epochs {since} to {until}"


def _explain_collapse(is_largest_class: bool, recipe: Recipe) -> str:
    """Return the likely cause of predicting a single class, given whether it is the largest."""
    training = recipe.training
    is_unweighted = (
        training.sampling == "natural" and training.class_weights == "none" and not training.logit_adjustment
    )
    if is_largest_class and is_unweighted:
        return "Predicting this class every time already gives that accuracy, and training has settled there."
    if is_largest_class or is_unweighted:
        return "A likely cause is a learning rate that is too high, or too few training steps."
    return (
        "Likely causes are oversampling or class weights that favor rare classes, or a learning rate that is too high."
    )


def _suggest_remedies(recipe: Recipe, *, kappa_selects: bool) -> str:
    """Return what is most likely to help, is not in the recipe yet, and is compatible with it.

    `kappa_selects` says whether kappa tells epochs apart: it does not if it is at chance in all of them.
    Weighted sampling is not among it: on EyePACS, sampling by the root of the frequency lowered accuracy and kappa.
    """
    training = recipe.training
    if training.head == "probe":
        return "Try head=warm_start, which then trains the whole network."
    remedies: list[str] = []
    # The recipes of the source documents state their initial weights.
    if recipe.network.init == "scratch" and not has_source_document(recipe):
        pretrained = "init=imagenet, or " if not explain_misfit(recipe.network) else ""
        remedies.append(f"{pretrained}init=RUN with an earlier run on similar images")
    if training.optimizer != "sgd" and training.learning_rate > 3e-4:
        remedies.append(f"a learning_rate below {training.learning_rate:g}")
    if not training.warmup and training.schedule != "one_cycle" and _is_valid_change(recipe, warmup=2):
        remedies.append("warmup=2")
    if recipe.evaluation.ordered and recipe.decision_rule == "likeliest" and training.loss != "regression":
        remedies.append("decide=mean, which predicts the rounded mean grade instead of the most probable one")
    if training.select == "accuracy" and kappa_selects:
        remedies.append("select=kappa, so that such an epoch is never selected")
    if len(remedies) < 2:
        remedies.append("more minutes" if training.minutes else "more epochs")
    return f"Try {'; '.join(remedies)}."


def _is_valid_change(recipe: Recipe, **changes: Any) -> bool:
    """Return whether a recipe accepts the changes."""
    try:
        load_recipe(recipe, **changes)
    except UsageError:
        return False
    return True
