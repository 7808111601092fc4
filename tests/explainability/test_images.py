"""The images of a split as the network sees them: from the Store if it exists, else decoded from the files."""

from pathlib import Path

import numpy as np
import pytest

import parfocal.explainability.images as module
from parfocal.explainability.images import load_eval_images
from parfocal.run import Run
from tests.evaluation.trained_run import trained as trained


def test_prepared_pixels_are_taken_from_the_store(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(trained / "runs" / "resnet20")
    decoded = load_eval_images(run, "test")
    monkeypatch.setenv("PARFOCAL_STORES", str(trained / "stores"))
    monkeypatch.setattr(module, "prepare_image", None)
    stored = load_eval_images(run, "test")
    np.testing.assert_array_equal(stored.pixels, decoded.pixels)
    assert (stored.ids, stored.paths, stored.truth) == (decoded.ids, decoded.paths, decoded.truth)
    assert len(stored.ids) == 12


def test_without_a_store_files_are_decoded_and_no_store_is_built(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARFOCAL_STORES", str(tmp_path / "stores"))
    assert load_eval_images(Run(trained / "runs" / "resnet20"), "test").pixels.shape == (12, 32, 32, 3)
    assert not (tmp_path / "stores").exists()


def test_max_images_takes_evenly_spaced_images(trained: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    every_image = load_eval_images(run, "test")
    some_images = load_eval_images(run, "test", max_images=5)
    assert some_images.ids == every_image.ids[::3]
    np.testing.assert_array_equal(some_images.pixels, every_image.pixels[::3])
