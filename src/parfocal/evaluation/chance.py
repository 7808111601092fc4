"""How likely chance alone would make a difference: answers exchanged by lot, McNemar's test, and many pairs at once.

The bootstrap trusts that few groups stand for many. Where two sides differ on a handful of groups they do not, and
exchanging what the sides say of a group tells exactly how often chance alone would go as far.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import sparse, stats

from parfocal.evaluation.calibration import brier, log_loss
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.weighed import OF_ANSWERS

# So many numbers are drawn at a time, for the memory's sake.
_AT_ONCE = 4_000_000
# Rounding makes equals differ by less.
_HAIR = 1e-9


def exchanged(one: Sequence[Predictions], other: Sequence[Predictions], draws: int) -> dict[str, float]:
    """Return by figure how often a difference is as large when lots decide, group by group, whose answers are whose.

    Both sides' predictions are of the same images in the same order; of several runs the mean counts. Where there are
    no more ways to exchange than draws, every way is taken once. There is none for figures of ranks.
    """
    group = np.unique(np.array(one[0].groups, dtype=str), return_inverse=True)[1]
    several, images = len(one[0].classes), len(group)

    def of_answers(sums: np.ndarray) -> dict[str, np.ndarray]:
        matrices = sums.reshape(-1, several, several)
        return {name: figure(matrices) for name, figure in OF_ANSWERS.items()}

    def of_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
        return {"brier": sums[:, 0] / images, "loss": sums[:, 1] / images}

    answers = _as_large(_answers(one, group), _answers(other, group), of_answers, draws)
    return answers | _as_large(_scores(one, group), _scores(other, group), of_scores, draws)


def mcnemar(one: Predictions, other: Predictions) -> float:
    """Return the two-sided exact (binomial) test of McNemar: of the images that one alone got right, whose are they."""
    first, second = one.predicted == one.truth, other.predicted == other.truth
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(chances: Sequence[float | None]) -> list[float | None]:
    """Return chances adjusted for how many there are, by Holm's steps from the least to the greatest."""
    known = sorted((chance, number) for number, chance in enumerate(chances) if chance is not None)
    adjusted: list[float | None] = [None] * len(chances)
    highest = 0.0
    for step, (chance, number) in enumerate(known):
        highest = max(highest, min(1.0, chance * (len(known) - step)))
        adjusted[number] = highest
    return adjusted


def _as_large(
    one: sparse.csr_array, other: sparse.csr_array, figures: Callable[[np.ndarray], dict[str, np.ndarray]], draws: int
) -> dict[str, float]:
    """Return the share of ways that leave the sides as far apart as they are, from what each group adds to the sums."""
    between = one - other
    between = between[:, np.flatnonzero(abs(between).sum(axis=0) > _HAIR)]
    least: dict[str, float] = {}
    reached: dict[str, int] = {}
    ways = 0
    for lots in _lots(between.shape[1], draws):
        ways += len(lots)
        moved = (between @ lots.T).T
        first, second = figures(one.sum(axis=1) - moved), figures(other.sum(axis=1) + moved)
        for name in first:
            apart = np.abs(first[name] - second[name])
            # The first way is what was seen.
            least.setdefault(name, float(apart[0]) - _HAIR)
            reached[name] = reached.get(name, 0) + int((apart >= least[name]).sum())
    return {name: count / ways for name, count in reached.items()}


def _answers(side: Sequence[Predictions], group: np.ndarray) -> sparse.csr_array:
    """Return how many images of each group lie in each cell of the confusion matrix (cells, groups), over the runs."""
    several = len(side[0].classes)
    cells = np.concatenate([one.truth * several + one.predicted for one in side])
    share = np.full(len(cells), 1 / len(side))
    shape = (several**2, int(group.max()) + 1)
    return sparse.coo_array((share, (cells, np.tile(group, len(side)))), shape=shape).tocsr()


def _scores(side: Sequence[Predictions], group: np.ndarray) -> sparse.csr_array:
    """Return the sum of each group's Brier scores and of its losses (2, groups), over the runs."""
    each = [[score(one.truth, one.probabilities) for one in side] for score in (brier, log_loss)]
    return sparse.csr_array(np.stack([np.bincount(group, np.mean(runs, axis=0)) for runs in each]))


def _lots(groups: int, draws: int) -> Iterator[np.ndarray]:
    """Give ways to exchange groups (ways, groups), part by part; the first way exchanges none."""
    if 2**groups <= draws:
        yield (np.arange(2**groups)[:, None] >> np.arange(groups) & 1).astype(float)
        return
    yield np.zeros((1, groups))
    dice = np.random.default_rng(groups)
    at_once = max(1, _AT_ONCE // groups)
    for start in range(0, draws, at_once):
        yield dice.integers(0, 2, (min(at_once, draws - start), groups)).astype(float)
