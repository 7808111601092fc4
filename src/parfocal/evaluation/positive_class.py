"""The positive class of two: chosen in the recipe or by `evaluate`, or guessed from names that are sure to be negative.

Everything that needs a positive class asks this module. The order of the classes says nothing about it.
"""

import re
from collections.abc import Sequence

from parfocal.errors import UsageError, did_you_mean
from parfocal.recipe_schema import EvaluationConfig
from parfocal.run import Run

_NEGATIVE_WORDS = frozenset(("0", "normal", "healthy", "benign", "hem", "control", "controls", "negative"))
# Nouns that may follow a negative word: normal cell, healthy eyes.
_NOUNS = frozenset(
    ("cell", "cells", "tissue", "eye", "eyes", "image", "images", "group", "patient", "patients", "subject", "subjects")
)


def find_positive_class(run: Run, chosen: str = "") -> int | None:
    """Return the index of the positive class of a run; `chosen`, if any, replaces that of its recipe."""
    data = run.read_environment()["data"]
    config = run.recipe.evaluation
    return resolve_positive_class(chosen or run.recipe.data.positive, config, data["classes"], data["codes"])


def resolve_positive_class(
    chosen: str, config: EvaluationConfig, classes: Sequence[str], codes: Sequence[str] = ()
) -> int | None:
    """Return the index of the chosen class, a name or a code; without a choice, guess it.

    It is None with referable grades, with more than two classes, and if no name is sure to be negative.
    """
    if not chosen:
        return None if config.referable else _guess_positive_class(classes)
    if config.referable:
        raise UsageError(f"positive={chosen} contradicts referable={config.referable}. Set one of them only.")
    if len(classes) != 2:
        raise UsageError(
            f"positive={chosen} needs two classes, and there are {len(classes)}. "
            "For grades, set the lowest referable grade (ordered=true referable=2)."
        )
    for names in (classes, codes):
        if chosen in names:
            return list(names).index(chosen)
    raise UsageError(f"positive={chosen} is not a class. {did_you_mean(chosen, classes)}")


def require_positive_class(positive: int | None, classes: Sequence[str], reason: str) -> int:
    """Return the index of the positive class; raise an error that starts with the reason if it is not known."""
    if positive is None:
        choices = " or ".join(f"positive={name}" for name in classes)
        raise UsageError(f"{reason} needs to know which class is positive: set {choices}.")
    return positive


def is_surely_negative(name: str) -> bool:
    """Return whether the name of a class can only mean the absence of a finding: `normal`, `healthy cells`, `no DR`."""
    words = re.findall(r"[^\W_]+", name.casefold())
    if words[:1] == ["no"]:
        return True
    return bool(words) and words[0] in _NEGATIVE_WORDS and all(word in _NEGATIVE_WORDS | _NOUNS for word in words)


def _guess_positive_class(classes: Sequence[str]) -> int | None:
    negative = [label for label, name in enumerate(classes) if is_surely_negative(name)]
    return 1 - negative[0] if len(classes) == 2 and len(negative) == 1 else None
