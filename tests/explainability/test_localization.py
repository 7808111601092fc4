"""Where a map lies to a region, counted by cells, beside what random places would give."""
# MERGED: """The shortcut figure: a network that reads the border is caught, one that reads the middle is not."""
# MERGED: """Whether a network looks at the right place: its maps held against masks, with random maps beside."""

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
def test_shares_are_shares_and_a_region_and_the_rest_are_all(seed: int, rows: int, columns: int, side: int) -> None:
    dice = np.random.default_rng(seed)
    evidence = dice.normal(size=(rows, columns)).astype(np.float32)
    region = (dice.random((side, side)) < 0.3).astype(np.float32)
    inside, outside = compute_region_share(evidence, region), compute_region_share(evidence, 1 - region)
    if (evidence > 0).any():
        assert inside is not None
        assert outside is not None
        assert -1e-6 <= inside <= 1 + 1e-6
        assert abs(inside + outside - 1) < 1e-4
    else:
        assert inside is None
    found = compute_region_overlap(evidence, region)
    assert abs(found.random_share - region.mean()) < 1e-4
    assert found.random_share <= found.random_hit + 1e-6


def test_what_is_told_of_random_maps_is_what_random_maps_reach() -> None:
    dice = np.random.default_rng(0)
    region = np.zeros((28, 28), np.float32)
    region[3:12, 9:27] = 1
    found = [compute_region_overlap(dice.permutation(np.arange(49.0)).reshape(7, 7) - 20, region) for _ in range(4000)]
    assert abs(np.mean([one.hit for one in found]) - found[0].random_hit) < 0.02
    assert abs(np.mean([one.share for one in found if one.share is not None]) - found[0].random_share) < 0.01


def test_a_peak_hits_where_its_cell_holds_some_of_the_region() -> None:
    evidence, region = np.zeros((4, 4)), np.zeros((32, 32))
    evidence[1, 2] = 5.0
    region[15, 23] = 1
    assert compute_region_overlap(evidence, region).hit
    assert compute_region_overlap(evidence, region).share == 1 / 64
    region[15, 23], region[16, 23] = 0, 1
    assert not compute_region_overlap(evidence, region).hit
    assert not compute_region_overlap(np.zeros((4, 4)), np.ones((32, 32))).hit
    assert compute_region_overlap(-np.ones((4, 4)), np.ones((32, 32))).share is None


def test_the_surround_is_black_and_reaches_the_edge() -> None:
    picture = np.full((40, 40, 3), 120, np.uint8)
    picture[:, :6] = 3
    picture[18:22, 18:22] = 0
    found = background_mask(picture)
    assert found[:, :6].all()
    assert not found[:, 6:].any()
    assert not background_mask(np.full((8, 8, 3), 200, np.uint8)).any()
    assert background_mask(np.zeros((8, 8, 3), np.uint8)).all()


def test_the_border_is_the_outer_twelfth() -> None:
    found = border_mask(48)
    assert found[:4].all()
    assert not found[4:-4, 4:-4].any()
    assert border_mask(5).any()


@given(side=st.integers(24, 512))
def test_the_middle_is_as_large_as_the_border(side: int) -> None:
    assert abs(center_mask(side).mean() - border_mask(side).mean()) < 0.06
    assert not (center_mask(side) & border_mask(side)).any()


class _BoxNetwork(torch.nn.Module):
    """A stand-in for a network's head's input: how bright a box of the image is, more than half or less."""

    def __init__(self, box: tuple[slice, slice]) -> None:
        super().__init__()
        self.box = box
        self.fc = torch.nn.Linear(1, 2)
        self.fc.weight.data = torch.tensor([[-1.0], [1.0]])
        self.fc.bias.data.zero_()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.zeros_like(x[:, :1])
        seen[:, :, *self.box] = x[:, :1, *self.box]
        return torch.nn.functional.avg_pool2d(seen, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.forward_features(x).mean(dim=(2, 3)))


def _run_test(box: tuple[slice, slice], n_images: int = 40) -> BorderSwapResult | None:
    classifier = Classifier("resnet20", ["dark", "bright"], mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    classifier.network = _BoxNetwork(box)  # type: ignore[assignment]
    pixels = np.random.default_rng(1).integers(0, 2, (n_images, 1, 1, 1), dtype=np.uint8) * np.uint8(200) + np.uint8(20)
    pixels = np.tile(pixels, (1, 48, 48, 3))
    return border_swap_test(classifier, compute_class_maps(classifier, pixels))


def test_a_network_that_reads_the_border_is_caught() -> None:
    found = _run_test((slice(0, 4), slice(0, 4)))
    assert found is not None
    assert found.border_share == pytest.approx(1)
    assert found.border_area == pytest.approx(1 - (40 / 48) ** 2)
    assert found.border_change_rate > 0.3
    assert found.center_change_rate == 0
    assert "of the answers change when the border is that of another image" in found.warning


def test_a_network_that_reads_the_middle_is_not() -> None:
    found = _run_test((slice(16, 32), slice(16, 32)))
    assert found is not None
    assert found.border_share == pytest.approx(0)
    assert found.border_change_rate == 0
    assert found.center_change_rate > 0.3
    assert found.warning == ""


def test_of_few_images_nothing_is_said() -> None:
    assert _run_test((slice(0, 4), slice(0, 4)), MIN_IMAGES - 1) is None
    assert _run_test((slice(0, 4), slice(0, 4)), MIN_IMAGES) is not None


@pytest.mark.parametrize(
    ("border", "middle", "warned"),
    [(0.3, 0.2, True), (0.3, 0.3, True), (0.3, 0.4, False), (WARNING_THRESHOLD, 0.0, False), (0.0, 0.0, False)],
)
def test_the_border_is_held_against_as_much_of_the_middle(border: float, middle: float, warned: bool) -> None:
    assert bool(BorderSwapResult(40, 0.3, 0.3, 0.1, 0.1, border, middle).warning) == warned


@pytest.fixture
def masks(trained: Path, tmp_path: Path) -> Path:
    """Masks of all test cells but one: 1 the left half of the cell, 2 the right one."""
    for path in sorted((trained / "cells" / "new_dataset" / "test").iterdir())[1:]:
        mask = np.zeros((48, 48), np.uint8)
        cv2.circle(mask, (24, 24), 16, (1,), -1)
        mask[:, 24:] *= 2
        write_image(tmp_path / "masks" / "test" / f"{path.stem}.png", mask)
    (tmp_path / "masks" / "regions.csv").write_text("value,region\n1,left\n")
    return tmp_path / "masks"


@pytest.mark.parametrize(("method", "stage"), [("cam", ""), ("gradcam", "stage2"), ("occlusion", "")])
def test_maps_are_held_against_every_part(trained: Path, masks: Path, method: str, stage: str) -> None:
    run = Run(trained / "runs" / "resnet20")
    found = measure_localization(run, Classifier.load(run.weights_path), "test", method, stage, masks)
    assert list(found.mask_overlaps) == [ANY_REGION, "left", "value 2"]
    whole, left, right = found.mask_overlaps.values()
    assert whole.n_images == left.n_images == right.n_images == 11
    area = np.pi * (16 * 40 / 48) ** 2 / 32**2
    assert whole.random_share == pytest.approx(area, abs=0.03)
    assert left.random_share + right.random_share == pytest.approx(whole.random_share, abs=0.01)
    assert whole.random_hit_rate >= whole.random_share
    for one in found.mask_overlaps.values():
        assert 0 <= one.hit_rate <= 1
        assert one.share is not None
        assert 0 <= one.share <= 1
    assert left.share is not None
    assert right.share is not None
    assert left.share + right.share == pytest.approx(whole.share, abs=0.02)
    assert found.border_swap is None


def test_masks_beside_the_data_are_found_by_themselves(trained: Path, masks: Path) -> None:
    run, usual = Run(trained / "runs" / "resnet20"), trained / "cells" / "masks"
    network = Classifier.load(run.weights_path)
    given = measure_localization(run, network, "test", masks=masks).mask_overlaps
    masks.rename(usual)
    try:
        assert measure_localization(run, network, "test").mask_overlaps == given
        assert measure_localization(run, network, "valid").mask_overlaps == {}
    finally:
        usual.rename(masks)
    assert measure_localization(run, network, "test").mask_overlaps == {}


def test_masks_that_do_not_fit_are_told(trained: Path, masks: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    network = Classifier.load(run.weights_path)
    with pytest.raises(ParfocalError, match=r"has no mask of an image of valid\. Masks are called like 0\.png"):
        measure_localization(run, network, "valid", masks=masks)
    with pytest.raises(ParfocalError, match="There is no folder of masks at"):
        measure_localization(run, network, "test", masks=masks / "gone")
    (masks / "test" / "5.png").write_text("no image")
    with pytest.raises(ParfocalError, match=r"5\.png cannot be read: text, not an image"):
        measure_localization(run, network, "test", masks=masks)
