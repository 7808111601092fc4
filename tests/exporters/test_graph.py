"""The exported network looks at a prepared image as evaluation does, and says what evaluation says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.augment import TTA_VIEWS, eval_views, tta_views
from parfocal.data.render import render_one
from parfocal.evaluation.calibration import apply_temperature
from parfocal.exporters.graph import ExportGraph
from parfocal.models.classifier import build_classifier
from parfocal.models.ordinal import OrdinalHeadName
from parfocal.recipe import load_recipe
from parfocal.schema import NetworkConfig


def _random_pixels(n_images: int, size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (n_images, size, size, 3), np.uint8)


@given(tta=st.sampled_from(sorted(TTA_VIEWS)), size=st.integers(32, 41), temperature=st.floats(0.3, 4))
def test_what_is_seen_is_what_evaluation_sees(tta: str, size: int, temperature: float) -> None:
    made = load_recipe(None, size=size, crop_size=32, tta=tta, model="resnet20")
    pixels = _random_pixels(2, size)
    graph = ExportGraph(build_classifier(made.network, ("a", "b")), size, made.views, temperature)
    for number, look in enumerate(tta_views(made.views)):
        expected = np.stack([render_one(one, eval_views(1, size, made.views, look), 0) for one in pixels])
        np.testing.assert_array_equal(graph.tta_views[number](torch.from_numpy(pixels)), expected)


@pytest.mark.parametrize("link", ["none", "regression", "cumulative_link"])
@pytest.mark.parametrize("tta", ["none", "d4"])
def test_what_is_said_is_the_tempered_mean_of_the_looks(tta: str, link: OrdinalHeadName) -> None:
    made = load_recipe(None, size=36, crop_size=32, tta=tta, model="resnet20")
    torch.manual_seed(0)
    classifier = build_classifier(NetworkConfig(model="resnet20"), ("a", "b", "c"), loss=link).eval()
    pixels = _random_pixels(3, 36)
    with torch.inference_mode():
        said = ExportGraph(classifier, 36, made.views, 1.7)(torch.from_numpy(pixels)).numpy()
        rows = []
        for look in tta_views(made.views):
            views = np.stack([render_one(one, eval_views(1, 36, made.views, look), 0) for one in pixels])
            rows.append(torch.softmax(classifier(torch.from_numpy(views)), dim=1).double().numpy())
    np.testing.assert_allclose(said, apply_temperature(np.mean(rows, axis=0), 1.7), atol=1e-6)
