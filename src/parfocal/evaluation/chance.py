"""How likely chance alone would make a difference: answers exchanged by lot, McNemar's test, and many pairs at once.

The bootstrap trusts that few groups stand for many. Where two sides differ on a handful of groups they do not, and
exchanging what the sides say of a group tells exactly how often chance alone would go as far.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import sparse, stats

from parfocal.evaluation.calibration import brier, log_loss
from parfocal.evaluation.confusion import known_mean
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.ranking import Ranking, asked
from parfocal.evaluation.weighed import OF_ANSWERS

# So many numbers are drawn at a time, for the memory's sake.
_AT_ONCE = 4_000_000
# Rounding makes equals differ by less.
_HAIR = 1e-9
# Of more groups the draws alone are right about ranks (benchmarks/README.md), and ranks take their time.
_MOST_RANKED = 500


def exchanged(one: Sequence[Predictions], other: Sequence[Predictions], draws: int) -> dict[str, float]:
    """Return by figure how often a difference is as large when lots decide, group by group, whose answers are whose.

    Both sides' predictions are of the same images in the same order; of several runs the mean counts. Where there are
    no more ways to exchange than draws, every way is taken once. What hangs on ranks is told of up to 500 groups.
    """
    group = np.unique(np.array(one[0].groups, dtype=str), return_inverse=True)[1]
    several, images = len(one[0].classes), len(group)

    def of_answers(sums: np.ndarray) -> dict[str, np.ndarray]:
        matrices = sums.reshape(-1, several, several)
        return {name: figure(matrices) for name, figure in OF_ANSWERS.items()}

    def of_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
        return {"brier": sums[:, 0] / images, "loss": sums[:, 1] / images}

    found = _of_sums(_answers(one, group), _answers(other, group), of_answers, draws)
    found |= _of_sums(_scores(one, group), _scores(other, group), of_scores, draws)
    return found | (_of_ranks(one, other, group, draws) if group.max() < _MOST_RANKED else {})


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


def _of_sums(
    one: sparse.csr_array, other: sparse.csr_array, figures: Callable[[np.ndarray], dict[str, np.ndarray]], draws: int
) -> dict[str, float]:
    """Tell it of figures that follow from sums, to which each group adds something (sums, groups)."""
    between = one - other
    between = between[:, np.flatnonzero(abs(between).sum(axis=0) > _HAIR)]

    def apart(lots: np.ndarray) -> dict[str, np.ndarray]:
        moved = (between @ lots.T).T
        first, second = figures(one.sum(axis=1) - moved), figures(other.sum(axis=1) + moved)
        return {name: first[name] - second[name] for name in first}

    return _as_large(apart, between.shape[1], between.shape[1], draws)


def _of_ranks(
    one: Sequence[Predictions], other: Sequence[Predictions], group: np.ndarray, draws: int
) -> dict[str, float]:
    """Tell it of the area under the ROC curve.

    Ranks are exchanged instead of probabilities, for each network has a scale of its own.
    """
    truth, runs = one[0].truth, [*one, *other]
    rankings = [
        Ranking.of(
            np.concatenate([stats.rankdata(run.probabilities[:, label]) for run in runs]),
            np.tile(truth == label, len(runs)),
        )
        for label in asked(len(one[0].classes))
    ]

    def area(kept: np.ndarray) -> np.ndarray:
        # Whole numbers that make both sides weigh alike, however many runs they have.
        sides = [kept * len(other)] * len(one) + [(1 - kept) * len(one)] * len(other)
        weights = np.concatenate(sides, axis=1)
        return known_mean(np.stack([ranking.auc(weights) for ranking in rankings], axis=1))

    def apart(lots: np.ndarray) -> dict[str, np.ndarray]:
        exchanged_images = lots.astype(np.int32).take(group, axis=1)
        return {"auc": area(1 - exchanged_images) - area(exchanged_images)}

    return _as_large(apart, int(group.max()) + 1, len(truth) * len(runs), draws)


def _as_large(
    apart: Callable[[np.ndarray], dict[str, np.ndarray]], groups: int, wide: int, draws: int
) -> dict[str, float]:
    """Return the share of ways to exchange groups that leave the sides as far `apart` as they are.

    So many numbers as `wide` says are held of one way.
    """
    least: dict[str, float] = {}
    reached: dict[str, int] = {}
    ways = 0
    for lots in _lots(groups, max(1, _AT_ONCE // max(1, wide)), draws):
        ways += len(lots)
        for name, far in apart(lots).items():
            # The first way is what was seen.
            least.setdefault(name, abs(float(far[0])) - _HAIR)
            reached[name] = reached.get(name, 0) + int((np.abs(far) >= least[name]).sum())
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


def _lots(groups: int, at_once: int, draws: int) -> Iterator[np.ndarray]:
    """Give ways to exchange groups (ways, groups), some at once; the first way exchanges none."""
    if 2**groups <= draws:
        for start in range(0, 2**groups, at_once):
            ways = np.arange(start, min(start + at_once, 2**groups))
            yield (ways[:, None] >> np.arange(groups) & 1).astype(float)
        return
    yield np.zeros((1, groups))
    dice = np.random.default_rng(groups)
    for start in range(0, draws, at_once):
        yield dice.integers(0, 2, (min(at_once, draws - start), groups)).astype(float)
