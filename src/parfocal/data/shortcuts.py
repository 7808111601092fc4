"""Shortcuts: does something beside the picture's content, such as the file's size or a scale bar, predict the label?"""

from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from threadpoolctl import threadpool_limits

_THUMBNAIL_SIDE = 4
_CORNERS = ("top left corner", "top right corner", "bottom left corner", "bottom right corner")

SHORTCUT_FEATURES: dict[str, tuple[str, ...]] = {
    "file size": ("log of the bytes",),
    "image size": ("log of the width", "log of the height", "log of the aspect"),
    "mean colour": ("mean red", "mean green", "mean blue"),
    "brightness": ("mean brightness", "deviation of brightness"),
    "border": ("red of the border", "green of the border", "blue of the border"),
} | {
    corner: tuple(
        f"{colour} {row},{column} of the {corner}"
        for row in range(_THUMBNAIL_SIDE)
        for column in range(_THUMBNAIL_SIDE)
        for colour in ("red", "green", "blue")
    )
    for corner in _CORNERS
}
"""The names of the numbers that `trivia` returns, in their order, by kind."""

ALL_FEATURES = "all together"
"""The kind of the `Shortcut` that was judged on all trivia at once."""

_MAX_FOLDS = 5
_MAX_ROWS = 5000
_MIN_GAIN = 0.15
_BORDER_SHARE = 0.03
_CORNER_SHARE = 0.15


@dataclass(frozen=True)
class Shortcut:
    """How well one kind of trivia predicts the label of patients it has not seen.

    `accuracy` stands beside that of always naming the largest class, `balanced_accuracy` beside `chance`, one in so
    many classes; `standard_error` is that of the balanced accuracy of guessing, with as many guesses as groups.
    """

    kind: str
    accuracy: float
    majority_accuracy: float
    balanced_accuracy: float
    chance_level: float
    standard_error: float

    @property
    def is_clear(self) -> bool:
        """Say whether it deserves a warning: clearly better than guessing, and not by luck."""
        above = self.balanced_accuracy - self.chance_level
        return above > _MIN_GAIN and above > 3 * self.standard_error


def compute_shortcut_features(image: np.ndarray, n_bytes: int, width: int, height: int) -> np.ndarray:
    """Return the numbers named in `TRIVIA` of an RGB picture, its file's bytes and its size before any reduction."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    mean, deviation = (float(number[0, 0]) for number in cv2.meanStdDev(grey))
    width, height = max(1, width), max(1, height)
    numbers = [np.log(max(1, n_bytes)), np.log(width), np.log(height), np.log(width / height)]
    numbers += [*cv2.mean(image)[:3], mean, deviation, *_mean_border_color(image)]
    return np.concatenate((numbers, *_corner_thumbnails(image))).astype(np.float32)


def find_shortcuts(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[Shortcut]:
    """Judge each kind of trivia alone, then all together, by a small model that is tested on groups it has not seen.

    Rows without a label (-1) or with numbers that are not finite are left out, and so are classes of fewer than five
    groups, as long as two others are larger. Above 5,000 rows a part is taken, a few of each group rather than many
    of a few. Returns nothing where fewer than two classes have two groups.
    """
    usable = (np.asarray(labels) >= 0) & np.isfinite(features).all(axis=1)
    if not usable.any():
        return []
    rows = np.flatnonzero(usable)
    numbers = np.unique(np.asarray(groups)[rows], return_inverse=True)[1]
    part = _sample_rows(numbers, seed)
    rows, numbers = rows[part], numbers[part]
    kept, folds = _select_foldable(np.asarray(labels)[rows], numbers)
    if folds < 2:
        return []
    rows, numbers = rows[kept], numbers[kept]
    known = np.unique(np.asarray(labels)[rows], return_inverse=True)[1]
    chosen = np.asarray(features)[rows].astype(np.float64)
    parts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(chosen, known, numbers))
    # Problems this small take a hundred times longer when threads share them on a busy machine.
    with threadpool_limits(1):
        return [
            _evaluate_kind(kind, chosen[:, columns], known, numbers, parts)
            for kind, columns in _columns_by_kind().items()
        ]


def _mean_border_color(image: np.ndarray) -> np.ndarray:
    """Return the mean colour of the outer 3 %."""
    height, width = image.shape[:2]
    down, across = max(1, round(_BORDER_SHARE * height)), max(1, round(_BORDER_SHARE * width))
    middle = image[down : height - down, across : width - across]
    area, inner = height * width, middle.shape[0] * middle.shape[1]
    total = np.array(cv2.sumElems(image)[:3])
    return (total - (np.array(cv2.sumElems(middle)[:3]) if inner else 0)) / (area - inner)


def _corner_thumbnails(image: np.ndarray) -> list[np.ndarray]:
    """Return small thumbnails of the four corners."""
    down, across = (max(1, round(_CORNER_SHARE * side)) for side in image.shape[:2])
    size = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    return [
        cv2.resize(image[rows, columns], size, interpolation=cv2.INTER_AREA).ravel()
        for rows in (slice(down), slice(-down, None))
        for columns in (slice(across), slice(-across, None))
    ]


def _columns_by_kind() -> dict[str, np.ndarray]:
    """Return which columns of the vectors belong to each kind."""
    kinds = np.array(list(chain.from_iterable([kind] * len(names) for kind, names in SHORTCUT_FEATURES.items())))
    return {**{kind: np.flatnonzero(kinds == kind) for kind in SHORTCUT_FEATURES}, ALL_FEATURES: np.arange(len(kinds))}


def _sample_rows(groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the numbers of at most 5,000 rows, from as many groups as possible."""
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    by_group = shuffled[np.argsort(groups[shuffled], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[by_group], prepend=-1))
    turn = np.empty(len(groups), dtype=np.int64)
    turn[by_group] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:_MAX_ROWS])


def _select_foldable(labels: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, int]:
    """Say which rows are of classes that have enough groups for cross-validation, and return the number of folds."""
    classes = np.unique(labels)
    sizes = np.array([len(np.unique(groups[labels == one])) for one in classes])
    folds = min(_MAX_FOLDS, int(np.sort(sizes)[-2])) if len(classes) > 1 else 0
    return np.isin(labels, classes[sizes >= folds]), folds


def _build_model(n_features: int) -> Pipeline:
    # Sizes and colours often tell in the middle of their range, which squares can express; thumbnails are enough.
    degree = 2 if n_features <= 3 else 1
    squares = PolynomialFeatures(degree, include_bias=False)
    return make_pipeline(StandardScaler(), squares, LogisticRegression(C=0.1, tol=1e-3, max_iter=300))


def _evaluate_kind(
    kind: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]
) -> Shortcut:
    classes = int(labels.max()) + 1
    likely, telling = np.zeros_like(labels), np.zeros_like(labels)
    for seen, unseen in folds:
        shares = np.bincount(labels[seen], minlength=classes) / len(seen)
        chances = np.tile(shares, (len(unseen), 1))
        if np.count_nonzero(shares) > 1 and np.ptp(features[seen], axis=0).any():
            model = _build_model(features.shape[1]).fit(features[seen], labels[seen])
            chances[:, model.classes_] = model.predict_proba(features[unseen])
        likely[unseen] = chances.argmax(axis=1)
        # Without the head start of large classes, so that the recalls of small ones count.
        telling[unseen] = (chances / np.maximum(shares, 1e-9)).round(6).argmax(axis=1)
    sizes = np.bincount(labels)
    recalls = np.bincount(labels, weights=telling == labels) / sizes
    independent = np.array([len(np.unique(groups[labels == one])) for one in range(classes)])
    chance = 1 / classes
    return Shortcut(
        kind=kind,
        accuracy=float(np.mean(likely == labels)),
        majority_accuracy=float(sizes.max() / sizes.sum()),
        balanced_accuracy=float(recalls.mean()),
        chance_level=chance,
        standard_error=float(np.sqrt((chance * (1 - chance) / independent).sum()) / classes),
    )
