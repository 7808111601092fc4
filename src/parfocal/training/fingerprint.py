"""The fingerprint of a data set and a device: the measurements that the recipe `auto` is planned from."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from parfocal.data.decode import read_image
from parfocal.data.layouts.medical import DR_GRADES
from parfocal.data.parallel import map_ordered
from parfocal.data.preprocess import find_disc
from parfocal.data.table import Table
from parfocal.engine.device import get_machine_memory
from parfocal.errors import ParfocalError, UnreadableImageError
from parfocal.groups import GroupKind
from parfocal.recipe_schema import ImagesConfig

Appearance = Literal["plain", "disc", "cell"]

_SAMPLE_SIZE = 96
# A JPEG may be decoded at a reduced scale whose sides are at least this long; the measurements need no more.
_SAMPLE_CONFIG = ImagesConfig(size=128)
_THUMBNAIL_SIDE = 64
_DARK_THRESHOLD = 24
# For systems that do not report their memory.
_DEFAULT_MEMORY_GIB = 8.0
# In fundus photographs a fifth to half of the image is black, in cut-out cells at least two thirds.
_MIN_DISC_LIT = 0.45
_MICROSCOPY_PATTERN = re.compile(
    r"smear|blood|leuk|lymph|wbc|blast|cell|histolog|patholog|microscop|tissue|stain", re.IGNORECASE
)
_SEVERITY_NAMES = (("none", "no", "normal", "healthy", "no dr"), ("minimal", "very mild"), ("mild",), ("moderate",),
             ("severe",), ("proliferative", "very severe", "critical"))  # fmt: skip
_NUMBERED_GRADE_PATTERN = re.compile(r"(grade|stage|level|score)[ _-]*\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Fingerprint:
    """The measurements of a data set and a device.

    `class_counts` are the training images of each class; `width` and `height` are the median size of a sample.
    `appearance` says what the sample shows on black, a fundus disc or a cut-out cell, or `plain`. `disc_area` is the
    share of the image that the bounding box of the disc covers. `content_extent` is the share of the side, around the
    center, that contains everything that is not black in 95 % of the images. `ordinal_reason` and `rotation_reason` say
    why the classes are ordered and why the images have no fixed orientation; they are empty otherwise. `n_evaluated` is
    the number of validation and test images.
    """

    class_counts: tuple[int, ...]
    n_groups: int
    width: int
    height: int
    appearance: Appearance = "plain"
    disc_area: float = 1.0
    groups_are: GroupKind = "images"
    content_extent: float = 1.0
    ordinal_reason: str = ""
    rotation_reason: str = ""
    n_evaluated: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    memory_gib: float = _DEFAULT_MEMORY_GIB

    @property
    def n_images(self) -> int:
        """The number of labeled training images."""
        return sum(self.class_counts)

    @property
    def short_side(self) -> int:
        """The shorter side of the images."""
        return min(self.width, self.height)

    def describe(self) -> str:
        """Describe the data set and the device in a line."""
        groups = f" of {self.n_groups:,} {self.groups_are}" if self.n_groups < self.n_images else ""
        appearance = {"plain": "", "disc": ", discs on black", "cell": ", cells on black"}[self.appearance]
        counts = ", ".join(f"{count:,}" for count in self.class_counts)
        device = "a GPU" if self.device == "cuda" else "a CPU"
        return (
            f"{self.n_images:,} training images{groups}, {self.width}×{self.height}{appearance}; "
            f"{len(self.class_counts)} {'grades' if self.ordinal_reason else 'classes'} ({counts}); "
            f"{device} with {self.memory_gib:.0f} GiB"
        )


def compute_fingerprint(table: Table) -> Fingerprint:
    """Measure a table with splits, a sample of its training images, and the device."""
    if not (table.get_labels("train") >= 0).any():
        raise ParfocalError(f"{table.source} has no labeled training images.")
    train = table.rows.iloc[table.get_positions("train")]
    sample = train.iloc[np.unique(np.linspace(0, len(train) - 1, _SAMPLE_SIZE).astype(int))]
    measured = map_ordered(list(sample["path"]), _measure_image, "Measuring images")
    stats = [image_stats for image_stats in measured if image_stats is not None]
    if not stats:
        raise ParfocalError(f"None of the {len(sample)} sampled images of {table.source} can be read.")
    widths, heights, lit_shares, lit_extents, disc_areas, have_dark_corners = np.array(stats).T
    appearance: Appearance = "plain"
    content_extent = 1.0
    if have_dark_corners.mean() > 0.5:
        appearance = "disc" if np.median(lit_shares) > _MIN_DISC_LIT else "cell"
    if appearance == "cell":
        content_extent = min(1.0, float(np.quantile(lit_extents, 0.95)))
    rotation_reason = ""
    match = next(filter(None, map(_MICROSCOPY_PATTERN.search, (*table.classes, *sample["id"]))), None)
    if appearance != "plain":
        rotation_reason = "the content is round, in the middle of a black image"
    elif match:
        rotation_reason = f"{match[0]!r} in the names suggests microscope images"
    return Fingerprint(
        class_counts=tuple(table.count_classes("train").values()),
        n_groups=int(train["group"].nunique()),
        groups_are=table.groups_are,
        width=int(np.median(widths)),
        height=int(np.median(heights)),
        appearance=appearance,
        disc_area=float(np.median(disc_areas)),
        content_extent=round(content_extent, 2),
        ordinal_reason=_find_ordinal_reason(table, appearance),
        rotation_reason=rotation_reason,
        n_evaluated=len(table.get_positions("valid")) + len(table.get_positions("test")),
        device="cuda" if torch.cuda.is_available() else "cpu",
        memory_gib=_get_device_memory_gib(),
    )


def _measure_image(path: str) -> tuple[int, int, float, float, float, bool] | None:
    """Return width, height, the share of lit pixels, how far they reach, the disc's area, and if corners are dark."""
    try:
        image, metadata = read_image(Path(path), _SAMPLE_CONFIG)
    except UnreadableImageError:
        return None
    thumbnail = cv2.resize(image, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA).max(axis=2)
    is_lit = thumbnail > _DARK_THRESHOLD
    rows, columns = np.nonzero(is_lit)
    center = (_THUMBNAIL_SIDE - 1) / 2
    reach = max(np.abs(rows - center).max(initial=0), np.abs(columns - center).max(initial=0))
    edge = _THUMBNAIL_SIDE // 16
    ends = (slice(edge), slice(-edge, None))
    corners = [thumbnail[vertical, horizontal] for vertical in ends for horizontal in ends]
    top, bottom, left, right = find_disc(image)
    return (
        metadata.width,
        metadata.height,
        float(is_lit.mean()),
        float(reach + 0.5) / (_THUMBNAIL_SIDE / 2),
        (bottom - top) * (right - left) / (image.shape[0] * image.shape[1]),
        all(corner.mean() < _DARK_THRESHOLD for corner in corners),
    )


def _find_ordinal_reason(table: Table, appearance: Appearance) -> str:
    """Return why the classes are ordered, or an empty string."""
    names = [name.strip().lower() for name in table.classes]
    if len(names) < 3:
        return ""
    severities = [
        next((severity for severity, synonyms in enumerate(_SEVERITY_NAMES) if name in synonyms), -1) for name in names
    ]
    is_ascending = -1 not in severities and all(lower < higher for lower, higher in pairwise(severities))
    if tuple(table.classes) == DR_GRADES or is_ascending:
        return f"the class names are grades, from {names[0]} to {names[-1]}"
    if all(_NUMBERED_GRADE_PATTERN.fullmatch(name) for name in names):
        return f"the class names are numbered, from {names[0]} to {names[-1]}"
    if appearance == "disc" and list(table.codes) == [str(code) for code in range(len(names))]:
        return f"the codes are 0 to {len(names) - 1}, and the images show fundus discs"
    return ""


def _get_device_memory_gib() -> float:
    """Return the memory of the GPU, or else of the machine, in GiB."""
    has_gpu = torch.cuda.is_available()
    memory = torch.cuda.get_device_properties(0).total_memory if has_gpu else get_machine_memory()
    return round(memory / 2**30, 1) if memory else _DEFAULT_MEMORY_GIB
