"""A sheet of images with what one or several networks see in them, all maps on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from matplotlib.figure import Figure

from parfocal.data.table import UNKNOWN
from parfocal.explainability.cam import SCORE, ClassMaps
from parfocal.explainability.heatmap import overlay_heatmap
from parfocal.explainability.selection import SelectedImage

MAX_IMAGES_PER_SHEET = 24

_PANEL_SIZE = 1.55
_GAP = 0.08
_CAPTION_HEIGHT = 0.38
_BLOCK_GAP = 0.35
_HEADING_HEIGHT = 0.3
_FOOTER_HEIGHT = 0.75
_MAX_PANELS_PER_ROW = 12
_MAX_NAME_LENGTH = 24


@dataclass(frozen=True)
class RunExplanation:
    """What one network says of the images of a sheet: its answers, how probable each class is, and maps."""

    name: str
    classes: tuple[str, ...]
    predicted: np.ndarray
    probabilities: np.ndarray
    maps: ClassMaps

    def select_maps(self, index: int, truth: int) -> dict[str, np.ndarray]:
        """Return the maps of an image that are shown, by the class they speak for: the answer, and the truth or else
        the runner-up. Of a network with one score it is the only map.
        """
        if self.maps.names == (SCORE,):
            return {SCORE: self.maps.evidence[index, 0]}
        answer = int(self.predicted[index])
        order = np.argsort(-self.probabilities[index], kind="stable").tolist()
        second = truth if truth not in (UNKNOWN, answer) else next(one for one in order if one != answer)
        return {self.classes[one]: self.maps.evidence[index, one] for one in (answer, second)}


def draw_sheet(
    images: Sequence[SelectedImage], explanations: Sequence[RunExplanation], scale: float, first: int = 0
) -> Figure:
    """Draw images, the first of which has this number in the opinions, each with the maps of every network.

    Warm speaks for the class that is named, cold against it, and nothing looks like nothing; `scale` is full strength.
    """
    panels = 1 + sum(1 if one.maps.names == (SCORE,) else 2 for one in explanations)
    kinds = [one.kind for one in images]
    blocks = max(1, min(_MAX_PANELS_PER_ROW // panels, max(map(kinds.count, kinds))))
    lines = _layout_rows(images, blocks)
    block = panels * (_PANEL_SIZE + _GAP) + _BLOCK_GAP
    width = max(blocks * block, 5.5)
    heights = [(_HEADING_HEIGHT if heading else 0) + _PANEL_SIZE + _CAPTION_HEIGHT for heading, _ in lines]
    height = sum(heights) + _FOOTER_HEIGHT
    figure = Figure(figsize=(width, height))
    top = height
    for (heading, numbers), tall in zip(lines, heights, strict=True):
        if heading:
            figure.text(0.1 / width, (top - 0.2) / height, heading.capitalize(), fontsize=11, weight="bold")
        for place, number in enumerate(numbers):
            corner = (place * block + _GAP, top - tall)
            _draw_block(figure, corner, images[number], explanations, first + number, scale)
        top -= tall
    _draw_scale_bar(figure, scale, any(one.maps.names == (SCORE,) for one in explanations))
    return figure


def _layout_rows(images: Sequence[SelectedImage], blocks_per_row: int) -> list[tuple[str, list[int]]]:
    """Deal the images to lines, a new one with a heading for each kind."""
    lines: list[tuple[str, list[int]]] = []
    before = ""
    for kind in dict.fromkeys(one.kind for one in images):
        numbers = [number for number, one in enumerate(images) if one.kind == kind]
        for start in range(0, len(numbers), blocks_per_row):
            lines.append((kind if kind != before else "", numbers[start : start + blocks_per_row]))
            before = kind
    return lines


def _draw_block(
    figure: Figure,
    corner: tuple[float, float],
    image: SelectedImage,
    explanations: Sequence[RunExplanation],
    index: int,
    scale: float,
) -> None:
    """Draw an image and its maps side by side, words above each."""
    classes = explanations[0].classes
    truth = "" if image.truth == UNKNOWN else f"\ntruth: {classes[image.truth]}"
    picture = explanations[0].maps.pixels[index]
    _draw_panel(figure, corner, 0, picture, _shorten(image.id) + truth)
    panel = 1
    for opinion in explanations:
        answer = int(opinion.predicted[index])
        says = f"{classes[answer]} {opinion.probabilities[index, answer]:.0%}"
        says = f"{_shorten(opinion.name)}: {says}" if len(explanations) > 1 else f"says {says}"
        for name, evidence in opinion.select_maps(index, image.truth).items():
            words = f"{says}\n{_shorten(name)}: peak {evidence.max():.2f}"
            _draw_panel(figure, corner, panel, overlay_heatmap(opinion.maps.pixels[index], evidence, scale), words)
            says = ""
            panel += 1


def _draw_panel(figure: Figure, corner: tuple[float, float], column: int, pixels: np.ndarray, caption: str) -> None:
    width, height = figure.get_size_inches()
    left, bottom = corner[0] + column * (_PANEL_SIZE + _GAP), corner[1]
    axes = figure.add_axes((left / width, bottom / height, _PANEL_SIZE / width, _PANEL_SIZE / height))
    axes.imshow(pixels, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(caption, fontsize=7, loc="left", pad=2)


def _draw_scale_bar(figure: Figure, scale: float, has_score: bool) -> None:
    """Draw what the colours mean at the foot."""
    width, height = figure.get_size_inches()
    ramp = np.tile(np.linspace(-scale, scale, 512, dtype=np.float32), (2, 1))
    pixels = overlay_heatmap(np.full((512, 512, 3), 128, np.uint8), ramp, scale)
    axes = figure.add_axes((0.1 / width, 0.38 / height, 4.5 / width, 0.16 / height))
    axes.imshow(pixels, aspect="auto", extent=(-scale, scale, 0, 1))
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    words = "speaks against the class that is named, and for it"
    words += "; of a score, for lower and for higher grades" if has_score else ""
    axes.set_title(words, fontsize=7, loc="left", pad=2)


def _shorten(name: str) -> str:
    last = PurePath(name).name or name
    return last if len(last) <= _MAX_NAME_LENGTH else f"…{last[1 - _MAX_NAME_LENGTH :]}"
