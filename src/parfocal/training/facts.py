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

from parfocal.data.decode import Pixels, Unreadable, read_picture
from parfocal.data.framing import disc
from parfocal.data.layouts.classes import GRADES
from parfocal.data.passes import in_order
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.model.starts import PUBLISHED, at_hand
from parfocal.parts import ImagesPart

Look = Literal["plain", "disc", "cell"]

_SAMPLE = 96
# A JPEG may be decoded at a reduced scale that still has this side; what is measured needs no more.
_SEEN = ImagesPart(size=128)
_SMALL = 64
_DARK = 24
# Where the system does not tell, in GiB.
_LIKELY_MEMORY = 8.0
# Fundus photographs leave between a fifth and a half of the picture black, cut-out cells at least two thirds.
_DISC_FROM = 0.45
_MICROSCOPY = re.compile(
    r"smear|blood|leuk|lymph|wbc|blast|cell|histolog|patholog|microscop|tissue|stain", re.IGNORECASE
)
_SEVERITY = (("none", "no", "normal", "healthy", "no dr"), ("minimal", "very mild"), ("mild",), ("moderate",),
             ("severe",), ("proliferative", "very severe", "critical"))  # fmt: skip
_NUMBERED = re.compile(r"(grade|stage|level|score)[ _-]*\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Facts:
    """What a plan hangs on.

    `counts` is how many images of each class train has, `width` and `height` the middle size of a sample of images.
    `look` is what the sample shows: a fundus disc or a cut-out cell on black, or neither. `box` is the share of the
    picture that the disc's box takes, `spread` the share of the side, about the centre, that holds what is not black
    in 95 % of the images. `grades` and `turned` say why the classes are ordered, and why images have no up, or nothing.
    `memory` is that of the device in GiB, `published` names the networks whose ImageNet weights are at hand.
    """

    counts: tuple[int, ...]
    groups: int
    width: int
    height: int
    look: Look = "plain"
    box: float = 1.0
    spread: float = 1.0
    grades: str = ""
    turned: str = ""
    device: Literal["cpu", "cuda"] = "cpu"
    memory: float = _LIKELY_MEMORY
    published: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """How many labelled images train has."""
        return sum(self.counts)

    @property
    def side(self) -> int:
        """The shorter side of the images."""
        return min(self.width, self.height)

    def line(self) -> str:
        """Say the facts in one line."""
        of = f" of {self.groups:,} patients or groups" if self.groups < self.images else ""
        shown = {"plain": "", "disc": ", discs on black", "cell": ", cells on black"}[self.look]
        counts = ", ".join(f"{count:,}" for count in self.counts)
        where = "a graphics card" if self.device == "cuda" else "a CPU"
        return (
            f"{self.images:,} images{of} to train on, {self.width}×{self.height}{shown}; "
            f"{len(self.counts)} {'grades' if self.grades else 'classes'} ({counts}); "
            f"{where} with {self.memory:.0f} GiB"
        )


def measured(table: Table) -> Facts:
    """Measure a table with splits, a sample of its training images, and the device."""
    labels, train = table.labels("train"), table.rows.iloc[table.positions("train")]
    if not (labels >= 0).any():
        raise ParfocalError(f"{table.source} has no labelled images to train on.")
    paths = train["path"].to_numpy()
    chosen = np.unique(np.linspace(0, len(paths) - 1, _SAMPLE).astype(int))
    seen = [one for one in in_order(list(paths[chosen]), _look, "Looking") if one is not None]
    if not seen:
        raise ParfocalError(f"None of the {len(chosen)} images of {table.source} that were tried can be read.")
    sizes, lit, reach, box, dark = (np.array(one) for one in zip(*seen, strict=True))
    look: Look = "plain"
    if dark.mean() > 0.5:
        look = "disc" if np.median(lit) > _DISC_FROM else "cell"
    spread = float(np.quantile(reach, 0.95)) if look == "cell" else 1.0
    width, height = np.median(sizes, axis=0)
    memory, device = _memory()
    return Facts(
        counts=tuple(table.counts("train").values()),
        groups=int(train["group"].nunique()),
        width=int(width),
        height=int(height),
        look=look,
        box=float(np.median(box)),
        spread=round(min(1.0, spread), 2),
        grades=_grades(table, look),
        turned=_turned(table, look, list(train["id"].iloc[chosen])),
        device=device,
        memory=memory,
        published=tuple(model for model in PUBLISHED["imagenet"] if at_hand("imagenet", model)),
    )


def _look(path: str) -> tuple[tuple[int, int], float, float, float, bool] | None:
    """Return an image's size, what share is lit and how far that reaches, its box's share, and if corners are dark."""
    try:
        picture, facts = read_picture(Path(path), _SEEN)
    except Unreadable:
        return None
    small = cv2.resize(picture, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA).max(axis=2)
    lit = small > _DARK
    down, across = np.nonzero(lit)
    middle = (_SMALL - 1) / 2
    far = max(np.abs(down - middle).max(initial=0), np.abs(across - middle).max(initial=0))
    edge = _SMALL // 16
    corners = [small[rows, columns] for rows in (slice(edge), slice(-edge, None))
               for columns in (slice(edge), slice(-edge, None))]  # fmt: skip
    dark = all(corner.mean() < _DARK for corner in corners)
    return (facts.width, facts.height), float(lit.mean()), float(far + 0.5) / (_SMALL / 2), _box(picture), dark


def _box(picture: Pixels) -> float:
    top, bottom, left, right = disc(picture)
    return (bottom - top) * (right - left) / (picture.shape[0] * picture.shape[1])


def _grades(table: Table, look: Look) -> str:
    """Say why the classes are ordered, or nothing."""
    names = [name.strip().lower() for name in table.classes]
    if len(names) < 3:
        return ""
    if tuple(table.classes) == GRADES or _ascending(names):
        return f"the classes are called {names[0]} to {names[-1]}"
    if all(_NUMBERED.fullmatch(name) for name in names):
        return f"the classes are numbered {names[0]} to {names[-1]}"
    if look == "disc" and list(table.codes) == [str(number) for number in range(len(names))]:
        return f"the codes are 0 to {len(names) - 1}, and the images show fundus discs"
    return ""


def _ascending(names: Sequence[str]) -> bool:
    places = [next((place for place, words in enumerate(_SEVERITY) if name in words), -1) for name in names]
    return -1 not in places and all(one < other for one, other in pairwise(places))


def _turned(table: Table, look: Look, ids: Sequence[str]) -> str:
    """Say why images may be turned any way, or nothing."""
    if look != "plain":
        return "what is shown lies round in the middle of black"
    found = next((match for text in (*table.classes, *ids) if (match := _MICROSCOPY.search(text))), None)
    return f"{found[0]!r} in the names says that they are seen through a microscope" if found else ""


def _memory() -> tuple[float, Literal["cpu", "cuda"]]:
    if torch.cuda.is_available():
        return round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1), "cuda"
    if not hasattr(os, "sysconf"):
        return _LIKELY_MEMORY, "cpu"
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1), "cpu"
