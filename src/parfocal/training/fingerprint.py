"""What a plan hangs on, measured: how many images, how they look, whether their classes are grades, and the device."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from parfocal.data.decode import Pixels, read_image
from parfocal.data.layouts.classes import DR_GRADES
from parfocal.data.parallel import map_ordered
from parfocal.data.preprocess import find_disc
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.models.pretrained import PRETRAINED_HASHES, is_cached
from parfocal.schema import ImagesConfig

Appearance = Literal["plain", "disc", "cell"]

_SAMPLE_SIZE = 96
# A JPEG may be decoded at a reduced scale that still has this side; what is measured needs no more.
_SAMPLE_CONFIG = ImagesConfig(size=128)
_THUMBNAIL_SIDE = 64
_DARK_THRESHOLD = 24
# Where the system does not tell, in GiB.
_DEFAULT_MEMORY_GIB = 8.0
# Fundus photographs leave between a fifth and a half of the picture black, cut-out cells at least two thirds.
_MIN_DISC_LIT = 0.45
_MICROSCOPY_PATTERN = re.compile(
    r"smear|blood|leuk|lymph|wbc|blast|cell|histolog|patholog|microscop|tissue|stain", re.IGNORECASE
)
_SEVERITY_NAMES = (("none", "no", "normal", "healthy", "no dr"), ("minimal", "very mild"), ("mild",), ("moderate",),
             ("severe",), ("proliferative", "very severe", "critical"))  # fmt: skip
_NUMBERED_GRADE_PATTERN = re.compile(r"(grade|stage|level|score)[ _-]*\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Fingerprint:
    """What a plan hangs on.

    `counts` is how many images of each class train has, `width` and `height` the middle size of a sample of images.
    `look` is what the sample shows: a fundus disc or a cut-out cell on black, or neither. `box` is the share of the
    picture that the disc's box takes, `spread` the share of the side, about the centre, that holds what is not black
    in 95 % of the images. `grades` and `turned` say why the classes are ordered, and why images have no up, or nothing.
    `memory` is that of the device in GiB, `published` names the networks whose ImageNet weights are at hand.
    """

    class_counts: tuple[int, ...]
    n_groups: int
    width: int
    height: int
    appearance: Appearance = "plain"
    disc_area: float = 1.0
    content_extent: float = 1.0
    ordinal_reason: str = ""
    rotation_reason: str = ""
    device: Literal["cpu", "cuda"] = "cpu"
    memory_gib: float = _DEFAULT_MEMORY_GIB
    cached_networks: tuple[str, ...] = ()

    @property
    def n_images(self) -> int:
        """How many labelled images train has."""
        return sum(self.class_counts)

    @property
    def short_side(self) -> int:
        """The shorter side of the images."""
        return min(self.width, self.height)

    def describe(self) -> str:
        """Say the facts in one line."""
        of = f" of {self.n_groups:,} patients or groups" if self.n_groups < self.n_images else ""
        shown = {"plain": "", "disc": ", discs on black", "cell": ", cells on black"}[self.appearance]
        counts = ", ".join(f"{count:,}" for count in self.class_counts)
        where = "a graphics card" if self.device == "cuda" else "a CPU"
        return (
            f"{self.n_images:,} images{of} to train on, {self.width}×{self.height}{shown}; "
            f"{len(self.class_counts)} {'grades' if self.ordinal_reason else 'classes'} ({counts}); "
            f"{where} with {self.memory_gib:.0f} GiB"
        )


def compute_fingerprint(table: Table) -> Fingerprint:
    """Measure a table with splits, a sample of its training images, and the device."""
    labels, train = table.get_labels("train"), table.rows.iloc[table.get_positions("train")]
    if not (labels >= 0).any():
        raise ParfocalError(f"{table.source} has no labelled images to train on.")
    paths = train["path"].to_numpy()
    chosen = np.unique(np.linspace(0, len(paths) - 1, _SAMPLE_SIZE).astype(int))
    seen = [one for one in map_ordered(list(paths[chosen]), _measure_image, "Looking") if one is not None]
    if not seen:
        raise ParfocalError(f"None of the {len(chosen)} images of {table.source} that were tried can be read.")
    sizes, lit, reach, box, dark = (np.array(one) for one in zip(*seen, strict=True))
    look: Appearance = "plain"
    if dark.mean() > 0.5:
        look = "disc" if np.median(lit) > _MIN_DISC_LIT else "cell"
    spread = float(np.quantile(reach, 0.95)) if look == "cell" else 1.0
    width, height = np.median(sizes, axis=0)
    memory, device = _device_memory()
    return Fingerprint(
        class_counts=tuple(table.count_classes("train").values()),
        n_groups=int(train["group"].nunique()),
        width=int(width),
        height=int(height),
        appearance=look,
        disc_area=float(np.median(box)),
        content_extent=round(min(1.0, spread), 2),
        ordinal_reason=_find_ordinal_reason(table, look),
        rotation_reason=_find_rotation_reason(table, look, list(train["id"].iloc[chosen])),
        device=device,
        memory_gib=memory,
        cached_networks=tuple(model for model in PRETRAINED_HASHES["imagenet"] if is_cached("imagenet", model)),
    )


def _measure_image(path: str) -> tuple[tuple[int, int], float, float, float, bool] | None:
    """Return an image's size, what share is lit and how far that reaches, its box's share, and if corners are dark."""
    try:
        picture, facts = read_image(Path(path), _SAMPLE_CONFIG)
    except UnreadableImageError:
        return None
    small = cv2.resize(picture, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA).max(axis=2)
    lit = small > _DARK_THRESHOLD
    down, across = np.nonzero(lit)
    middle = (_THUMBNAIL_SIDE - 1) / 2
    far = max(np.abs(down - middle).max(initial=0), np.abs(across - middle).max(initial=0))
    edge = _THUMBNAIL_SIDE // 16
    corners = [small[rows, columns] for rows in (slice(edge), slice(-edge, None))
               for columns in (slice(edge), slice(-edge, None))]  # fmt: skip
    dark = all(corner.mean() < _DARK_THRESHOLD for corner in corners)
    return (
        (facts.width, facts.height),
        float(lit.mean()),
        float(far + 0.5) / (_THUMBNAIL_SIDE / 2),
        _disc_area(picture),
        dark,
    )


def _disc_area(picture: Pixels) -> float:
    top, bottom, left, right = find_disc(picture)
    return (bottom - top) * (right - left) / (picture.shape[0] * picture.shape[1])


def _find_ordinal_reason(table: Table, appearance: Appearance) -> str:
    """Say why the classes are ordered, or nothing."""
    names = [name.strip().lower() for name in table.classes]
    if len(names) < 3:
        return ""
    if tuple(table.classes) == DR_GRADES or _is_ascending(names):
        return f"the classes are called {names[0]} to {names[-1]}"
    if all(_NUMBERED_GRADE_PATTERN.fullmatch(name) for name in names):
        return f"the classes are numbered {names[0]} to {names[-1]}"
    if appearance == "disc" and list(table.codes) == [str(number) for number in range(len(names))]:
        return f"the codes are 0 to {len(names) - 1}, and the images show fundus discs"
    return ""


def _is_ascending(names: Sequence[str]) -> bool:
    places = [next((place for place, words in enumerate(_SEVERITY_NAMES) if name in words), -1) for name in names]
    return -1 not in places and all(one < other for one, other in pairwise(places))


def _find_rotation_reason(table: Table, appearance: Appearance, ids: Sequence[str]) -> str:
    """Say why images may be turned any way, or nothing."""
    if appearance != "plain":
        return "what is shown lies round in the middle of black"
    found = next((match for text in (*table.classes, *ids) if (match := _MICROSCOPY_PATTERN.search(text))), None)
    return f"{found[0]!r} in the names says that they are seen through a microscope" if found else ""


def _device_memory() -> tuple[float, Literal["cpu", "cuda"]]:
    if torch.cuda.is_available():
        return round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1), "cuda"
    if not hasattr(os, "sysconf"):
        return _DEFAULT_MEMORY_GIB, "cpu"
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1), "cpu"
