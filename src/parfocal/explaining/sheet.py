"""A sheet of images with what one or several networks see in them, all maps on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from matplotlib.figure import Figure

from parfocal.data.table import UNKNOWN
from parfocal.explaining.cam import SCORE, Maps
from parfocal.explaining.choice import Shown
from parfocal.explaining.heat import overlay

MOST_ON_A_SHEET = 24

_PANEL = 1.55
_GAP = 0.08
_WORDS = 0.38
_BETWEEN = 0.35
_HEADING = 0.3
_FOOT = 0.75
_ACROSS = 12
_LETTERS = 24


@dataclass(frozen=True)
class Opinion:
    """What one network says of the images of a sheet: its answers, how probable each class is, and maps."""

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    maps: Maps

    def evidence(self, number: int, truth: int) -> dict[str, np.ndarray]:
        """Return the maps of an image that are shown, by the class they speak for: the answer, and the truth or else
        the runner-up. Of a network with one score it is the only map.
        """
        if self.maps.answers == (SCORE,):
            return {SCORE: self.maps.evidence[number, 0]}
        answer = int(self.labels[number])
        order = np.argsort(-self.probabilities[number], kind="stable").tolist()
        second = truth if truth not in (UNKNOWN, answer) else next(one for one in order if one != answer)
        return {self.classes[one]: self.maps.evidence[number, one] for one in (answer, second)}


def sheet(shown: Sequence[Shown], opinions: Sequence[Opinion], scale: float, first: int = 0) -> Figure:
    """Draw images, the first of which has this number in the opinions, each with the maps of every network.

    Warm speaks for the class that is named, cold against it, and nothing looks like nothing; `scale` is full strength.
    """
    panels = 1 + sum(1 if one.maps.answers == (SCORE,) else 2 for one in opinions)
    kinds = [one.kind for one in shown]
    blocks = max(1, min(_ACROSS // panels, max(map(kinds.count, kinds))))
    lines = _lines(shown, blocks)
    block = panels * (_PANEL + _GAP) + _BETWEEN
    width = max(blocks * block, 5.5)
    heights = [(_HEADING if heading else 0) + _PANEL + _WORDS for heading, _ in lines]
    height = sum(heights) + _FOOT
    figure = Figure(figsize=(width, height))
    top = height
    for (heading, numbers), tall in zip(lines, heights, strict=True):
        if heading:
            figure.text(0.1 / width, (top - 0.2) / height, heading.capitalize(), fontsize=11, weight="bold")
        for place, number in enumerate(numbers):
            corner = (place * block + _GAP, top - tall)
            _block(figure, corner, shown[number], opinions, first + number, scale)
        top -= tall
    _scale_bar(figure, scale, any(one.maps.answers == (SCORE,) for one in opinions))
    return figure


def _lines(shown: Sequence[Shown], blocks: int) -> list[tuple[str, list[int]]]:
    """Deal the images to lines, a new one with a heading for each kind."""
    lines: list[tuple[str, list[int]]] = []
    before = ""
    for kind in dict.fromkeys(one.kind for one in shown):
        numbers = [number for number, one in enumerate(shown) if one.kind == kind]
        for start in range(0, len(numbers), blocks):
            lines.append((kind if kind != before else "", numbers[start : start + blocks]))
            before = kind
    return lines


def _block(
    figure: Figure, corner: tuple[float, float], one: Shown, opinions: Sequence[Opinion], number: int, scale: float
) -> None:
    """Draw an image and its maps side by side, words above each."""
    classes = opinions[0].classes
    truth = "" if one.truth == UNKNOWN else f"\ntruth: {classes[one.truth]}"
    picture = opinions[0].maps.pixels[number]
    _panel(figure, corner, 0, picture, _short(one.id) + truth)
    panel = 1
    for opinion in opinions:
        answer = int(opinion.labels[number])
        says = f"{classes[answer]} {opinion.probabilities[number, answer]:.0%}"
        says = f"{_short(opinion.name)}: {says}" if len(opinions) > 1 else f"says {says}"
        for name, evidence in opinion.evidence(number, one.truth).items():
            words = f"{says}\n{_short(name)}: peak {evidence.max():.2f}"
            _panel(figure, corner, panel, overlay(opinion.maps.pixels[number], evidence, scale), words)
            says = ""
            panel += 1


def _panel(figure: Figure, corner: tuple[float, float], place: int, pixels: np.ndarray, words: str) -> None:
    width, height = figure.get_size_inches()
    left, bottom = corner[0] + place * (_PANEL + _GAP), corner[1]
    axes = figure.add_axes((left / width, bottom / height, _PANEL / width, _PANEL / height))
    axes.imshow(pixels, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(words, fontsize=7, loc="left", pad=2)


def _scale_bar(figure: Figure, scale: float, scores: bool) -> None:
    """Draw what the colours mean at the foot."""
    width, height = figure.get_size_inches()
    ramp = np.tile(np.linspace(-scale, scale, 512, dtype=np.float32), (2, 1))
    pixels = overlay(np.full((512, 512, 3), 128, np.uint8), ramp, scale)
    axes = figure.add_axes((0.1 / width, 0.38 / height, 4.5 / width, 0.16 / height))
    axes.imshow(pixels, aspect="auto", extent=(-scale, scale, 0, 1))
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    words = "speaks against the class that is named, and for it"
    words += "; of a score, for lower and for higher grades" if scores else ""
    axes.set_title(words, fontsize=7, loc="left", pad=2)


def _short(name: str) -> str:
    last = PurePath(name).name or name
    return last if len(last) <= _LETTERS else f"…{last[1 - _LETTERS :]}"
