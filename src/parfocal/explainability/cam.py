"""Class activation maps: what each place of an image says for each class.

The head is linear and sees the mean over all places, so a logit is the mean of what the places say, plus a bias: the
map is the answer itself, taken apart, and not an estimate of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from parfocal.data.augment import eval_views
from parfocal.data.decode import Pixels, prepare_image
from parfocal.data.parallel import map_ordered
from parfocal.data.render import render_one
from parfocal.engine.device import to_channels_last
from parfocal.errors import ParfocalError, UnreadableImageError, UsageError, did_you_mean, join_limited
from parfocal.evaluation.locate import locate_table
from parfocal.explainability.gradcam import compute_gradcam_maps, compute_occlusion_maps
from parfocal.models.classifier import Classifier
from parfocal.progress import show_progress
from parfocal.recipe import Recipe
from parfocal.run import Run

Method = Literal["cam", "gradcam", "occlusion"]
METHODS: tuple[Method, ...] = ("cam", "gradcam", "occlusion")

SCORE = "score"
"""What the only map of a network is called that gives one score for all grades."""

_BATCH_SIZE = 32


@dataclass(frozen=True)
class ClassMaps:
    """What several images say for and against each answer of one network, and where.

    `answers` names the maps: the classes, or only `score` where the network gives one score, which counts towards the
    higher grades. `values` are (images, answers, rows, columns), `outputs` (images, answers) what the network's head
    said, `bias` (answers) its bias. Where they are `exact`, the mean of `values` over rows and columns plus the bias is
    `outputs`. `pixels` are what the network saw, (images, side, side, 3); `unreadable` are images that could not be
    read, with reasons.
    """

    names: tuple[str, ...]
    values: np.ndarray
    outputs: np.ndarray
    bias: np.ndarray
    pixels: Pixels
    exact: bool = True
    ids: tuple[str, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def subset(self, rows: Sequence[int]) -> "ClassMaps":
        """Return the maps of some of the images."""
        chosen = np.asarray(rows, dtype=int)
        ids = tuple(self.ids[row] for row in rows) if self.ids else ()
        parts = (self.values[chosen], self.outputs[chosen], self.bias, self.pixels[chosen])
        return ClassMaps(self.names, *parts, self.exact, ids, self.unreadable)

    @property
    def evidence(self) -> np.ndarray:
        """What speaks for each answer against the others, (images, answers, rows, columns): this is what to show.

        What a place says for all classes alike changes no probability, so the mean over the classes is taken away. A
        score has no others and stays as it is: above 0 is for higher grades, below for lower ones.
        """
        return self.values if self.names == (SCORE,) else self.values - self.values.mean(axis=1, keepdims=True)

    def for_labels(self, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the evidence for one class of each image, (images, rows, columns); of a score, its map."""
        rows = np.zeros(len(self), dtype=int) if self.names == (SCORE,) else np.asarray(labels, dtype=int)
        return self.evidence[np.arange(len(self)), rows]


@torch.inference_mode(False)
def compute_class_maps(classifier: Classifier, pixels: Pixels, method: str = "cam", stage: str = "") -> ClassMaps:
    """Return the maps of images as the network sees them: uint8, (images, side, side, 3).

    `cam` is exact and costs one pass. The others are second opinions: `gradcam` looks at any stage (`stage3` is finer
    than the last), `occlusion` at how much each answer falls when a part of the image is blurred.
    """
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}. {did_you_mean(method, METHODS)}")
    if stage and method != "gradcam":
        raise UsageError(f"stage={stage} is for gradcam; {method} has no choice of stage.")
    network = to_channels_last(classifier).eval()
    device = network.mean.device
    answers = classifier.classes if classifier.ordinal_head is None else (SCORE,)
    values: list[np.ndarray] = []
    outputs: list[np.ndarray] = []
    with show_progress("Explaining", len(pixels)) as done:
        for start in range(0, len(pixels), _BATCH_SIZE):
            batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + _BATCH_SIZE])).to(device)
            said, where = _compute_batch_maps(network, batch, method, stage)
            values.append(where.float().cpu().numpy())
            outputs.append(said.float().cpu().numpy())
            done(len(batch))
    bias = network.network.fc.bias.detach().float().cpu().numpy()
    empty = np.empty((0, len(answers)), np.float32)
    return ClassMaps(
        answers,
        np.concatenate(values) if values else empty[..., None, None],
        np.concatenate(outputs) if outputs else empty,
        bias,
        pixels,
        exact=method == "cam",
    )


def compute_split_maps(
    run: Run, ids: Sequence[str], split: str = "test", method: str = "cam", stage: str = ""
) -> ClassMaps:
    """Return the maps of some images of a run's split, read from their files as the run's network sees them.

    An unknown split or id is an error; images that cannot be read are left out and listed in `unreadable`.
    """
    classifier = Classifier.load(run.weights_path)
    pixels, kept, unreadable = load_eval_views(run.recipe, locate_images(run, split, ids))
    return replace(compute_class_maps(classifier, pixels, method, stage), ids=kept, unreadable=unreadable)


def locate_images(run: Run, split: str, ids: Sequence[str] | None = None) -> dict[str, Path]:
    """Return where images of a run's split lie, by id: those asked for in that order, or all."""
    table = locate_table(run)
    if split not in table.splits:
        raise UsageError(f"{run.name} has no split {split!r}. {did_you_mean(split, table.splits)}")
    rows = table.get_rows(split)
    places = {one: Path(path) for one, path in zip(rows["id"], rows["path"], strict=True)}
    if ids is None:
        return places
    missing = [one for one in ids if one not in places]
    if missing:
        like = f"They look like {next(iter(places))}."
        raise ParfocalError(f"{run.name} has no such ids in {split}: {join_limited(missing)}. {like}")
    return {one: places[one] for one in ids}


def load_eval_views(recipe: Recipe, files: dict[str, Path]) -> tuple[Pixels, tuple[str, ...], dict[str, str]]:
    """Return image files as a recipe's network sees them, straight, with their ids, and the unreadable with reasons."""
    views = eval_views(1, recipe.images.size, recipe.views)

    def look(one: str) -> Pixels | str:
        try:
            return render_one(prepare_image(files[one], recipe.images)[0], views, 0)
        except UnreadableImageError as reason:
            return str(reason)

    found = dict(zip(files, map_ordered(list(files), look, "Reading"), strict=True))
    good = {one: pixels for one, pixels in found.items() if not isinstance(pixels, str)}
    side = recipe.views.crop_size
    pixels = np.stack(list(good.values())) if good else np.empty((0, side, side, 3), np.uint8)
    return pixels, tuple(good), {one: reason for one, reason in found.items() if isinstance(reason, str)}


def _compute_batch_maps(
    network: Classifier, pixels: torch.Tensor, method: str, stage: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the head says of a batch, and the maps of that."""
    if method == "gradcam":
        return compute_gradcam_maps(network, pixels, stage)
    if method == "occlusion":
        return compute_occlusion_maps(network, pixels)
    with torch.inference_mode():
        features = network.network.forward_features(network.normalize(pixels))
        head = network.network.fc
        where = torch.einsum("nfhw,af->nahw", features, head.weight)
        return where.mean(dim=(2, 3)) + head.bias, where
