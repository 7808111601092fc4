"""Selection of images: confident and correct, confident and wrong, and uncertain, each image at most once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.table import UNKNOWN
from parfocal.evaluation.predictions import Predictions
from parfocal.explainability.selection import SelectedImage, select_by_id, select_images


def _make_predictions(truth: list[int], probabilities: list[list[float]]) -> Predictions:
    ids = tuple(f"image {row}" for row in range(len(truth)))
    return Predictions(ids, ids, np.array(truth), np.array(probabilities), ("a", "b", "c"))


def test_the_most_confident_of_each_class_the_most_confident_mistakes_and_the_smallest_margins_are_selected() -> None:
    predictions = _make_predictions(
        [0, 0, 1, 2, 2, 0, 1],
        [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0], [0.9, 0, 0.1], [0, 0.6, 0.4], [0.5, 0.3, 0.2], [0.4, 0.38, 0.22]],
    )
    selected = select_images(predictions, predictions.predicted, 2)
    ids = {kind: [image.id for image in selected if image.kind == kind] for kind in ("correct", "wrong", "uncertain")}
    assert ids["correct"] == ["image 0", "image 2"]
    assert ids["wrong"] == ["image 3", "image 4"]
    assert ids["uncertain"] == ["image 6", "image 5"]
    assert select_by_id(predictions, ["image 4"]) == [SelectedImage("image 4", "", 2)]


@given(seed=st.integers(0, 1000), n_images=st.integers(1, 30), n_per_kind=st.integers(1, 6))
def test_no_image_is_selected_twice_and_its_kind_is_true(seed: int, n_images: int, n_per_kind: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, 3, n_images).tolist()
    predictions = _make_predictions(truth, rng.dirichlet([1, 1, 1], n_images).tolist())
    selected = select_images(predictions, predictions.predicted, n_per_kind)
    assert len({image.id for image in selected}) == len(selected)
    for image in selected:
        row = predictions.ids.index(image.id)
        assert image.truth == predictions.truth[row]
        if image.kind in ("correct", "wrong"):
            assert (image.kind == "correct") == (predictions.predicted[row] == image.truth)
            assert image.truth != UNKNOWN
    for kind in ("correct", "wrong", "uncertain", ""):
        assert sum(image.kind == kind for image in selected) <= n_per_kind
