"""Heat maps on request: one image at a time, on weights of its own that are loaded when first asked for."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from parfocal.data.decode import Pixels, prepare_image
from parfocal.data.headers import at_most
from parfocal.data.views import seen, still
from parfocal.evaluation.ensemble import MEMBERS
from parfocal.explaining.cam import Maps, class_maps
from parfocal.explaining.heat import heat, overlay, shared_scale
from parfocal.model.classifier import Classifier
from parfocal.report.addresses import data_address
from parfocal.run import Run
from parfocal.serving.engine import Network
from parfocal.serving.limits import Limits, Refused

_MOST_WAITING = 32


class Explaining:
    """Makes the maps of images, in a thread that is apart from the answers."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(1, "explaining")
        self._classifiers: dict[str, Classifier] = {}
        self._waiting = 0

    async def maps(self, image: bytes, network: Network) -> Maps:
        """Return the exact maps of one image for every class of a network; or raise Refused or Unreadable."""
        if (network.folder / MEMBERS).is_file():
            raise Refused(422, f"{network.name} is an ensemble, which has no map of its own. Serve its members.")
        if self._waiting >= _MOST_WAITING:
            raise Refused(503, f"{self._waiting} heat maps are waiting already; try again in a moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._maps, image, network)
        finally:
            self._waiting -= 1

    def _maps(self, image: bytes, network: Network) -> Maps:
        run = Run(network.folder)
        if network.name not in self._classifiers:
            self._classifiers[network.name] = Classifier.load(run.weights)
        images, views = run.recipe.images, run.recipe.views
        with at_most(self._limits.pixels):
            prepared = prepare_image(image, images)[0]
        pixels = seen(prepared, still(1, images.size, views), 0)
        return class_maps(self._classifiers[network.name], pixels[None])


def map_values(maps: Maps, network: Network, label: int) -> dict[str, object]:
    """Return the maps of one image as plain data, in the shape of `Explanation`."""
    evidence, pixels = maps.evidence[0], maps.pixels[0]
    scale = shared_scale(evidence)
    return {
        "network": network.name,
        "label": network.answering.classes[label],
        "scale": scale,
        "values": dict(zip(maps.answers, evidence.tolist(), strict=True)),
        "peak": dict(zip(maps.answers, evidence.max(axis=(1, 2)).tolist(), strict=True)),
        "image": _as_address(pixels),
        "heat": {
            name: _as_address(heat(one, scale, len(pixels))) for name, one in zip(maps.answers, evidence, strict=True)
        },
    }


def map_picture(maps: Maps, label: int) -> bytes:
    """Return the image with the map for one class over it, as a PNG file."""
    return _png(overlay(maps.pixels[0], maps.of([label])[0], shared_scale(maps.evidence)))


def _png(pixels: Pixels) -> bytes:
    order = [2, 1, 0, 3][: pixels.shape[2]]
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., order]))
    assert done
    return data.tobytes()


def _as_address(pixels: Pixels) -> str:
    return data_address("png", _png(pixels))
