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
from parfocal.evaluation.compare import best_split
from parfocal.evaluation.predictions import Predictions
from parfocal.explaining.cam import class_maps, files_of, seen_files
from parfocal.explaining.heat import overlay, shared_scale
from parfocal.explaining.margin import margin_of
from parfocal.files import whole, write_json
from parfocal.model.classifier import Classifier
from parfocal.report.addresses import data_address
from parfocal.run import Run

MOST_MISTAKES, MOST_PAIRS, OF_A_PAIR = 8, 3, 4
"""So many mistakes are shown, so many pairs of classes that are confused, and so many pictures of each."""

_SIDE = 144
# Of so many images at most it is measured whether answers hang on the border.
_MOST_ON_MARGIN = 64


def kept_pictures(run: Run) -> dict[str, Any]:
    """Return the mistakes that a run's page shows, made now if its folder does not hold those of its predictions.

    `mistakes` and the `pictures` of `pairs` have the id, truth, answer and certainty of an image, and the addresses of
    its picture and of its heat map; or the reason why there is none. `margin` tells whether answers hang on the border.
    """
    split = best_split([run])
    file = run.predictions(split)
    folder, digest = run.folder / "pictures", hashlib.sha256(file.read_bytes()).hexdigest()
    listing = folder / "pictures.json"
    if not (listing.is_file() and json.loads(listing.read_text(encoding="utf-8"))["of"] == digest):
        write_json(listing, {"of": digest, "split": split, **_made(run, Predictions.load(file), split, folder)})
    known = json.loads(listing.read_text(encoding="utf-8"))
    for one in [*known["mistakes"], *(picture for pair in known["pairs"] for picture in pair["pictures"])]:
        for form in ("picture", "map"):
            one[form] = _address(folder / one[form]) if one.get(form) else ""
    return known


def most_confident_mistakes(said: Predictions, most: int = MOST_MISTAKES) -> list[int]:
    """Return the places of the images that are wrong with the highest certainty."""
    wrong = np.flatnonzero(said.predicted != said.truth)
    return wrong[np.argsort(-said.probabilities[wrong].max(axis=1), kind="stable")][:most].tolist()


def most_confused_pairs(said: Predictions, most: int = MOST_PAIRS) -> list[tuple[int, int, int]]:
    """Return truth, answer and number of images of the mistakes that are made most often."""
    several = len(said.classes)
    wrong = said.predicted != said.truth
    counts = np.bincount((said.truth * several + said.predicted)[wrong], minlength=several**2)
    often = [place for place in np.argsort(-counts, kind="stable")[:most].tolist() if counts[place]]
    return [(place // several, place % several, int(counts[place])) for place in often]


def _made(run: Run, said: Predictions, split: str, folder: Path) -> dict[str, Any]:
    mistakes = most_confident_mistakes(said)
    pairs = most_confused_pairs(said)
    certainty = said.probabilities.max(axis=1)
    of_pairs: list[list[int]] = []
    for truth, answer, _ in pairs:
        places = np.flatnonzero((said.truth == truth) & (said.predicted == answer))
        of_pairs.append(places[np.argsort(-certainty[places], kind="stable")][:OF_A_PAIR].tolist())
    wanted = sorted({*mistakes, *(place for places in of_pairs for place in places)})
    drawn = _drawn(run, said, split, wanted, folder)
    return {
        "margin": _margin(run, split),
        "mistakes": [drawn[place] for place in mistakes],
        "pairs": [
            {
                "truth": said.classes[truth],
                "answer": said.classes[answer],
                "count": count,
                "pictures": [drawn[place] for place in places],
            }
            for (truth, answer, count), places in zip(pairs, of_pairs, strict=True)
        ],
    }


def _drawn(run: Run, said: Predictions, split: str, places: Sequence[int], folder: Path) -> dict[int, dict[str, Any]]:
    """Write picture and heat map of each image, and say of each what the page tells."""
    files = files_of(run, split, [said.ids[place] for place in places])
    pixels, readable, unreadable = seen_files(run.recipe, files)
    pictures = dict(zip(readable, (_enlarged(one) for one in pixels), strict=True))
    layers = _maps(run, said, pixels, readable)
    scale = shared_scale(*layers.values())
    found: dict[int, dict[str, Any]] = {}
    for place in places:
        name = said.ids[place]
        one: dict[str, Any] = {
            "id": name,
            "truth": said.classes[said.truth[place]],
            "answer": said.classes[said.predicted[place]],
            "certainty": float(said.probabilities[place].max()),
            "of_truth": float(said.probabilities[place, said.truth[place]]),
        }
        if name in unreadable:
            one["reason"] = unreadable[name]
        else:
            one["picture"] = _kept(pictures[name], folder / f"{place}.jpg")
        if name in layers:
            one["map"] = _kept(overlay(pictures[name], layers[name], scale), folder / f"{place}-map.jpg")
        found[place] = one
    return found


def _maps(run: Run, said: Predictions, pixels: Pixels, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Return for each image what speaks for its answer; nothing where the weights are gone."""
    if not run.weights.is_file() or not ids:
        return {}
    answers = dict(zip(said.ids, said.predicted, strict=True))
    maps = class_maps(Classifier.load(run.weights), pixels)
    return dict(zip(ids, maps.of([answers[one] for one in ids]), strict=True))


def _margin(run: Run, split: str) -> dict[str, Any] | None:
    """Return how the maps of some images of a split lie to the border and the surround, evenly over the split."""
    if not run.weights.is_file():
        return None
    files = list(files_of(run, split).items())
    pixels, _, _ = seen_files(run.recipe, dict(files[:: -(-len(files) // _MOST_ON_MARGIN)]))
    network = Classifier.load(run.weights)
    margin = margin_of(network, class_maps(network, pixels))
    return {**asdict(margin), "warning": margin.warning} if margin else None


def _enlarged(pixels: Pixels) -> Pixels:
    way = cv2.INTER_AREA if len(pixels) > _SIDE else cv2.INTER_NEAREST
    return cv2.resize(pixels, (_SIDE, _SIDE), interpolation=way).astype(np.uint8)


def _kept(picture: Pixels, path: Path) -> str:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    with whole(path) as beside:
        beside.write_bytes(data.tobytes())
    return path.name


def _address(path: Path) -> str:
    if not path.is_file():
        return ""
    return data_address("jpeg", path.read_bytes())
