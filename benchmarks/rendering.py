"""Augmented views per second on one core: Parfocal from the Store, PIL and Albumentations, with the same augmentations.

The augmentations are those of the leukemia lab, with colors: resize from 450 to 350 pixels, rotate by up to 20 degrees,
flip, crop the center of 224 pixels, change brightness, contrast and saturation. PIL and Albumentations start from the
decoded image of 450 pixels, as usual; Parfocal starts from the Store, where the images are already resized.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import albumentations
import cv2
import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.machine import measure_rate, median_ratio, save_results
from parfocal.data.augment import draw_views
from parfocal.data.layouts import read
from parfocal.data.store import prepare
from parfocal.data.warp import render
from parfocal.recipe_schema import ImagesConfig, ViewsConfig
from parfocal.synthetic.dataset import synthesize_smear

VIEWS = ViewsConfig(
    crop_size=224, rotate=20, flip_horizontal=0.5, flip_vertical=0.5, brightness=0.2, contrast=0.2, saturation=0.2
)


def render_pil(image: Image.Image) -> np.ndarray:
    """Augment an image with PIL."""
    image = image.resize((350, 350), Image.Resampling.BILINEAR)
    image = image.rotate(random.uniform(-20, 20), Image.Resampling.BILINEAR)
    for flip in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
        if random.random() < 0.5:
            image = image.transpose(flip)
    image = image.crop((63, 63, 287, 287))
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(random.uniform(0.8, 1.2))
    return np.asarray(image)


def build_albumentations() -> albumentations.Compose:
    """Build the augmentations with Albumentations."""
    return albumentations.Compose(
        [
            albumentations.Resize(350, 350),
            albumentations.Rotate(limit=20, p=1),
            albumentations.HorizontalFlip(p=0.5),
            albumentations.VerticalFlip(p=0.5),
            albumentations.CenterCrop(224, 224),
            albumentations.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=0, p=1),
        ]
    )


def measure_rate_of_each(run: Callable[[int], object], n_images: int) -> float:
    """Return the images per second of `run`, called with one image number after another."""

    def run_all() -> int:
        for number in range(n_images):
            run(number)
        return n_images

    return measure_rate(run_all)


def compare(n_images: int, n_rounds: int) -> dict[str, object]:
    """Measure the three in turns, and return all results and the ratios of medians."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        table = read(synthesize_smear(Path(folder) / "smears", n_images))
        decoded = [Image.open(path).convert("RGB") for path in table.rows["path"]]
        arrays = [np.asarray(image) for image in decoded]
        pixels = prepare(table, ImagesConfig(size=350)).pixels
        augment = build_albumentations()
        out = np.empty((224, 224, 3), np.uint8)
        rates: dict[str, list[float]] = {"ours": [], "pil": [], "albumentations": []}
        for epoch in range(n_rounds):
            started = time.perf_counter()
            views = draw_views(n_images, 350, VIEWS, seed=0, epoch=epoch)
            draw_seconds = (time.perf_counter() - started) / n_images
            render_seconds = 1 / measure_rate_of_each(
                lambda number, views=views: render(pixels[number], views[number], out), n_images
            )
            rates["ours"].append(1 / (render_seconds + draw_seconds))
            rates["pil"].append(measure_rate_of_each(lambda number: render_pil(decoded[number]), n_images // 2))
            rates["albumentations"].append(
                measure_rate_of_each(lambda number: augment(image=arrays[number]), n_images // 2)
            )
    return {
        "images_per_second_per_core": {name: [round(value) for value in values] for name, values in rates.items()},
        "ours_over_pil": round(median_ratio(rates["ours"], rates["pil"]), 2),
        "ours_over_albumentations": round(median_ratio(rates["ours"], rates["albumentations"]), 2),
    }


def main() -> None:
    """Measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    save_results("rendering", compare(arguments.images, arguments.rounds))


if __name__ == "__main__":
    main()
