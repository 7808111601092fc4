"""Synthetic fundus photographs: black border, optic disc, vessel tree, macula, and the lesions of each grade.

Grade 1 has only microaneurysms; grade 2 has more of them, with some hemorrhages and exudates; grade 3 has hemorrhages
in all quadrants; grade 4 also has new vessels. All eyes may have harmless distractors, so that a bright or dark spot
alone does not prove a lesion.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from parfocal.data.decode import Pixels

MICROANEURYSM, HEMORRHAGE, EXUDATE, NEW_VESSEL = 1, 2, 3, 4
"""Values of a lesion mask; 0 is no lesion."""

LESION_NAMES = {MICROANEURYSM: "microaneurysm", HEMORRHAGE: "hemorrhage", EXUDATE: "exudate", NEW_VESSEL: "new vessel"}
"""The names of the values of a lesion mask."""

# Lowest and highest number of (microaneurysms, hemorrhages, exudate clusters, tangles of new vessels) by grade.
_LESION_COUNTS = {
    0: ((0, 0), (0, 0), (0, 0), (0, 0)),
    1: ((2, 6), (0, 0), (0, 0), (0, 0)),
    2: ((6, 14), (2, 6), (1, 4), (0, 0)),
    3: ((12, 26), (16, 28), (2, 6), (0, 0)),
    4: ((6, 18), (5, 14), (1, 4), (1, 4)),
}


@dataclass(frozen=True)
class Eye:
    """What both eyes of a patient have in common: the color of the retina, and how wide and wavy the vessels are."""

    retina_color: np.ndarray
    vessel_width: float
    waviness: float


@dataclass(frozen=True)
class _Field:
    """Positions in a photograph, in pixels; `temporal_sign` is +1 if the macula is to the right of the optic disc."""

    width: int
    height: int
    center: np.ndarray
    radius: float
    disc: np.ndarray
    disc_radius: float
    macula: np.ndarray
    temporal_sign: int


def draw_eye(rng: np.random.Generator) -> Eye:
    """Draw what both eyes of a patient have in common."""
    color = np.array([176, 90, 46]) * rng.normal(1, (0.05, 0.10, 0.16), 3)
    return Eye(np.clip(color, 20, 235), float(rng.uniform(0.8, 1.25)), float(rng.uniform(0.6, 1.4)))


def draw_fundus(eye: Eye, is_left: bool, grade: int, size: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Draw a left or right eye as RGB pixels about `size` wide, and the mask of its lesions."""
    field = _draw_field(is_left, size, rng)
    mask = np.zeros((field.height, field.width), np.uint8)
    vessels, bright, dark = np.zeros((3, field.height, field.width), np.float32)
    _draw_vessel_tree(vessels, eye, field, rng)
    counts = [int(rng.integers(low, high + 1)) for low, high in _LESION_COUNTS[grade]]
    for _ in range(counts[0]):
        radius = field.radius * rng.uniform(0.006, 0.010)
        _draw_blob(dark, mask, _draw_point(field, rng, 0.75), (radius, radius), 0, MICROANEURYSM)
    _draw_hemorrhages(dark, mask, field, counts[1], grade, rng)
    _draw_exudates(bright, mask, field, counts[2], rng)
    _draw_new_vessels(vessels, mask, field, counts[3], rng)
    _draw_distractors(bright, dark, field, rng)
    image = _draw_retina(eye, field, rng)
    for layer, color in (
        (vessels, (0.62, 0.40, 0.42)),
        (dark, (0.55, 0.28, 0.30)),
        (bright, (1.32, 1.85, 2.1)),
    ):
        strength = np.clip(cv2.GaussianBlur(layer, (0, 0), 0.0008 * field.width), 0, 1)[..., None]
        image *= 1 + strength * (np.array(color, np.float32) - 1)
    return _add_camera_effects(image, field, rng), _mask_outside_circle(mask, field)


def _draw_field(is_left: bool, size: int, rng: np.random.Generator) -> _Field:
    """Draw resolution, aspect ratio and positions; the circle is complete, or cut off at the top and the bottom."""
    width = int(size * rng.uniform(0.6, 1.4))
    height = int(width / rng.choice([1.03, 4 / 3, 1.5]))
    radius = min(width * 0.49, height * rng.choice([0.48, 0.56, 0.62]))
    center = np.array([width / 2, height / 2]) + rng.normal(0, 0.008 * width, 2)
    sign = -1 if is_left else 1
    disc = center + radius * np.array([-sign * rng.uniform(0.42, 0.58), rng.normal(0, 0.05)])
    disc_radius = radius * rng.uniform(0.125, 0.16)
    macula = disc + np.array([sign * disc_radius * rng.uniform(4.6, 5.3), disc_radius * rng.uniform(0.1, 0.7)])
    return _Field(width, height, center, radius, disc, disc_radius, macula, sign)


def _draw_retina(eye: Eye, field: _Field, rng: np.random.Generator) -> Pixels:
    """Draw retina, choroid, macula, disc and uneven light, at a quarter of the size because all of them are smooth."""
    y, x = np.mgrid[0 : field.height : 4, 0 : field.width : 4].astype(np.float32)
    distance = np.hypot(x - field.center[0], y - field.center[1]) / field.radius
    light = 1.12 - rng.uniform(0.25, 0.5) * distance**2
    light *= 1 + 0.12 * rng.normal() * (x - field.center[0]) / field.radius
    mottle = cv2.GaussianBlur(rng.standard_normal(x.shape, dtype=np.float32), (0, 0), 0.02 * x.shape[1])
    light *= 1 + 0.035 * mottle / mottle.std()
    image = (light[..., None] * eye.retina_color).astype(np.float32)
    macula = np.exp(-((np.hypot(x - field.macula[0], y - field.macula[1]) / (1.5 * field.disc_radius)) ** 2))
    image *= 1 - macula[..., None] * np.array([0.30, 0.38, 0.30], np.float32)
    disc_distance = np.hypot((x - field.disc[0]) / 0.92, y - field.disc[1]) / field.disc_radius
    disc = 1 / (1 + np.exp((disc_distance - 1) / 0.07))
    cup = 1 / (1 + np.exp((disc_distance - rng.uniform(0.3, 0.55)) / 0.1))
    pale = np.array([245, 205, 130], np.float32) * float(rng.normal(1, 0.05))
    image += (disc * 0.80)[..., None] * (pale - image) + (cup * 26)[..., None]
    return cv2.resize(image, (field.width, field.height), interpolation=cv2.INTER_LINEAR)


def _draw_vessel_tree(layer: Pixels, eye: Eye, field: _Field, rng: np.random.Generator) -> None:
    """Draw arteries and veins that start at the disc: arcades that bend around the macula, and nasal branches."""
    width = 0.020 * field.radius * eye.vessel_width
    for vein in (True, False):
        for up in (-1, 1):
            temporal = math.atan2(up * rng.uniform(1.1, 1.7), field.temporal_sign * 0.5)
            nasal = math.atan2(up * rng.uniform(0.7, 1.4), -field.temporal_sign)
            bend = -field.temporal_sign * up * rng.uniform(0.85, 1.15)
            strength = 0.85 if vein else 0.6
            size = width * (1.25 if vein else 0.9)
            start = field.disc + rng.normal(0, 0.15 * field.disc_radius, 2)
            _draw_vessel(layer, start, temporal, bend, size, strength, eye, field, rng, depth=0)
            _draw_vessel(layer, start, nasal, -0.3 * bend, 0.7 * size, strength, eye, field, rng, depth=1)


def _draw_vessel(
    layer: Pixels,
    start: np.ndarray,
    direction: float,
    bend: float,
    width: float,
    strength: float,
    eye: Eye,
    field: _Field,
    rng: np.random.Generator,
    depth: int,
) -> None:
    """Draw a vessel step by step, with branches; it becomes thinner on its way."""
    step = 0.035 * field.radius
    length = int((44, 26, 15, 9)[depth] * rng.uniform(0.8, 1.1))
    point = start
    side = 1
    for step_number in range(length):
        direction += bend * step / field.radius + rng.normal(0, 0.07 * eye.waviness)
        next_point = point + step * np.array([math.cos(direction), math.sin(direction)])
        _draw_stroke(layer, point, next_point, max(1.0, width), strength)
        is_outside = np.hypot(*(next_point - field.center)) > 1.02 * field.radius
        if is_outside or np.hypot(*(next_point - field.macula)) < 1.3 * field.disc_radius:
            return
        if depth < 3 and step_number > 1 and rng.random() < 0.16:
            side = -side
            branch = direction + side * rng.uniform(0.5, 0.9)
            _draw_vessel(layer, next_point, branch, -0.3 * side, 0.62 * width, strength, eye, field, rng, depth + 1)
            width *= 0.92
        width *= 0.985
        point = next_point


def _draw_stroke(layer: Pixels, start: np.ndarray, end: np.ndarray, width: float, strength: float) -> None:
    """Draw a line with a precision of 1/8 pixel; a thin line is fainter instead of thinner."""
    ends = [(round(8 * point[0]), round(8 * point[1])) for point in (start, end)]
    intensity = strength * min(1.0, 0.45 + width / 4)
    cv2.line(layer, ends[0], ends[1], intensity, max(1, round(width)), cv2.LINE_AA, 3)


def _draw_point(field: _Field, rng: np.random.Generator, reach: float = 0.9) -> np.ndarray:
    """Draw a point of the retina that is in the image and outside the disc."""
    while True:
        angle = rng.uniform(0, 2 * math.pi)
        distance = field.radius * reach * math.sqrt(rng.uniform(0, 1))
        point = field.center + distance * np.array([math.cos(angle), math.sin(angle)])
        in_image = 4 < point[0] < field.width - 5 and 4 < point[1] < field.height - 5
        if in_image and np.hypot(*(point - field.disc)) > 1.4 * field.disc_radius:
            return point


def _draw_blob(
    layer: Pixels, mask: Pixels | None, point: np.ndarray, axes: tuple[float, float], angle: float, lesion: int = 0
) -> None:
    """Draw an ellipse, and mark the lesion in the mask if there is any."""
    center = (int(point[0]), int(point[1]))
    size = (max(1, round(axes[0])), max(1, round(axes[1])))
    cv2.ellipse(layer, center, size, angle, 0, 360, 1.0, -1, cv2.LINE_AA)
    if mask is not None:
        cv2.ellipse(mask, center, size, angle, 0, 360, lesion, -1)


def _draw_hemorrhages(
    dark: Pixels, mask: Pixels, field: _Field, count: int, grade: int, rng: np.random.Generator
) -> None:
    """Draw blots of a few overlapping ellipses; in grade 3 the quadrants take turns."""
    for index in range(count):
        point = _draw_point(field, rng, 0.8)
        while grade == 3 and np.dot(point > field.center, (1, 2)) != index % 4:
            point = _draw_point(field, rng, 0.8)
        size = field.radius * rng.uniform(0.014, 0.038)
        for _ in range(int(rng.integers(2, 5))):
            near = np.clip(point + rng.normal(0, 0.6 * size, 2), 1, (field.width - 2, field.height - 2))
            _draw_blob(dark, mask, near, (size, size * rng.uniform(0.4, 0.9)), rng.uniform(0, 180), HEMORRHAGE)


def _draw_exudates(bright: Pixels, mask: Pixels, field: _Field, count: int, rng: np.random.Generator) -> None:
    """Draw clusters of small bright spots with sharp edges."""
    for _ in range(count):
        center = _draw_point(field, rng, 0.65)
        for _ in range(int(rng.integers(5, 16))):
            point = np.clip(center + rng.normal(0, 0.05 * field.radius, 2), 1, (field.width - 2, field.height - 2))
            size = field.radius * rng.uniform(0.005, 0.014)
            _draw_blob(bright, mask, point, (size, size * rng.uniform(0.6, 1)), rng.uniform(0, 180), EXUDATE)


def _draw_new_vessels(vessels: Pixels, mask: Pixels, field: _Field, count: int, rng: np.random.Generator) -> None:
    """Draw tangles of thin looping vessels: the first at the border of the disc, the others anywhere."""
    width = max(1.0, 0.0045 * field.radius)
    for index in range(count):
        angle = rng.uniform(0, 2 * math.pi)
        at_disc = field.disc + field.disc_radius * np.array([math.cos(angle), math.sin(angle)])
        root = at_disc if index == 0 else _draw_point(field, rng, 0.7)
        for _ in range(int(rng.integers(7, 13))):
            point = root
            direction = rng.uniform(0, 2 * math.pi)
            bend = rng.normal(0, 0.28)
            for _ in range(int(rng.integers(14, 30))):
                direction += bend + rng.normal(0, 0.22)
                next_point = point + 0.016 * field.radius * np.array([math.cos(direction), math.sin(direction)])
                _draw_stroke(vessels, point, next_point, width, 0.95)
                ends = [(round(x), round(y)) for x, y in (point, next_point)]
                cv2.line(mask, ends[0], ends[1], NEW_VESSEL, max(1, round(width)))
                point = next_point


def _draw_distractors(bright: Pixels, dark: Pixels, field: _Field, rng: np.random.Generator) -> None:
    """Draw what any eye may show: faint drusen, dust on the lens, a crescent-shaped reflection."""
    drusen = np.zeros_like(bright)
    dust = np.zeros_like(dark)
    reflection = np.zeros_like(bright)
    for _ in range(int(rng.integers(0, 8))):
        size = field.radius * rng.uniform(0.006, 0.012)
        _draw_blob(drusen, None, _draw_point(field, rng, 0.5), (size, size), 0)
    for _ in range(int(rng.integers(0, 4))):
        size = field.radius * rng.uniform(0.006, 0.014)
        _draw_blob(dust, None, _draw_point(field, rng), (size, size), 0)
    bright += 0.22 * drusen
    dark += 0.30 * dust
    if rng.random() < 0.2:
        angle = float(rng.uniform(0, 360))
        center = (int(field.center[0]), int(field.center[1]))
        axes = (int(0.93 * field.radius),) * 2
        cv2.ellipse(reflection, center, axes, angle, 0, 50, 1.0, max(2, int(0.05 * field.radius)))
        bright += 0.25 * cv2.blur(reflection, (int(0.08 * field.radius) + 1,) * 2)


def _add_camera_effects(image: Pixels, field: _Field, rng: np.random.Generator) -> Pixels:
    """Add exposure, blur, noise and the black border of the camera."""
    image *= float(np.clip(rng.normal(1, 0.10), 0.7, 1.25))
    exposed = np.clip(image, 0, 255).astype(np.uint8)
    exposed = cv2.GaussianBlur(exposed, (0, 0), float(rng.uniform(0.0004, 0.0016)) * field.width + 0.3)
    noise = np.empty((*exposed.shape[:2], 3), np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, np.zeros(3), np.full(3, rng.uniform(1, 4)))
    return _mask_outside_circle(cv2.add(exposed, noise, dtype=cv2.CV_8U), field)


def _mask_outside_circle(image: Pixels, field: _Field) -> Pixels:
    """Make everything outside the circle of the camera black."""
    circle = np.zeros(image.shape[:2], np.uint8)
    center = (int(field.center[0]), int(field.center[1]))
    cv2.circle(circle, center, int(field.radius), 255, -1)
    return cv2.bitwise_and(image, image, mask=circle)
