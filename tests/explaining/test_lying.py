"""Whether a network looks at the right place: its maps held against masks, with random maps beside."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from parfocal.errors import ParfocalError
from parfocal.explaining.lying import ANY_REGION, measure_localization
from parfocal.model.classifier import Classifier
from parfocal.run import Run
from tests.cells import write_image
from tests.evaluation.trained import trained as trained


@pytest.fixture
def masks(trained: Path, tmp_path: Path) -> Path:
    """Masks of all test cells but one: 1 the left half of the cell, 2 the right one."""
    for path in sorted((trained / "cells" / "new_dataset" / "test").iterdir())[1:]:
        mask = np.zeros((48, 48), np.uint8)
        cv2.circle(mask, (24, 24), 16, (1,), -1)
        mask[:, 24:] *= 2
        write_image(tmp_path / "masks" / "test" / f"{path.stem}.png", mask)
    (tmp_path / "masks" / "parts.csv").write_text("value,part\n1,left\n")
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
