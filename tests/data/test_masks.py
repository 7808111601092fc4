"""Masks are framed and looked at just as their images are."""

from pathlib import Path

import numpy as np
import pytest

from parfocal.data.augment import eval_views
from parfocal.data.decode import prepare_image
from parfocal.data.masks import MaskFolder
from parfocal.data.render import render_one
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.recipe import Recipe, load_recipe
from parfocal.synthetic.dataset import synthesize_fundus, synthesize_smear
from tests.cells import write_image


def _looked_at(image: Path, chosen: Recipe) -> np.ndarray:
    views = eval_views(1, chosen.images.size, chosen.views)
    return render_one(prepare_image(image, chosen.images)[0], views, 0)


@pytest.mark.parametrize(
    "framing",
    [
        {"resize_mode": "squash"},
        {"resize_mode": "crop"},
        {"resize_mode": "pad"},
        {"crop_disc": True, "resize_mode": "pad"},
        {"center_crop": 60},
    ],
    ids=str,
)
def test_a_mask_lies_where_its_image_shows_the_thing(tmp_path: Path, framing: dict[str, object]) -> None:
    picture, mask = np.zeros((90, 140, 3), np.uint8), np.zeros((90, 140), np.uint8)
    picture[8:80, 20:120] = 70
    picture[30:52, 60:90] = 250
    mask[30:52, 60:90] = 9
    write_image(tmp_path / "eye.png", picture)
    write_image(tmp_path / "masks" / "eye.png", mask)
    chosen = load_recipe(None, size=64, crop_size=48, **framing)
    masks = MaskFolder(tmp_path / "masks")
    found = masks.find(tmp_path / "eye.png")
    assert found is not None
    assert found == tmp_path / "masks" / "eye.png"
    (region,) = masks.render_regions(found, tmp_path / "eye.png", chosen).values()
    bright = _looked_at(tmp_path / "eye.png", chosen)[..., 0] > 160
    assert bright.sum() > 50
    assert (bright == (region > 0.5)).mean() > 0.99


def test_synthetic_sets_bring_their_masks_and_the_names_of_their_parts(tmp_path: Path) -> None:
    smears = synthesize_smear(tmp_path / "smears", 40, size=96)
    cells = MaskFolder(smears / "masks")
    assert dict(cells.region_names) == {127: "cytoplasm", 255: "nucleus"}
    chosen = load_recipe(None, size=64, crop_size=56)
    for split in ("valid", "test"):
        image = smears / "new_dataset" / split / "0.bmp"
        mask = cells.find(image, split)
        assert mask is not None
        parts = cells.render_regions(mask, image, chosen)
        assert set(parts) == {"cytoplasm", "nucleus"}
        lit = _looked_at(image, chosen).max(axis=2) > 40
        assert (lit == (sum(parts.values()) > 0.5)).mean() > 0.97
    assert cells.find(smears / "new_dataset" / "train" / "0.bmp", "train") is None
    eyes = synthesize_fundus(tmp_path / "eyes", 25, size=128)
    assert MaskFolder(eyes / "masks").region_names[2] == "haemorrhage"


def test_a_jpeg_that_is_decoded_at_reduced_scale_keeps_its_mask(tmp_path: Path) -> None:
    picture, mask = np.full((640, 640, 3), 60, np.uint8), np.zeros((640, 640), np.uint8)
    picture[400:480, 160:240], mask[400:480, 160:240] = 240, 1
    write_image(tmp_path / "a.jpeg", picture)
    write_image(tmp_path / "masks" / "a.png", mask)
    chosen = load_recipe(None, size=64, crop_size=64)
    (region,) = (
        MaskFolder(tmp_path / "masks")
        .render_regions(tmp_path / "masks" / "a.png", tmp_path / "a.jpeg", chosen)
        .values()
    )
    assert (np.argwhere(region > 0.5).min(axis=0) == (40, 16)).all()
    assert (np.argwhere(region > 0.5).max(axis=0) == (47, 23)).all()


def test_faulty_masks_are_told(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="There is no folder of masks at"):
        MaskFolder(tmp_path / "gone")
    write_image(tmp_path / "a.png", np.full((30, 30, 3), 99, np.uint8))
    write_image(tmp_path / "small.png", np.ones((20, 30), np.uint8))
    write_image(tmp_path / "many.png", np.arange(900, dtype=np.uint16).reshape(30, 30).astype(np.uint8))
    (tmp_path / "bad.png").write_text("no image")
    masks, chosen = MaskFolder(tmp_path), load_recipe(None, size=32, crop_size=32)
    with pytest.raises(ParfocalError, match=r"small\.png is 30×20, its image 30×30\. A mask must be as large"):
        masks.render_regions(tmp_path / "small.png", tmp_path / "a.png", chosen)
    with pytest.raises(ParfocalError, match=r"many\.png has 255 values: not a mask"):
        masks.render_regions(tmp_path / "many.png", tmp_path / "a.png", chosen)
    with pytest.raises(UnreadableImageError, match="text, not an image"):
        masks.render_regions(tmp_path / "bad.png", tmp_path / "a.png", chosen)
    (tmp_path / "parts.csv").write_text("number,name\n1,x\n")
    with pytest.raises(ParfocalError, match=r"parts\.csv must have the columns value \(a number\) and part"):
        MaskFolder(tmp_path)
