"""The exported graph renders the views of test-time augmentation as the evaluation does, and predicts the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.data.augment import TTA_VIEWS, eval_views, tta_views
from parfocal.data.warp import render_one
from parfocal.evaluation.calibration import apply_temperature
from parfocal.exporters.graph import ExportGraph
from parfocal.models.classifier import build_classifier
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import NetworkConfig


def _random_pixels(n_images: int, size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (n_images, size, size, 3), np.uint8)


@given(tta=st.sampled_from(sorted(TTA_VIEWS)), size=st.integers(32, 41), temperature=st.floats(0.3, 4))
def test_the_views_of_the_graph_are_those_of_the_evaluation(tta: str, size: int, temperature: float) -> None:
    recipe = load_recipe(None, size=size, crop_size=32, tta=tta, model="resnet20")
    pixels = _random_pixels(2, size)
    graph = ExportGraph(build_classifier(recipe.network, ("a", "b")), size, recipe.views, temperature)
    for number, tta_view in enumerate(tta_views(recipe.views)):
        views = eval_views(1, size, recipe.views, tta_view)
        expected = np.stack([render_one(image, views, 0) for image in pixels])
        np.testing.assert_array_equal(graph.tta_views[number](torch.from_numpy(pixels)), expected)


@pytest.mark.parametrize("ordinal_head", ["none", "regression", "cumulative_link"])
@pytest.mark.parametrize("tta", ["none", "d4"])
def test_the_graph_returns_the_calibrated_mean_over_the_views(tta: str, ordinal_head: str) -> None:
    recipe = load_recipe(None, size=36, crop_size=32, tta=tta, model="resnet20")
    torch.manual_seed(0)
    config = NetworkConfig(model="resnet20")
    classifier = build_classifier(config, ("a", "b", "c"), loss=ordinal_head).eval()
    pixels = _random_pixels(3, 36)
    by_view = []
    with torch.inference_mode():
        probabilities = ExportGraph(classifier, 36, recipe.views, 1.7)(torch.from_numpy(pixels)).numpy()
        for tta_view in tta_views(recipe.views):
            views = eval_views(1, 36, recipe.views, tta_view)
            rendered = np.stack([render_one(image, views, 0) for image in pixels])
            by_view.append(torch.softmax(classifier(torch.from_numpy(rendered)), dim=1).double().numpy())
    np.testing.assert_allclose(probabilities, apply_temperature(np.mean(by_view, axis=0), 1.7), atol=1e-6)
