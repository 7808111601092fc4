"""Comparing runs on the same images: whether a difference is larger than what another draw of patients would make.

Runs that differ in seed or fold alone are gathered as one, for a seed's luck is no merit of a recipe: of seeds the mean
counts, and the folds of a cross-validation are joined, each image answered by the run that was not trained on it.
Differences are paired: every draw takes the same patients for both sides. Everything comes from the predictions files.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np

from parfocal.errors import ParfocalError
from parfocal.evaluation.chance import exchanged, holm, mcnemar
from parfocal.evaluation.decision import Decision
from parfocal.evaluation.intervals import DRAWS, LEVEL, WITHOUT, Spread, spreads
from parfocal.evaluation.matching import aligned, different_images, joined, occurrences
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.weighed import Key, Weighed
from parfocal.notebook import html_table
from parfocal.recipe import differences
from parfocal.run import Run, open_runs

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "quadratic_kappa", "auc", "brier", "loss")
"""The figures that runs are compared by."""

_OF_NO_RECIPE = ("name", "about", "seed", "split.fold")


@dataclass(frozen=True)
class Value:
    """A figure: its value, the interval of it if one can be told, and its deviation over several runs."""

    value: float | None
    interval: list[float] | None = None
    deviation: float | None = None

    @classmethod
    def judged(cls, judged: Mapping[str, Any], name: str) -> Self:
        """Return a figure of a judgement; runs judged by an older Parfocal have no intervals."""
        return cls(judged[name], judged.get("intervals", {}).get(name))

    def __str__(self) -> str:
        """Write the figure as people read it: 0.781 ± 0.004 (0.743–0.815)."""
        if self.value is None:
            return "–"
        words = f"{self.value:.3f}"
        if self.deviation is not None:
            words += f" ± {self.deviation:.3f}"
        if self.interval is not None:
            low, high = self.interval
            words += f" ({low:.3f} to {high:.3f})" if low < 0 else f" ({low:.3f}–{high:.3f})"
        return words


@dataclass(frozen=True)
class Result:
    """What one run, or several of one recipe, reach: figures by name, with their deviation over the runs.

    Of seeds, judged on the same images, the figures are means; of folds they are those of all their images together.
    """

    name: str
    runs: tuple[str, ...]
    images: int
    groups: int
    majority_accuracy: float
    figures: dict[str, Value]


@dataclass(frozen=True)
class Difference:
    """How much higher a figure is for `one` than for `other`.

    `chance` is how likely a difference at least so large would be if there were none: by the draws of groups, and by
    exchanging the sides' answers group by group, whichever says more. `adjusted` is the same among all pairs that were
    compared (Holm), and `larger_than_chance` whether it is below 5 %. `mcnemar` is the exact test of accuracy, which
    takes images as independent; it is there where each side answers every image once.
    """

    one: str
    other: str
    figure: str
    value: float
    interval: list[float] | None
    chance: float | None
    adjusted: float | None
    larger_than_chance: bool
    mcnemar: float | None

    @property
    def shown(self) -> Value:
        """The difference with its interval, to be written as figures are."""
        return Value(self.value, self.interval)


@dataclass(frozen=True)
class Comparison:
    """Results on one split and the differences between each two; `without_differences` says why there are none.

    `page` is the report that shows it, where one was written.
    """

    split: str
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]
    without_differences: str = ""
    page: Path | None = None

    def _repr_html_(self) -> str:
        """Show the comparison in a notebook."""
        figures = ("accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")
        rows = [
            (one.name, str(one.images), *(str(one.figures[name]) for name in figures), f"{one.majority_accuracy:.3f}")
            for one in self.results
        ]
        headings = (f"on {self.split}", "images", *(name.replace("_", " ") for name in figures), "majority")
        shown = html_table(f"Report: {self.page}" if self.page else "Comparison", headings, rows)
        tested = [
            (f"{one.one} – {one.other}", one.figure.replace("_", " "), str(one.shown),
             "yes" if one.larger_than_chance else "no")
            for one in self.differences
            if one.figure in figures
        ]  # fmt: skip
        headings = ("difference", "figure", "value", "larger than chance")
        return shown + (html_table("Differences", headings, tested) if tested else "")


def compared(runs: Iterable[Path | str | Run], split: str = "", draws: int = DRAWS) -> Comparison:
    """Compare runs on one split: on test where all have its truth, or else on valid."""
    opened = open_runs(run.folder if isinstance(run, Run) else run for run in runs)
    split = split or best_split(opened)
    families = {name: {run.name: _labelled(run, split) for run in family} for name, family in gathered(opened).items()}
    return comparison_of(families, split, draws)


def comparison_of(
    families: Mapping[str, Mapping[str, Predictions]], split: str, draws: int = DRAWS, only: str = ""
) -> Comparison:
    """Compare labelled predictions by name: those of one run, or of several that are gathered as one.

    Each two are held against each other, or each with the one named by `only`.
    """
    named = [(name, label, one) for name, family in families.items() for label, one in joined(name, family)]
    said = [one for _, _, one in named]
    apart = different_images([label for _, label, _ in named], said)
    if not apart:
        said = [aligned(one, said[0]) for one in said]
    found = [_spreads([one], draws)[0] for one in said] if apart else _spreads(said, draws)
    places = {name: [place for place, (own, _, _) in enumerate(named) if own == name] for name in families}
    sides = {name: [said[place] for place in several] for name, several in places.items()}
    results = tuple(
        _result(name, families[name], sides[name], [found[place] for place in several], bool(apart))
        for name, several in places.items()
    )
    if apart or len(families) == 1:
        return Comparison(split, results, (), apart)
    means = {
        name: {key: _mean([found[place][key,] for place in several]) for key in FIGURES}
        for name, several in places.items()
    }
    pairs = [pair for pair in combinations(means, 2) if not only or only in pair]
    return Comparison(split, results, tuple(_differences(pairs, means, sides, draws)))


def best_split(runs: Sequence[Run]) -> str:
    """Return `test` where all runs have predictions of it with the truth, or else `valid`."""
    told = [run.predictions("test").is_file() and Predictions.load(run.predictions("test")).labelled for run in runs]
    return "test" if all(told) else "valid"


def gathered(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return runs that differ in seed or fold alone as one family, by a name for them."""
    families: list[list[Run]] = []
    for run in runs:
        own = next((family for family in families if _alike(family[0], run)), None)
        if own is None:
            families.append([run])
        else:
            own.append(run)
    names = [_name(family) for family in families]
    for number, family in enumerate(families):
        if names.count(names[number]) > 1:
            names[number] = ", ".join(str(run.folder) for run in family)
    return dict(zip(names, families, strict=True))


def _alike(one: Run, other: Run) -> bool:
    if Decision.load(one.decision).looks != Decision.load(other.decision).looks:
        return False
    changed = differences(one.recipe, other.recipe)
    return bool(changed) and all(key in _OF_NO_RECIPE or key.startswith("machine.") for key in changed)


def _name(family: Sequence[Run]) -> str:
    """Name a family after what its runs' names share: `resnet18` for `resnet18-seed0` and `resnet18-seed1`."""
    parts = [run.name.split("-") for run in family]
    shared = [part for part in parts[0] if all(part in others for others in parts)]
    return "-".join(shared) or family[0].name


def _labelled(run: Run, split: str) -> Predictions:
    said = Predictions.load(run.predictions(split))
    if not said.labelled:
        raise ParfocalError(f"{run.predictions(split)} has images without truth; compare on another split.")
    return said


def _spreads(said: Sequence[Predictions], draws: int) -> list[dict[Key, Spread]]:
    return spreads([Weighed(one) for one in said], draws)


def _result(
    name: str,
    family: Mapping[str, Predictions],
    said: Sequence[Predictions],
    found: Sequence[dict[Key, Spread]],
    apart: bool,
) -> Result:
    whole = len(said) == len(family)
    runs = [] if whole else [Weighed(one).once() for one in family.values()]
    figures: dict[str, Value] = {}
    for key in (key for key in found[0] if len(key) == 1):
        several = [one[key] for one in found]
        # Other images are other witnesses, whose doubts do not simply join.
        unsure = key[0] in WITHOUT or (apart and len(several) > 1)
        values = [one.value for one in several] if whole else [one[key] for one in runs]
        figures[key[0]] = _value(_mean(several), values, not unsure)
    held = {image: row for one in said for image, *row in zip(occurrences(one), one.truth, one.groups, strict=True)}
    truth, groups = zip(*held.values(), strict=True)
    majority = float(np.bincount(truth).max() / len(truth))
    return Result(name, tuple(family), len(truth), len(set(groups)), majority, figures)


def _value(whole: Spread, runs: Sequence[float], sure: bool) -> Value:
    if np.isnan(whole.value):
        return Value(None)
    deviation = float(np.std(runs, ddof=1)) if len(runs) > 1 and not np.isnan(runs).any() else None
    return Value(whole.value, whole.interval() if sure else None, deviation)


def _mean(several: Sequence[Spread]) -> Spread:
    return Spread(
        float(np.mean([one.value for one in several])),
        np.mean([one.without for one in several], axis=0),
        np.mean([one.draws for one in several], axis=0),
        several[0].groups,
    )


def _differences(
    pairs: Sequence[tuple[str, str]],
    means: dict[str, dict[str, Spread]],
    sides: dict[str, list[Predictions]],
    draws: int,
) -> list[Difference]:
    by_lot = {pair: exchanged(sides[pair[0]], sides[pair[1]], draws) for pair in pairs}
    found: list[Difference] = []
    for figure in FIGURES:
        spread = {pair: means[pair[0]][figure] - means[pair[1]][figure] for pair in pairs}
        spread = {pair: between for pair, between in spread.items() if not np.isnan(between.value)}
        chances = [_chance(between, by_lot[pair].get(figure, 0.0)) for pair, between in spread.items()]
        for (pair, between), chance, adjusted in zip(spread.items(), chances, holm(chances), strict=True):
            one, other = (sides[name] for name in pair)
            tested = figure == "accuracy" and len(one) == len(other) == 1
            exact = mcnemar(one[0], other[0]) if tested else None
            beyond = adjusted is not None and adjusted < 1 - LEVEL
            told = between.interval()
            found.append(Difference(*pair, figure, between.value, told, chance, adjusted, beyond, exact))
    return found


def _chance(between: Spread, by_lot: float) -> float | None:
    """Return the chance of a difference, the larger of draws' and lots'; 1 where both say the same throughout."""
    if between.value == 0 and not np.nan_to_num(between.draws).any():
        return 1.0
    drawn = between.chance()
    return None if drawn is None else max(drawn, by_lot)
