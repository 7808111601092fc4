"""Compute heat maps on request, each image by itself. The weights for them are loaded at the first request."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from parfocal.data.augment import eval_views
from parfocal.data.decode import Pixels, prepare_image
from parfocal.data.encode import encode_image
from parfocal.data.warp import render_one
from parfocal.evaluation.ensemble import MEMBERS_FILE
from parfocal.explainability.cam import ClassMaps, compute_class_maps
from parfocal.explainability.heatmap import compute_shared_scale, overlay_heatmap, render_heatmap
from parfocal.models.classifier import Classifier
from parfocal.report.html import data_uri
from parfocal.run import Run
from parfocal.serving.decoding import DecodingThreads
from parfocal.serving.engine import ServedNetwork
from parfocal.serving.limits import RequestError

_MAX_WAITING = 32


class Explainer:
    """Compute class activation maps in a separate thread, so that predictions do not wait for them."""

    def __init__(self, decoding: DecodingThreads) -> None:
        self._decoding = decoding
        self._pool = ThreadPoolExecutor(1, "explaining")
        self._classifiers: dict[str, Classifier] = {}
        self._n_waiting = 0

    async def compute_maps(self, image: bytes, network: ServedNetwork) -> ClassMaps:
        """Return the exact maps of an image for every class; raise RequestError or UnreadableImageError."""
        if (network.folder / MEMBERS_FILE).is_file():
            raise RequestError(422, f"{network.name} is an ensemble, and has no heat map. Serve its members.")
        if self._n_waiting >= _MAX_WAITING:
            raise RequestError(503, f"{self._n_waiting} heat maps are waiting already. Try again in a moment.")
        self._n_waiting += 1
        try:
            decode = partial(prepare_image, image, Run(network.folder).recipe.images)
            prepared, _ = await asyncio.wrap_future(self._decoding.submit(decode))
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._compute_maps, prepared, network)
        finally:
            self._n_waiting -= 1

    def _compute_maps(self, prepared: Pixels, network: ServedNetwork) -> ClassMaps:
        run = Run(network.folder)
        if network.name not in self._classifiers:
            self._classifiers[network.name] = Classifier.load(run.weights_path)
        images, views = run.recipe.images, run.recipe.views
        pixels = render_one(prepared, eval_views(1, images.size, views), 0)
        return compute_class_maps(self._classifiers[network.name], pixels[None])


def build_explanation(maps: ClassMaps, network: ServedNetwork, label: int) -> dict[str, object]:
    """Return the maps of an image as plain data, in the form of `Explanation`."""
    evidence, pixels = maps.evidence[0], maps.pixels[0]
    scale = compute_shared_scale(evidence)
    return {
        "network": network.name,
        "label": network.predictor.classes[label],
        "scale": scale,
        "values": dict(zip(maps.names, evidence.tolist(), strict=True)),
        "peak": dict(zip(maps.names, evidence.max(axis=(1, 2)).tolist(), strict=True)),
        "image": _png_data_uri(pixels),
        "heatmaps": {
            name: _png_data_uri(render_heatmap(values, scale, len(pixels)))
            for name, values in zip(maps.names, evidence, strict=True)
        },
    }


def render_overlay(maps: ClassMaps, label: int) -> bytes:
    """Return the image with the map of a class over it, as a PNG file."""
    overlay = overlay_heatmap(maps.pixels[0], maps.for_labels([label])[0], compute_shared_scale(maps.evidence))
    return encode_image(overlay, ".png")


def _png_data_uri(pixels: Pixels) -> str:
    return data_uri("png", encode_image(pixels, ".png"))
