"""Views a second on one core: ours from the Store, beside PIL and Albumentations, the same steps on the same smears.

The steps are the leukemia lab's, with colours: an image of 450 squashed to 350, turned by up to 20 degrees, flipped,
its centre of 224 taken, brightness, contrast and saturation changed. PIL and Albumentations start where they usually
do, from the decoded image of 450; ours from the Store, where the squashing is already done.
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
from parfocal.data.render import render
from parfocal.data.store import prepare
from parfocal.schema import ImagesConfig, ViewsConfig
from parfocal.synthetic.dataset import synthesize_smear

VIEWS = ViewsConfig(
    crop_size=224, rotate=20, flip_horizontal=0.5, flip_vertical=0.5, brightness=0.2, contrast=0.2, saturation=0.2
)


def render_pil(image: Image.Image) -> np.ndarray:
    """Take the steps one after another with PIL."""
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
    """Compose the steps with Albumentations."""
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
    """Return how many images a second `run` gets through, one after another."""

    def one_by_one() -> int:
        for number in range(n_images):
            run(number)
        return n_images

    return measure_rate(one_by_one)


def compare(n_images: int, n_rounds: int) -> dict[str, object]:
    """Measure the three in turns and return every figure and the ratios of medians."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        table = read(synthesize_smear(Path(folder) / "smears", n_images))
        decoded = [Image.open(path).convert("RGB") for path in table.rows["path"]]
        arrays = [np.asarray(image) for image in decoded]
        pixels = prepare(table, ImagesConfig(size=350)).pixels
        composed, out = build_albumentations(), np.empty((224, 224, 3), np.uint8)
        figures: dict[str, list[float]] = {"ours": [], "pil": [], "albumentations": []}
        for epoch in range(n_rounds):
            started = time.perf_counter()
            views = draw_views(n_images, 350, VIEWS, seed=0, epoch=epoch)
            drawing = (time.perf_counter() - started) / n_images
            rendering = 1 / measure_rate_of_each(
                lambda number, views=views: render(pixels[number], views[number], out), n_images
            )
            figures["ours"].append(1 / (rendering + drawing))
            figures["pil"].append(measure_rate_of_each(lambda number: render_pil(decoded[number]), n_images // 2))
            figures["albumentations"].append(
                measure_rate_of_each(lambda number: composed(image=arrays[number]), n_images // 2)
            )
    return {
        "images_per_second_per_core": {name: [round(one) for one in values] for name, values in figures.items()},
        "ours_over_pil": round(median_ratio(figures["ours"], figures["pil"]), 2),
        "ours_over_albumentations": round(median_ratio(figures["ours"], figures["albumentations"]), 2),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    save_results("rendering", compare(given.images, given.rounds))


if __name__ == "__main__":
    main()
