"""Localization: overlap of maps with regions and masks, and the border swap test that finds shortcuts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.errors import ParfocalError
from parfocal.explainability.cam import compute_class_maps
from parfocal.explainability.localization import (
    ANY_REGION,
    MIN_IMAGES,
    WARNING_THRESHOLD,
    BorderSwapResult,
    background_mask,
    border_mask,
    border_swap_test,
    center_mask,
    compute_region_overlap,
    compute_region_share,
    measure_localization,
)
from parfocal.models.classifier import Classifier
from parfocal.run import Run
from tests.cells import write_image
from tests.evaluation.trained_run import trained as trained


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 9), columns=st.integers(1, 9), side=st.integers(9, 40))
def test_the_shares_of_a_region_and_of_its_complement_add_up_to_one(
    seed: int, rows: int, columns: int, side: int
) -> None:
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(rows, columns)).astype(np.float32)
    region = (rng.random((side, side)) < 0.3).astype(np.float32)
    inside = compute_region_share(evidence, region)
    outside = compute_region_share(evidence, 1 - region)
    if (evidence > 0).any():
        assert inside is not None
        assert outside is not None
        assert -1e-6 <= inside <= 1 + 1e-6
        assert abs(inside + outside - 1) < 1e-4
    else:
        assert inside is None
    overlap = compute_region_overlap(evidence, region)
    assert abs(overlap.random_share - region.mean()) < 1e-4
    assert overlap.random_share <= overlap.random_hit + 1e-6


def test_random_maps_reach_the_expected_random_values() -> None:
    rng = np.random.default_rng(0)
    region = np.zeros((28, 28), np.float32)
    region[3:12, 9:27] = 1
    maps = [rng.permutation(np.arange(49.0)).reshape(7, 7) - 20 for _ in range(4000)]
    overlaps = [compute_region_overlap(evidence, region) for evidence in maps]
    hits = [overlap.hit for overlap in overlaps]
    shares = [overlap.share for overlap in overlaps if overlap.share is not None]
    assert abs(np.mean(hits) - overlaps[0].random_hit) < 0.02
    assert abs(np.mean(shares) - overlaps[0].random_share) < 0.01


def test_a_peak_hits_a_region_if_its_cell_contains_some_of_it() -> None:
    evidence = np.zeros((4, 4))
    region = np.zeros((32, 32))
    evidence[1, 2] = 5.0
    region[15, 23] = 1
    assert compute_region_overlap(evidence, region).hit
    assert compute_region_overlap(evidence, region).share == 1 / 64
    region[15, 23] = 0
    region[16, 23] = 1
    assert not compute_region_overlap(evidence, region).hit
    assert not compute_region_overlap(np.zeros((4, 4)), np.ones((32, 32))).hit
    assert compute_region_overlap(-np.ones((4, 4)), np.ones((32, 32))).share is None


def test_the_background_is_black_and_connected_to_the_edge() -> None:
    image = np.full((40, 40, 3), 120, np.uint8)
    image[:, :6] = 3
    image[18:22, 18:22] = 0
    mask = background_mask(image)
    assert mask[:, :6].all()
    assert not mask[:, 6:].any()
    assert not background_mask(np.full((8, 8, 3), 200, np.uint8)).any()
    assert background_mask(np.zeros((8, 8, 3), np.uint8)).all()


def test_the_border_is_the_outer_twelfth() -> None:
    mask = border_mask(48)
    assert mask[:4].all()
    assert not mask[4:-4, 4:-4].any()
    assert border_mask(5).any()


@given(side=st.integers(24, 512))
def test_the_center_has_the_area_of_the_border(side: int) -> None:
    assert abs(center_mask(side).mean() - border_mask(side).mean()) < 0.06
    assert not (center_mask(side) & border_mask(side)).any()


class _BoxNetwork(torch.nn.Module):
    """A network that classifies by the brightness of a box of the image: dark or bright."""

    def __init__(self, box: tuple[slice, slice]) -> None:
        super().__init__()
        self.box = box
        self.fc = torch.nn.Linear(1, 2)
        self.fc.weight.data = torch.tensor([[-1.0], [1.0]])
        self.fc.bias.data.zero_()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        visible = torch.zeros_like(x[:, :1])
        visible[:, :, *self.box] = x[:, :1, *self.box]
        return torch.nn.functional.avg_pool2d(visible, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.forward_features(x).mean(dim=(2, 3)))


def _run_test(box: tuple[slice, slice], n_images: int = 40) -> BorderSwapResult | None:
    classifier = Classifier("resnet20", ["dark", "bright"], mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    classifier.network = _BoxNetwork(box)  # type: ignore[assignment]
    pixels = np.random.default_rng(1).integers(0, 2, (n_images, 1, 1, 1), dtype=np.uint8) * np.uint8(200) + np.uint8(20)
    pixels = np.tile(pixels, (1, 48, 48, 3))
    return border_swap_test(classifier, compute_class_maps(classifier, pixels))


def test_a_network_that_reads_the_border_is_reported() -> None:
    result = _run_test((slice(0, 4), slice(0, 4)))
    assert result is not None
    assert result.border_share == pytest.approx(1)
    assert result.border_area == pytest.approx(1 - (40 / 48) ** 2)
    assert result.border_change_rate > 0.3
    assert result.center_change_rate == 0
    assert "of the predictions change when the border is replaced by that of another image" in result.warning


def test_a_network_that_reads_the_center_is_not_reported() -> None:
    result = _run_test((slice(16, 32), slice(16, 32)))
    assert result is not None
    assert result.border_share == pytest.approx(0)
    assert result.border_change_rate == 0
    assert result.center_change_rate > 0.3
    assert result.warning == ""


def test_the_border_swap_test_needs_20_images() -> None:
    assert _run_test((slice(0, 4), slice(0, 4)), MIN_IMAGES - 1) is None
    assert _run_test((slice(0, 4), slice(0, 4)), MIN_IMAGES) is not None


@pytest.mark.parametrize(
    ("border", "center", "warned"),
    [(0.3, 0.2, True), (0.3, 0.3, True), (0.3, 0.4, False), (WARNING_THRESHOLD, 0.0, False), (0.0, 0.0, False)],
)
def test_the_warning_compares_the_border_with_the_center(border: float, center: float, warned: bool) -> None:
    assert bool(BorderSwapResult(40, 0.3, 0.3, 0.1, 0.1, border, center).warning) == warned


@pytest.fixture
def masks(trained: Path, tmp_path: Path) -> Path:
    """Masks of all test cells except the first: value 1 is the left half of the cell, value 2 the right half."""
    for path in sorted((trained / "cells" / "new_dataset" / "test").iterdir())[1:]:
        mask = np.zeros((48, 48), np.uint8)
        cv2.circle(mask, (24, 24), 16, (1,), -1)
        mask[:, 24:] *= 2
        write_image(tmp_path / "masks" / "test" / f"{path.stem}.png", mask)
    (tmp_path / "masks" / "regions.csv").write_text("value,region\n1,left\n")
    return tmp_path / "masks"


@pytest.mark.parametrize(("method", "stage"), [("cam", ""), ("gradcam", "stage2"), ("occlusion", "")])
def test_maps_are_compared_with_every_region_of_the_masks(trained: Path, masks: Path, method: str, stage: str) -> None:
    run = Run(trained / "runs" / "resnet20")
    localization = measure_localization(run, Classifier.load(run.weights_path), "test", method, stage, masks)
    assert list(localization.mask_overlaps) == [ANY_REGION, "left", "value 2"]
    whole, left, right = localization.mask_overlaps.values()
    assert whole.n_images == left.n_images == right.n_images == 11
    area = np.pi * (16 * 40 / 48) ** 2 / 32**2
    assert whole.random_share == pytest.approx(area, abs=0.03)
    assert left.random_share + right.random_share == pytest.approx(whole.random_share, abs=0.01)
    assert whole.random_hit_rate >= whole.random_share
    for overlap in localization.mask_overlaps.values():
        assert 0 <= overlap.hit_rate <= 1
        assert overlap.share is not None
        assert 0 <= overlap.share <= 1
    assert left.share is not None
    assert right.share is not None
    assert left.share + right.share == pytest.approx(whole.share, abs=0.02)
    assert localization.border_swap is None


def test_the_folder_masks_in_the_data_is_the_default(trained: Path, masks: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    classifier = Classifier.load(run.weights_path)
    overlaps = measure_localization(run, classifier, "test", masks=masks).mask_overlaps
    default_folder = trained / "cells" / "masks"
    masks.rename(default_folder)
    try:
        assert measure_localization(run, classifier, "test").mask_overlaps == overlaps
        assert measure_localization(run, classifier, "valid").mask_overlaps == {}
    finally:
        default_folder.rename(masks)
    assert measure_localization(run, classifier, "test").mask_overlaps == {}


def test_masks_that_do_not_match_are_rejected(trained: Path, masks: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    classifier = Classifier.load(run.weights_path)
    with pytest.raises(ParfocalError, match=r"has no mask of any image of valid\. Name masks like 0\.png"):
        measure_localization(run, classifier, "valid", masks=masks)
    with pytest.raises(ParfocalError, match="There is no folder of masks at"):
        measure_localization(run, classifier, "test", masks=masks / "gone")
    (masks / "test" / "5.png").write_text("no image")
    with pytest.raises(ParfocalError, match=r"5\.png cannot be read: text, not an image"):
        measure_localization(run, classifier, "test", masks=masks)
