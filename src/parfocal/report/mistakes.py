"""Images of a run's mistakes with heatmaps, kept in its folder so that its report can be rebuilt without the data."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from parfocal.data.encode import write_image
from parfocal.evaluation.compare import choose_split
from parfocal.evaluation.predictions import Predictions
from parfocal.explainability.cam import compute_class_maps
from parfocal.explainability.heatmap import compute_shared_scale, overlay_heatmap
from parfocal.explainability.images import EvalImages, load_eval_images
from parfocal.explainability.localization import border_swap_test
from parfocal.io import reject_link, write_json
from parfocal.models.classifier import Classifier
from parfocal.report.html import embed_image
from parfocal.run import Run
from parfocal.run_files import DamagedFileError, Mistakes, read_json_file

MAX_MISTAKES = 8
"""How many of the most confident mistakes a report shows."""

MAX_PAIRS = 3
"""How many of the most confused pairs of classes a report shows."""

IMAGES_PER_PAIR = 4
"""How many images of each confused pair a report shows."""

_IMAGE_SIZE = 144
_MAX_BORDER_SWAP_IMAGES = 64


def load_mistakes(run: Run) -> dict[str, Any]:
    """Return the mistakes that a run's report shows; compute them if the run folder does not hold them yet.

    They are computed again if the predictions have changed. Each entry of `mistakes`, and of the `images` of each of
    the `pairs`, has the id, the classes and the confidence of an image, and data URIs of the `image` and the `heatmap`,
    or the `reason` why it is unreadable. `border_swap` is the result of the border swap test.
    """
    split = choose_split([run])
    predictions_path = run.predictions_path(split)
    predictions_sha256 = hashlib.sha256(predictions_path.read_bytes()).hexdigest()
    path = reject_link(run.folder / "mistakes") / "mistakes.json"
    content = _read_saved_mistakes(path)
    if content is None or content["predictions_sha256"] != predictions_sha256:
        mistakes = _build_mistakes(run, Predictions.load(predictions_path), split, path.parent)
        write_json(path, {"predictions_sha256": predictions_sha256, "split": split, **mistakes})
        content = read_json_file(path, Mistakes)
    for entry in [*content["mistakes"], *(entry for pair in content["pairs"] for entry in pair["images"])]:
        for key in ("image", "heatmap"):
            entry[key] = embed_image(path.parent / entry[key] if key in entry else None)
    return content


def _read_saved_mistakes(path: Path) -> dict[str, Any] | None:
    """Return what is saved, or None if there is nothing that can be used: it can be computed again."""
    try:
        return read_json_file(path, Mistakes) if path.is_file() else None
    except DamagedFileError:
        return None


def find_most_confident_mistakes(predictions: Predictions, n_images: int = MAX_MISTAKES) -> list[int]:
    """Return the rows of the wrong predictions with the highest confidence."""
    wrong = np.flatnonzero(predictions.predicted != predictions.truth)
    return _sort_by_confidence(predictions, wrong)[:n_images].tolist()


def find_most_confused_pairs(predictions: Predictions, n_pairs: int = MAX_PAIRS) -> list[tuple[int, int, int]]:
    """Return the true class, the predicted class and the number of images of the most frequent mistakes."""
    n_classes = len(predictions.classes)
    is_wrong = predictions.predicted != predictions.truth
    pairs = (predictions.truth * n_classes + predictions.predicted)[is_wrong]
    counts = np.bincount(pairs, minlength=n_classes**2)
    most_frequent = [pair for pair in np.argsort(-counts, kind="stable")[:n_pairs].tolist() if counts[pair]]
    return [(pair // n_classes, pair % n_classes, int(counts[pair])) for pair in most_frequent]


def _sort_by_confidence(predictions: Predictions, rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-predictions.confidence[rows], kind="stable")]


def _build_mistakes(run: Run, predictions: Predictions, split: str, folder: Path) -> dict[str, Any]:
    """Write the images and heatmaps of the mistakes, and return what the report says about them."""
    mistakes = find_most_confident_mistakes(predictions)
    pairs = find_most_confused_pairs(predictions)
    rows_by_pair: list[list[int]] = []
    for truth, predicted, _ in pairs:
        rows = np.flatnonzero((predictions.truth == truth) & (predictions.predicted == predicted))
        rows_by_pair.append(_sort_by_confidence(predictions, rows)[:IMAGES_PER_PAIR].tolist())
    shown_rows = sorted({*mistakes, *(row for rows in rows_by_pair for row in rows)})
    images = load_eval_images(run, split, [predictions.ids[row] for row in shown_rows])
    border_swap = None
    evidence: dict[str, np.ndarray] = {}
    if run.weights_path.is_file():
        classifier = Classifier.load(run.weights_path)
        predicted_by_id = dict(zip(predictions.ids, predictions.predicted, strict=True))
        maps = compute_class_maps(classifier, images.pixels)
        labels = [predicted_by_id[image_id] for image_id in images.ids]
        evidence = dict(zip(images.ids, maps.for_labels(labels), strict=True))
        sample = load_eval_images(run, split, max_images=_MAX_BORDER_SWAP_IMAGES)
        border_swap = border_swap_test(classifier, compute_class_maps(classifier, sample.pixels))
    entries = _write_images(predictions, shown_rows, images, evidence, folder)
    return {
        "border_swap": {**asdict(border_swap), "warning": border_swap.warning} if border_swap else None,
        "mistakes": [entries[row] for row in mistakes],
        "pairs": [
            {
                "truth": predictions.classes[truth],
                "predicted": predictions.classes[predicted],
                "count": count,
                "images": [entries[row] for row in rows],
            }
            for (truth, predicted, count), rows in zip(pairs, rows_by_pair, strict=True)
        ],
    }


def _write_images(
    predictions: Predictions,
    rows: Sequence[int],
    images: EvalImages,
    evidence: Mapping[str, np.ndarray],
    folder: Path,
) -> dict[int, dict[str, Any]]:
    """Write the image and the heatmap of each row of the predictions, and return the entry of each."""
    # Enlarged pixels stay visible as squares, so that nobody takes a small image for a sharp image.
    interpolation = cv2.INTER_AREA if images.pixels.shape[1] > _IMAGE_SIZE else cv2.INTER_NEAREST
    thumbnails = {
        image_id: cv2.resize(pixels, (_IMAGE_SIZE, _IMAGE_SIZE), interpolation=interpolation)
        for image_id, pixels in zip(images.ids, images.pixels, strict=True)
    }
    scale = compute_shared_scale(*evidence.values())
    entries: dict[int, dict[str, Any]] = {}
    for row in rows:
        image_id = predictions.ids[row]
        truth = predictions.truth[row]
        entry: dict[str, Any] = {
            "id": image_id,
            "truth": predictions.classes[truth],
            "predicted": predictions.classes[predictions.predicted[row]],
            "confidence": float(predictions.confidence[row]),
            "truth_probability": float(predictions.probabilities[row, truth]),
        }
        if image_id in images.unreadable:
            entry["reason"] = images.unreadable[image_id]
        else:
            entry["image"] = f"{row}.jpg"
            write_image(folder / entry["image"], thumbnails[image_id])
        if image_id in evidence:
            entry["heatmap"] = f"{row}-heatmap.jpg"
            overlay = overlay_heatmap(thumbnails[image_id], evidence[image_id], scale)
            write_image(folder / entry["heatmap"], overlay)
        entries[row] = entry
    return entries
