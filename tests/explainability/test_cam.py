"""Class activation maps decompose the output exactly, for every class, network and ordinal head."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parfocal.errors import ParfocalError, UsageError
from parfocal.explainability.cam import METHODS, SCORE, ClassMaps, compute_class_maps
from parfocal.explainability.images import EvalImages, load_eval_images
from parfocal.models.classifier import Classifier
from parfocal.run import Run
from tests.evaluation.trained_run import trained as trained


def _make_classifier(model: str, n_classes: int, link: str = "none", seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    names = [f"class {number}" for number in range(n_classes)]
    classifier = Classifier(model, names, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3), ordinal_head=link)
    torch.nn.init.normal_(classifier.network.fc.bias)
    return classifier.eval()


def _make_pixels(n_images: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_images, side, side, 3), dtype=np.uint8)


@settings(max_examples=15)
@example(model="resnet50", classes=3, link="none", side=45, seed=0)
@given(
    model=st.sampled_from(["resnet18", "plain20", "resnet20"]),
    classes=st.integers(2, 5),
    link=st.sampled_from(["none", "regression", "cumulative_link"]),
    side=st.integers(32, 70),
    seed=st.integers(0, 1000),
)
def test_the_mean_of_a_map_plus_the_bias_is_the_logit(
    model: str, classes: int, link: str, side: int, seed: int
) -> None:
    classifier, pixels = _make_classifier(model, classes, link, seed), _make_pixels(2, side, seed)
    maps = compute_class_maps(classifier, pixels)
    with torch.no_grad():
        scores = classifier.network(classifier.normalize(torch.from_numpy(pixels)))
        logits = classifier(torch.from_numpy(pixels))
    recomposed = maps.values.mean(axis=(2, 3)) + maps.bias
    assert maps.names == (classifier.classes if link == "none" else (SCORE,))
    np.testing.assert_allclose(recomposed, scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(maps.outputs, recomposed, rtol=1e-5, atol=1e-5)
    if link == "none":
        np.testing.assert_allclose(recomposed, logits, rtol=1e-4, atol=1e-4)


def test_a_value_that_all_classes_share_is_no_evidence() -> None:
    classifier, pixels = _make_classifier("resnet20", 3), _make_pixels(2, 32)
    before = compute_class_maps(classifier, pixels)
    with torch.no_grad():
        classifier.network.fc.weight += torch.randn(classifier.network.fc.weight.shape[1])
    after = compute_class_maps(classifier, pixels)
    assert np.abs(after.values - before.values).max() > 0.1
    np.testing.assert_allclose(after.evidence, before.evidence, atol=1e-4)
    np.testing.assert_allclose(after.evidence.sum(axis=1), 0, atol=1e-4)
    np.testing.assert_array_equal(after.for_labels([2, 0]), np.stack([after.evidence[0, 2], after.evidence[1, 0]]))


@pytest.mark.parametrize("link", ["none", "regression"])
def test_grad_cam_at_the_last_stage_equals_the_class_activation_map(link: str) -> None:
    classifier, pixels = _make_classifier("resnet18", 3, link), _make_pixels(3, 64)
    exact, by_gradient = compute_class_maps(classifier, pixels), compute_class_maps(classifier, pixels, "gradcam")
    np.testing.assert_allclose(by_gradient.values, exact.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_gradient.outputs, exact.outputs, rtol=1e-4, atol=1e-5)
    finer = compute_class_maps(classifier, pixels, "gradcam", "stage3")
    assert finer.values.shape[2:] == (4, 4)
    assert exact.values.shape[2:] == (2, 2)


def test_grad_cam_works_inside_inference_mode_and_leaves_no_gradients() -> None:
    classifier, pixels = _make_classifier("resnet20", 2), _make_pixels(1, 32)
    with torch.inference_mode():
        maps = compute_class_maps(classifier, pixels, "gradcam", "stage2")
    np.testing.assert_array_equal(maps.values, compute_class_maps(classifier, pixels, "gradcam", "stage2").values)
    assert all(weight.grad is None for weight in classifier.parameters())


class _Brightness(torch.nn.Module):
    """A network whose output is the brightness of the upper left quarter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        quarter = x[:, :, : x.shape[2] // 2, : x.shape[3] // 2].mean(dim=(1, 2, 3))
        return torch.stack([quarter, -quarter], dim=1)


def test_occlusion_finds_the_decisive_area() -> None:
    classifier, pixels = _make_classifier("resnet20", 2), np.zeros((1, 48, 48, 3), np.uint8)
    pixels[0, 8:16, 8:16] = 255
    network = _Brightness()
    network.fc = classifier.network.fc  # type: ignore[assignment]
    classifier.network = network  # type: ignore[assignment]
    map_ = compute_class_maps(classifier, pixels, "occlusion").values[0, 0]
    assert np.unravel_index(map_.argmax(), map_.shape) in [(row, column) for row in (1, 2) for column in (1, 2)]
    assert np.abs(map_[5:, 5:]).max() < 1e-6


def _compute_split_maps(run: Run, ids: list[str], split: str = "test") -> tuple[ClassMaps, EvalImages]:
    classifier = Classifier.load(run.weights_path)
    images = load_eval_images(run, split, ids)
    return compute_class_maps(classifier, images.pixels), images


def test_the_maps_of_a_split_are_in_the_order_of_the_ids(trained: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    ids = [f"./new_dataset/test/{number}.bmp" for number in (5, 2)]
    maps, images = _compute_split_maps(run, ids)
    assert images.ids == tuple(ids)
    assert maps.names == ("normal", "blast")
    assert maps.pixels.shape == (2, 32, 32, 3)
    assert images.unreadable == {}
    np.testing.assert_allclose(maps.values[:1], _compute_split_maps(run, ids[:1])[0].values, atol=1e-4)


def test_unreadable_images_are_listed_and_the_others_kept(trained: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    missing = trained / "cells" / "new_dataset" / "test" / "1.bmp"
    content = missing.read_bytes()
    missing.unlink()
    try:
        maps, images = _compute_split_maps(run, ["./new_dataset/test/1.bmp", "./new_dataset/test/2.bmp"])
        empty, no_images = _compute_split_maps(run, ["./new_dataset/test/1.bmp"])
    finally:
        missing.write_bytes(content)
    assert images.ids == ("./new_dataset/test/2.bmp",)
    assert images.unreadable == no_images.unreadable == {"./new_dataset/test/1.bmp": "the file is missing"}
    assert (len(maps), len(empty)) == (1, 0)


def test_an_unknown_split_id_method_or_stage_is_an_error(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    with pytest.raises(UsageError, match=r"resnet20 has no split 'tset'\. Did you mean 'test'\?"):
        _compute_split_maps(run, [], "tset")
    with pytest.raises(
        ParfocalError, match=r"no such ids in test: 99\.bmp\. They look like \./new_dataset/test/0\.bmp"
    ):
        _compute_split_maps(run, ["./new_dataset/test/0.bmp", "99.bmp"])
    with pytest.raises(ParfocalError, match="There are no weights"):
        _compute_split_maps(Run(tmp_path), ["x"])
    classifier = _make_classifier("resnet20", 2)
    with pytest.raises(UsageError, match="Did you mean 'gradcam'"):
        compute_class_maps(classifier, _make_pixels(1, 32), "grad-cam")
    with pytest.raises(UsageError, match=r"There is no 'stage4' in this network\. Did you mean"):
        compute_class_maps(classifier, _make_pixels(1, 32), "gradcam", "stage4")
    with pytest.raises(UsageError, match="cam has no choice of stage"):
        compute_class_maps(classifier, _make_pixels(1, 32), "cam", "stage2")


@pytest.mark.parametrize("method", METHODS)
def test_no_images_give_no_maps(method: str) -> None:
    maps = compute_class_maps(_make_classifier("resnet20", 2), _make_pixels(0, 32), method)
    assert maps.evidence.shape == (0, 2, 1, 1)
    assert maps.for_labels([]).shape == (0, 1, 1)
