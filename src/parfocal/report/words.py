"""What figures and splits are called, and how people read a figure with its doubt."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parfocal.evaluation.compare import Comparison, Value
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.intervals import LEAST
from parfocal.run import Run

SPLIT_NAMES = {"valid": "validation", "test": "test"}
HEADINGS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro F1",
    "kappa": "kappa",
    "quadratic_kappa": "quadratic kappa",
    "auc": "AUC",
    "brier": "Brier",
    "loss": "loss",
}
"""The figures of a comparison as a table's headings call them."""

_TOLD = ("accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")


def chance_words(chance: float | None) -> str:
    """Return a chance as people read it."""
    return "–" if chance is None else "< 0.001" if chance < 0.001 else f"{chance:.3f}"


def figure_of(judged: Mapping[str, Any], name: str) -> str:
    """Return a figure of a judgement with its interval, as people read it."""
    return str(Value.judged(judged, name))


def share_of(measured: Mapping[str, Any] | None) -> str:
    """Return a measured share with its interval, as people read it."""
    return "–" if measured is None else str(Value(measured["value"], measured["interval"]))


def figures_told(comparison: Comparison) -> list[str]:
    """Return the figures that tables of a comparison show; of two classes quadratic kappa is kappa, and once enough."""
    same = all(one.figures["kappa"] == one.figures["quadratic_kappa"] for one in comparison.results)
    return [figure for figure in _TOLD if figure != "quadratic_kappa" or not same]


def words_of(figure: str) -> str:
    """Return what people call a figure within a sentence."""
    return "ROC AUC" if figure == "auc" else figure.replace("_", " ")


def title_of(figure: str) -> str:
    """Return what people call a figure at the head of something."""
    words = words_of(figure)
    return words[0].upper() + words[1:]


def looks_by_run(runs: Sequence[Run]) -> dict[str, str]:
    """Return how each run's figures look at images: as was decided after training, or else as its recipe says."""
    return {run.name: Decision.load(run.decision).looks or run.recipe.views.evaluation for run in runs}


def looks_told(runs: Sequence[Run]) -> dict[str, str]:
    """Return how each run's figures look at images where that is worth a word; else nothing."""
    return looks_by_run(runs) if looks_words(runs) else {}


def looks_words(runs: Sequence[Run]) -> str:
    """Say how images are looked at where the runs differ in it, or where a recipe says otherwise; else nothing."""
    looks, said = looks_by_run(runs), {run.name: run.recipe.views.evaluation for run in runs}
    if len(set(looks.values())) > 1:
        named = ", ".join(f"{name} {own}" for name, own in looks.items())
        return f"The runs look at images in different ways ({named}), which is part of how they differ."
    if looks == said:
        return ""
    ways = ", ".join(sorted(set(said.values())))
    return f"The looks are {next(iter(looks.values()))}, where the recipe says {ways}."


def judged_splits(run: Run) -> dict[str, dict[str, Any]]:
    """Return the judgement of each split whose truth is known."""
    metrics = run.metrics()
    return {split: metrics[split] for split in SPLIT_NAMES if metrics.get(split, {}).get("labelled")}


def too_few(runs: Sequence[Run]) -> str:
    """Say which splits have too few groups for intervals; nothing where all have enough."""
    return few_words((SPLIT_NAMES[split], judged) for run in runs for split, judged in judged_splits(run).items())


def few_words(judged: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Say which judgements, each with what it is of, have too few groups for intervals; nothing where all have."""
    found = {
        f"{one['intervals']['groups']} on {of}"
        for of, one in judged
        if "intervals" in one and one["intervals"]["groups"] < LEAST
    }
    told = ", ".join(sorted(found))
    return f"Too few groups (patients) for intervals: {told}; {LEAST} are the least." if found else ""
