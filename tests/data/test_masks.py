"""Masks are preprocessed and cropped exactly as their images are."""

from pathlib import Path

import numpy as np
import pytest

from parfocal.data.augment import eval_views
from parfocal.data.decode import prepare_image
from parfocal.data.masks import MaskFolder
from parfocal.data.warp import render_one
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.recipe import Recipe, load_recipe
from parfocal.synthetic.dataset import synthesize_fundus, synthesize_smear
from tests.cells import write_image


def _render(image_path: Path, recipe: Recipe) -> np.ndarray:
    views = eval_views(1, recipe.images.size, recipe.views)
    return render_one(prepare_image(image_path, recipe.images)[0], views, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"resize_mode": "squash"},
        {"resize_mode": "crop"},
        {"resize_mode": "pad"},
        {"crop_disc": True, "resize_mode": "pad"},
        {"center_crop": 60},
    ],
    ids=str,
)
def test_a_mask_covers_what_its_image_shows(tmp_path: Path, settings: dict[str, object]) -> None:
    image = np.zeros((90, 140, 3), np.uint8)
    image[8:80, 20:120] = 70
    image[30:52, 60:90] = 250
    mask = np.zeros((90, 140), np.uint8)
    mask[30:52, 60:90] = 9
    write_image(tmp_path / "eye.png", image)
    write_image(tmp_path / "masks" / "eye.png", mask)
    recipe = load_recipe(None, size=64, crop_size=48, **settings)
    folder = MaskFolder(tmp_path / "masks")
    mask_path = folder.find(tmp_path / "eye.png")
    assert mask_path == tmp_path / "masks" / "eye.png"
    assert mask_path is not None
    (region,) = folder.render_regions(mask_path, tmp_path / "eye.png", recipe).values()
    bright = _render(tmp_path / "eye.png", recipe)[..., 0] > 160
    assert bright.sum() > 50
    assert (bright == (region > 0.5)).mean() > 0.99


def test_synthetic_data_sets_have_masks_with_named_regions(tmp_path: Path) -> None:
    smears = synthesize_smear(tmp_path / "smears", 40, size=96)
    folder = MaskFolder(smears / "masks")
    assert dict(folder.region_names) == {127: "cytoplasm", 255: "nucleus"}
    recipe = load_recipe(None, size=64, crop_size=56)
    for split in ("valid", "test"):
        image_path = smears / "new_dataset" / split / "0.bmp"
        mask_path = folder.find(image_path, split)
        assert mask_path is not None
        regions = folder.render_regions(mask_path, image_path, recipe)
        assert set(regions) == {"cytoplasm", "nucleus"}
        bright = _render(image_path, recipe).max(axis=2) > 40
        assert (bright == (sum(regions.values()) > 0.5)).mean() > 0.97
    assert folder.find(smears / "new_dataset" / "train" / "0.bmp", "train") is None
    eyes = synthesize_fundus(tmp_path / "eyes", 25, size=128)
    assert MaskFolder(eyes / "masks").region_names[2] == "hemorrhage"


def test_the_mask_of_a_jpeg_that_is_decoded_at_reduced_scale_is_reduced_too(tmp_path: Path) -> None:
    image = np.full((640, 640, 3), 60, np.uint8)
    image[400:480, 160:240] = 240
    mask = np.zeros((640, 640), np.uint8)
    mask[400:480, 160:240] = 1
    write_image(tmp_path / "a.jpeg", image)
    write_image(tmp_path / "masks" / "a.png", mask)
    recipe = load_recipe(None, size=64, crop_size=64)
    folder = MaskFolder(tmp_path / "masks")
    (region,) = folder.render_regions(tmp_path / "masks" / "a.png", tmp_path / "a.jpeg", recipe).values()
    assert (np.argwhere(region > 0.5).min(axis=0) == (40, 16)).all()
    assert (np.argwhere(region > 0.5).max(axis=0) == (47, 23)).all()


def test_faulty_masks_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="There is no folder of masks at"):
        MaskFolder(tmp_path / "missing")
    write_image(tmp_path / "a.png", np.full((30, 30, 3), 99, np.uint8))
    write_image(tmp_path / "small.png", np.ones((20, 30), np.uint8))
    write_image(tmp_path / "many.png", np.arange(900, dtype=np.uint16).reshape(30, 30).astype(np.uint8))
    (tmp_path / "bad.png").write_text("no image")
    folder = MaskFolder(tmp_path)
    recipe = load_recipe(None, size=32, crop_size=32)
    with pytest.raises(ParfocalError, match=r"small\.png is 30×20, its image 30×30\. A mask must be as large"):
        folder.render_regions(tmp_path / "small.png", tmp_path / "a.png", recipe)
    with pytest.raises(ParfocalError, match=r"many\.png has 255 values: not a mask"):
        folder.render_regions(tmp_path / "many.png", tmp_path / "a.png", recipe)
    with pytest.raises(UnreadableImageError, match="text, not an image"):
        folder.render_regions(tmp_path / "bad.png", tmp_path / "a.png", recipe)
    (tmp_path / "regions.csv").write_text("number,name\n1,x\n")
    with pytest.raises(ParfocalError, match=r"regions\.csv must have the columns value \(a number\) and region"):
        MaskFolder(tmp_path)
