"""The exported network looks at a prepared image as evaluation does, and says what evaluation says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.geometry import LOOKS
from parfocal.data.views import looks, seen, still
from parfocal.evaluation.temperature import tempered
from parfocal.exporting.graph import Graph
from parfocal.model.classifier import new_classifier
from parfocal.model.links import LinkName
from parfocal.parts import NetworkPart
from parfocal.recipe import recipe


def _pixels(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (count, size, size, 3), np.uint8)


@given(evaluation=st.sampled_from(sorted(LOOKS)), size=st.integers(32, 41), temperature=st.floats(0.3, 4))
def test_what_is_seen_is_what_evaluation_sees(evaluation: str, size: int, temperature: float) -> None:
    made = recipe(None, size=size, crop=32, evaluation=evaluation, model="resnet20")
    pixels = _pixels(2, size)
    graph = Graph(new_classifier(made.network, ("a", "b")), size, made.views, temperature)
    for number, look in enumerate(looks(made.views)):
        expected = np.stack([seen(one, still(1, size, made.views, look), 0) for one in pixels])
        np.testing.assert_array_equal(graph.looks[number](torch.from_numpy(pixels)), expected)


@pytest.mark.parametrize("link", ["none", "grades", "cutpoints"])
@pytest.mark.parametrize("evaluation", ["centre", "eight"])
def test_what_is_said_is_the_tempered_mean_of_the_looks(evaluation: str, link: LinkName) -> None:
    made = recipe(None, size=36, crop=32, evaluation=evaluation, model="resnet20")
    torch.manual_seed(0)
    classifier = new_classifier(NetworkPart(model="resnet20"), ("a", "b", "c"), link=link).eval()
    pixels = _pixels(3, 36)
    with torch.inference_mode():
        said = Graph(classifier, 36, made.views, 1.7)(torch.from_numpy(pixels)).numpy()
        rows = []
        for look in looks(made.views):
            views = np.stack([seen(one, still(1, 36, made.views, look), 0) for one in pixels])
            rows.append(torch.softmax(classifier(torch.from_numpy(views)), dim=1).double().numpy())
    np.testing.assert_allclose(said, tempered(np.mean(rows, axis=0), 1.7), atol=1e-6)
