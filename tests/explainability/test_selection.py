"""Which images are looked at: sure and right, sure and wrong, and in doubt, none of them twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.table import UNKNOWN
from parfocal.evaluation.predictions import Predictions
from parfocal.explainability.selection import SelectedImage, select_by_id, select_images


def _make_predictions(truth: list[int], probabilities: list[list[float]]) -> Predictions:
    ids = tuple(f"image {row}" for row in range(len(truth)))
    return Predictions(ids, ids, np.array(truth), np.array(probabilities), ("a", "b", "c"))


def test_the_surest_of_each_class_the_surest_mistakes_and_the_closest_calls() -> None:
    said = _make_predictions(
        [0, 0, 1, 2, 2, 0, 1],
        [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0], [0.9, 0, 0.1], [0, 0.6, 0.4], [0.5, 0.3, 0.2], [0.4, 0.38, 0.22]],
    )
    found = select_images(said, said.predicted, 2)
    kinds = {kind: [one.id for one in found if one.kind == kind] for kind in ("correct", "wrong", "uncertain")}
    assert kinds["correct"] == ["image 0", "image 2"]
    assert kinds["wrong"] == ["image 3", "image 4"]
    assert kinds["uncertain"] == ["image 6", "image 5"]
    assert select_by_id(said, ["image 4"]) == [SelectedImage("image 4", "", 2)]


@given(seed=st.integers(0, 1000), count=st.integers(1, 30), each=st.integers(1, 6))
def test_nobody_is_shown_twice_and_kinds_are_true(seed: int, count: int, each: int) -> None:
    dice = np.random.default_rng(seed)
    said = _make_predictions(dice.integers(-1, 3, count).tolist(), dice.dirichlet([1, 1, 1], count).tolist())
    found = select_images(said, said.predicted, each)
    assert len({one.id for one in found}) == len(found)
    for one in found:
        row = said.ids.index(one.id)
        assert one.truth == said.truth[row]
        if one.kind in ("correct", "wrong"):
            assert (one.kind == "correct") == (said.predicted[row] == one.truth)
            assert one.truth != UNKNOWN
    for kind in ("correct", "wrong", "uncertain", ""):
        assert sum(one.kind == kind for one in found) <= each
