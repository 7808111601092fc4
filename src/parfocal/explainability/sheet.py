"""Draw a sheet of images with the heatmaps of networks, on a shared scale or on one for each network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from matplotlib.figure import Figure

from parfocal.data.table import UNKNOWN
from parfocal.explainability.cam import SCORE, ClassMaps
from parfocal.explainability.heatmap import overlay_heatmap
from parfocal.explainability.selection import SelectedImage

MAX_IMAGES_PER_SHEET = 24

# Sizes in inches. An image and its heatmaps are the panels of a block.
_PANEL_SIZE = 1.55
_PANEL_GAP = 0.08
_BLOCK_GAP = 0.35
_CAPTION_HEIGHT = 0.38
_HEADING_HEIGHT = 0.3
_FOOTER_HEIGHT = 0.75
_MIN_WIDTH = 5.5
_MAX_PANELS_PER_ROW = 12
_MAX_NAME_LENGTH = 24


@dataclass(frozen=True)
class RunExplanation:
    """A network's predictions, probabilities and maps of the images of a sheet."""

    name: str
    classes: tuple[str, ...]
    predicted: np.ndarray
    probabilities: np.ndarray
    maps: ClassMaps

    @property
    def has_score(self) -> bool:
        """Whether the network outputs a score for all grades, and so has a single map per image."""
        return self.maps.names == (SCORE,)

    def select_maps(self, index: int, truth: int) -> dict[str, np.ndarray]:
        """Return the maps of an image that a sheet shows, by class.

        These are the predicted class, and the true class, or the second most probable class if the prediction is
        correct or the truth unknown. A network with a score has a single map.
        """
        if self.has_score:
            return {SCORE: self.maps.evidence[index, 0]}
        predicted = int(self.predicted[index])
        second = truth
        if truth in (UNKNOWN, predicted):
            by_probability = np.argsort(-self.probabilities[index], kind="stable").tolist()
            second = next(label for label in by_probability if label != predicted)
        return {self.classes[label]: self.maps.evidence[index, label] for label in (predicted, second)}


def draw_sheet(
    images: Sequence[SelectedImage], explanations: Sequence[RunExplanation], scales: Mapping[str, float], first: int = 0
) -> Figure:
    """Draw images with the heatmaps of every network; `first` is the index of the first image in the explanations.

    `scales` holds the value of full strength by network.
    """
    n_panels = 1 + sum(1 if explanation.has_score else 2 for explanation in explanations)
    kinds = [image.kind for image in images]
    blocks_per_row = max(1, min(_MAX_PANELS_PER_ROW // n_panels, max(map(kinds.count, kinds))))
    # Each kind starts a row with a heading.
    rows: list[tuple[str, list[int]]] = []
    for kind in dict.fromkeys(kinds):
        indices = [index for index, image in enumerate(images) if image.kind == kind]
        rows += [
            (kind if start == 0 else "", indices[start : start + blocks_per_row])
            for start in range(0, len(indices), blocks_per_row)
        ]
    block_width = n_panels * (_PANEL_SIZE + _PANEL_GAP) + _BLOCK_GAP
    width = max(blocks_per_row * block_width, _MIN_WIDTH)
    heights = [(_HEADING_HEIGHT if heading else 0) + _PANEL_SIZE + _CAPTION_HEIGHT for heading, _ in rows]
    height = sum(heights) + _FOOTER_HEIGHT
    figure = Figure(figsize=(width, height))
    top = height
    for (heading, indices), row_height in zip(rows, heights, strict=True):
        if heading:
            figure.text(0.1 / width, (top - 0.2) / height, heading.capitalize(), fontsize=11, weight="bold")
        for column, index in enumerate(indices):
            corner = (column * block_width + _PANEL_GAP, top - row_height)
            _draw_block(figure, corner, images[index], explanations, first + index, scales)
        top -= row_height
    is_shared = len(set(scales.values())) == 1
    scale = next(iter(scales.values())) if is_shared else 1.0
    ramp = np.tile(np.linspace(-scale, scale, 512, dtype=np.float32), (2, 1))
    axes = figure.add_axes((0.1 / width, 0.38 / height, 4.5 / width, 0.16 / height))
    axes.imshow(
        overlay_heatmap(np.full((512, 512, 3), 128, np.uint8), ramp, scale), aspect="auto", extent=(-scale, scale, 0, 1)
    )
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    has_score = any(explanation.has_score for explanation in explanations)
    score_note = "; for a score: lower and higher grades" if has_score else ""
    unit = "" if is_shared else ", as a share of the strongest evidence of each network"
    caption = f"evidence against the class of the map (cold) and for it (warm){unit}{score_note}"
    axes.set_title(caption, fontsize=7, loc="left", pad=2)
    return figure


def _draw_block(
    figure: Figure,
    corner: tuple[float, float],
    image: SelectedImage,
    explanations: Sequence[RunExplanation],
    index: int,
    scales: Mapping[str, float],
) -> None:
    """Draw an image and its heatmaps side by side, each with a caption above."""
    truth = "" if image.truth == UNKNOWN else f"\ntruth: {explanations[0].classes[image.truth]}"
    panels = [(explanations[0].maps.pixels[index], _shorten(image.id) + truth)]
    for explanation in explanations:
        predicted = int(explanation.predicted[index])
        prediction = f"{explanation.classes[predicted]} {explanation.probabilities[index, predicted]:.0%}"
        name = _shorten(explanation.name) if len(explanations) > 1 else "predicted"
        # The prediction stands above the first map of its network only.
        first_line = f"{name}: {prediction}"
        for map_name, evidence in explanation.select_maps(index, image.truth).items():
            heatmap = overlay_heatmap(explanation.maps.pixels[index], evidence, scales[explanation.name])
            panels.append((heatmap, f"{first_line}\n{_shorten(map_name)}: peak {evidence.max():.2f}"))
            first_line = ""
    width, height = figure.get_size_inches()
    left, bottom = corner
    for pixels, caption in panels:
        axes = figure.add_axes((left / width, bottom / height, _PANEL_SIZE / width, _PANEL_SIZE / height))
        axes.imshow(pixels, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(caption, fontsize=7, loc="left", pad=2)
        left += _PANEL_SIZE + _PANEL_GAP


def _shorten(name: str) -> str:
    """Return the last component of a path, its beginning cut off if it is too long for a caption."""
    last = PurePath(name).name or name
    return last if len(last) <= _MAX_NAME_LENGTH else f"…{last[1 - _MAX_NAME_LENGTH :]}"
