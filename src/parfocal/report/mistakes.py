"""Pictures of a run's mistakes, kept in its folder, so that its page can be drawn again without images and network."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from parfocal.data.decode import Pixels
from parfocal.evaluation.compare import choose_split
from parfocal.evaluation.predictions import Predictions
from parfocal.explainability.cam import compute_class_maps, load_eval_views, locate_images
from parfocal.explainability.heatmap import compute_shared_scale, overlay_heatmap
from parfocal.explainability.localization import border_swap_test
from parfocal.io import atomic_write, write_json
from parfocal.models.classifier import Classifier
from parfocal.report.render import data_uri
from parfocal.run import Run

MAX_MISTAKES, MAX_PAIRS, IMAGES_PER_PAIR = 8, 3, 4
"""So many mistakes are shown, so many pairs of classes that are confused, and so many pictures of each."""

_IMAGE_SIZE = 144
# Of so many images at most it is measured whether answers hang on the border.
_MAX_BORDER_SWAP_IMAGES = 64


def load_mistakes(run: Run) -> dict[str, Any]:
    """Return the mistakes that a run's page shows, made now if its folder does not hold those of its predictions.

    `mistakes` and the `pictures` of `pairs` have the id, truth, answer and certainty of an image, and the addresses of
    its picture and of its heat map; or the reason why there is none. `margin` tells whether answers hang on the border.
    """
    split = choose_split([run])
    file = run.predictions_path(split)
    folder, digest = run.folder / "pictures", hashlib.sha256(file.read_bytes()).hexdigest()
    listing = folder / "pictures.json"
    if not (listing.is_file() and json.loads(listing.read_text(encoding="utf-8"))["of"] == digest):
        write_json(
            listing, {"of": digest, "split": split, **_build_mistakes(run, Predictions.load(file), split, folder)}
        )
    known = json.loads(listing.read_text(encoding="utf-8"))
    for one in [*known["mistakes"], *(picture for pair in known["pairs"] for picture in pair["pictures"])]:
        for form in ("picture", "map"):
            one[form] = _read_data_uri(folder / one[form]) if one.get(form) else ""
    return known


def find_most_confident_mistakes(predictions: Predictions, n_images: int = MAX_MISTAKES) -> list[int]:
    """Return the places of the images that are wrong with the highest certainty."""
    wrong = np.flatnonzero(predictions.predicted != predictions.truth)
    return wrong[np.argsort(-predictions.probabilities[wrong].max(axis=1), kind="stable")][:n_images].tolist()


def find_most_confused_pairs(predictions: Predictions, n_pairs: int = MAX_PAIRS) -> list[tuple[int, int, int]]:
    """Return truth, answer and number of images of the mistakes that are made most often."""
    several = len(predictions.classes)
    wrong = predictions.predicted != predictions.truth
    counts = np.bincount((predictions.truth * several + predictions.predicted)[wrong], minlength=several**2)
    often = [place for place in np.argsort(-counts, kind="stable")[:n_pairs].tolist() if counts[place]]
    return [(place // several, place % several, int(counts[place])) for place in often]


def _build_mistakes(run: Run, predictions: Predictions, split: str, folder: Path) -> dict[str, Any]:
    mistakes = find_most_confident_mistakes(predictions)
    pairs = find_most_confused_pairs(predictions)
    certainty = predictions.probabilities.max(axis=1)
    of_pairs: list[list[int]] = []
    for truth, answer, _ in pairs:
        places = np.flatnonzero((predictions.truth == truth) & (predictions.predicted == answer))
        of_pairs.append(places[np.argsort(-certainty[places], kind="stable")][:IMAGES_PER_PAIR].tolist())
    wanted = sorted({*mistakes, *(place for places in of_pairs for place in places)})
    drawn = _write_images(run, predictions, split, wanted, folder)
    return {
        "margin": _run_border_swap_test(run, split),
        "mistakes": [drawn[place] for place in mistakes],
        "pairs": [
            {
                "truth": predictions.classes[truth],
                "answer": predictions.classes[answer],
                "count": count,
                "pictures": [drawn[place] for place in places],
            }
            for (truth, answer, count), places in zip(pairs, of_pairs, strict=True)
        ],
    }


def _write_images(
    run: Run, predictions: Predictions, split: str, rows: Sequence[int], folder: Path
) -> dict[int, dict[str, Any]]:
    """Write picture and heat map of each image, and say of each what the page tells."""
    files = locate_images(run, split, [predictions.ids[place] for place in rows])
    pixels, readable, unreadable = load_eval_views(run.recipe, files)
    pictures = dict(zip(readable, (_resize(one) for one in pixels), strict=True))
    layers = _compute_maps(run, predictions, pixels, readable)
    scale = compute_shared_scale(*layers.values())
    found: dict[int, dict[str, Any]] = {}
    for place in rows:
        name = predictions.ids[place]
        one: dict[str, Any] = {
            "id": name,
            "truth": predictions.classes[predictions.truth[place]],
            "answer": predictions.classes[predictions.predicted[place]],
            "certainty": float(predictions.probabilities[place].max()),
            "of_truth": float(predictions.probabilities[place, predictions.truth[place]]),
        }
        if name in unreadable:
            one["reason"] = unreadable[name]
        else:
            one["picture"] = _write_jpeg(pictures[name], folder / f"{place}.jpg")
        if name in layers:
            one["map"] = _write_jpeg(overlay_heatmap(pictures[name], layers[name], scale), folder / f"{place}-map.jpg")
        found[place] = one
    return found


def _compute_maps(run: Run, predictions: Predictions, pixels: Pixels, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Return for each image what speaks for its answer; nothing where the weights are gone."""
    if not run.weights_path.is_file() or not ids:
        return {}
    answers = dict(zip(predictions.ids, predictions.predicted, strict=True))
    maps = compute_class_maps(Classifier.load(run.weights_path), pixels)
    return dict(zip(ids, maps.for_labels([answers[one] for one in ids]), strict=True))


def _run_border_swap_test(run: Run, split: str) -> dict[str, Any] | None:
    """Return how the maps of some images of a split lie to the border and the surround, evenly over the split."""
    if not run.weights_path.is_file():
        return None
    files = list(locate_images(run, split).items())
    pixels, _, _ = load_eval_views(run.recipe, dict(files[:: -(-len(files) // _MAX_BORDER_SWAP_IMAGES)]))
    network = Classifier.load(run.weights_path)
    margin = border_swap_test(network, compute_class_maps(network, pixels))
    return {**asdict(margin), "warning": margin.warning} if margin else None


def _resize(pixels: Pixels) -> Pixels:
    way = cv2.INTER_AREA if len(pixels) > _IMAGE_SIZE else cv2.INTER_NEAREST
    return cv2.resize(pixels, (_IMAGE_SIZE, _IMAGE_SIZE), interpolation=way).astype(np.uint8)


def _write_jpeg(pixels: Pixels, path: Path) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    with atomic_write(path) as beside:
        beside.write_bytes(data.tobytes())
    return path.name


def _read_data_uri(path: Path) -> str:
    if not path.is_file():
        return ""
    return data_uri("jpeg", path.read_bytes())
