"""Drawing one fundus photograph: black surround, optic disc, vessel tree, macula, and lesions by grade.

Grade 1 has microaneurysms only; 2 more of them, with some haemorrhages and exudates; 3 haemorrhages in all quadrants;
4 new vessels besides. Healthy eyes carry harmless distractors, so that a bright or a dark spot is no proof.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

Pixels = np.ndarray

MICROANEURYSM, HEMORRHAGE, EXUDATE, NEW_VESSEL = 1, 2, 3, 4
"""Values of a lesion mask; 0 is no lesion."""

LESION_NAMES = {
    MICROANEURYSM: "microaneurysm",
    HEMORRHAGE: "haemorrhage",
    EXUDATE: "exudate",
    NEW_VESSEL: "new vessel",
}
"""What each value of a lesion mask stands for."""

# Lowest and highest number of (microaneurysms, haemorrhages, exudate clusters, tangles of new vessels) by grade.
_LESION_COUNTS = {
    0: ((0, 0), (0, 0), (0, 0), (0, 0)),
    1: ((2, 6), (0, 0), (0, 0), (0, 0)),
    2: ((6, 14), (2, 6), (1, 4), (0, 0)),
    3: ((12, 26), (16, 28), (2, 6), (0, 0)),
    4: ((6, 18), (5, 14), (1, 4), (1, 4)),
}


@dataclass(frozen=True)
class Eye:
    """What the two eyes of a patient share: the colour of the ground, and how full and wavy the vessels are."""

    retina_color: np.ndarray
    vessel_width: float
    waviness: float


@dataclass(frozen=True)
class _Field:
    """Where things lie in one photograph, in pixels; `temporal` is +1 where the macula lies right of the disc."""

    width: int
    height: int
    center: np.ndarray
    radius: float
    disc: np.ndarray
    disc_radius: float
    macula: np.ndarray
    temporal_sign: int


def draw_eye(rng: np.random.Generator) -> Eye:
    """Draw what the eyes of a patient share."""
    ground = np.array([176, 90, 46]) * rng.normal(1, (0.05, 0.10, 0.16), 3)
    return Eye(np.clip(ground, 20, 235), float(rng.uniform(0.8, 1.25)), float(rng.uniform(0.6, 1.4)))


def draw_fundus(eye: Eye, is_left: bool, grade: int, size: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Draw a left or right eye as RGB pixels about `size` wide, and the mask of its lesions."""
    field = _draw_field(is_left, size, rng)
    ink, mask = np.zeros((3, field.height, field.width), np.float32), np.zeros((field.height, field.width), np.uint8)
    vessels, bright, dark = ink
    _draw_vessel_tree(vessels, eye, field, rng)
    counts = [int(rng.integers(low, high + 1)) for low, high in _LESION_COUNTS[grade]]
    _draw_microaneurysms(dark, mask, field, counts[0], rng)
    _draw_hemorrhages(dark, mask, field, counts[1], grade, rng)
    _draw_exudates(bright, mask, field, counts[2], rng)
    _draw_new_vessels(vessels, mask, field, counts[3], rng)
    _draw_distractors(bright, dark, field, rng)
    image = _draw_retina(eye, field, rng)
    soften = 0.0008 * field.width
    for layer, colour in (
        (vessels, np.array([0.62, 0.40, 0.42])),
        (dark, np.array([0.55, 0.28, 0.30])),
        (bright, np.array([1.32, 1.85, 2.1])),
    ):
        strength = np.clip(cv2.GaussianBlur(layer, (0, 0), soften), 0, 1)[..., None]
        image *= 1 + strength * (colour.astype(np.float32) - 1)
    return _add_camera_effects(image, field, rng), _mask_outside_circle(mask, field)


def _draw_field(is_left: bool, size: int, rng: np.random.Generator) -> _Field:
    """Choose resolution, aspect and position: the circle is whole, or cut off above and below."""
    width = int(size * rng.uniform(0.6, 1.4))
    height = int(width / rng.choice([1.03, 4 / 3, 1.5]))
    radius = min(width * 0.49, height * rng.choice([0.48, 0.56, 0.62]))
    centre = np.array([width / 2, height / 2]) + rng.normal(0, 0.008 * width, 2)
    temporal = -1 if is_left else 1
    disc = centre + radius * np.array([-temporal * rng.uniform(0.42, 0.58), rng.normal(0, 0.05)])
    disc_radius = radius * rng.uniform(0.125, 0.16)
    macula = disc + np.array([temporal * disc_radius * rng.uniform(4.6, 5.3), disc_radius * rng.uniform(0.1, 0.7)])
    return _Field(width, height, centre, radius, disc, disc_radius, macula, temporal)


def _draw_retina(eye: Eye, field: _Field, rng: np.random.Generator) -> Pixels:
    """Paint retina, choroid mottling, macula, disc and uneven light; drawn small, for all of it is smooth."""
    shrink = 4
    y, x = np.mgrid[0 : field.height : shrink, 0 : field.width : shrink].astype(np.float32)
    distance = np.hypot(x - field.center[0], y - field.center[1]) / field.radius
    light = 1.12 - rng.uniform(0.25, 0.5) * distance**2
    light *= 1 + 0.12 * rng.normal() * (x - field.center[0]) / field.radius
    mottle = cv2.GaussianBlur(rng.standard_normal(x.shape, dtype=np.float32), (0, 0), 0.02 * x.shape[1])
    light *= 1 + 0.035 * mottle / mottle.std()
    image = (light[..., None] * eye.retina_color).astype(np.float32)
    darker = np.exp(-((np.hypot(x - field.macula[0], y - field.macula[1]) / (1.5 * field.disc_radius)) ** 2))
    image *= 1 - darker[..., None] * np.array([0.30, 0.38, 0.30], np.float32)
    away = np.hypot((x - field.disc[0]) / 0.92, y - field.disc[1]) / field.disc_radius
    disc = 1 / (1 + np.exp((away - 1) / 0.07))
    cup = 1 / (1 + np.exp((away - rng.uniform(0.3, 0.55)) / 0.1))
    paler = np.array([245, 205, 130], np.float32) * float(rng.normal(1, 0.05))
    image += (disc * 0.80)[..., None] * (paler - image) + (cup * 26)[..., None]
    return cv2.resize(image, (field.width, field.height), interpolation=cv2.INTER_LINEAR)


def _draw_vessel_tree(layer: Pixels, eye: Eye, field: _Field, rng: np.random.Generator) -> None:
    """Draw arteries and veins from the disc: arcades that bend about the macula, and nasal branches."""
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
    """Draw one vessel step by step, thinner as it goes, and let branches leave it."""
    step = 0.035 * field.radius
    length = int((44, 26, 15, 9)[depth] * rng.uniform(0.8, 1.1))
    point, side = start, 1
    for number in range(length):
        direction += bend * step / field.radius + rng.normal(0, 0.07 * eye.waviness)
        following = point + step * np.array([math.cos(direction), math.sin(direction)])
        _draw_stroke(layer, point, following, max(1.0, width), strength)
        if np.hypot(*(following - field.center)) > 1.02 * field.radius:
            return
        if np.hypot(*(following - field.macula)) < 1.3 * field.disc_radius:
            return
        if depth < 3 and number > 1 and rng.random() < 0.16:
            side = -side
            turned = direction + side * rng.uniform(0.5, 0.9)
            _draw_vessel(layer, following, turned, -0.3 * side, 0.62 * width, strength, eye, field, rng, depth + 1)
            width *= 0.92
        width *= 0.985
        point = following


def _draw_stroke(layer: Pixels, start: np.ndarray, end: np.ndarray, width: float, strength: float) -> None:
    """Draw a line with eighth-pixel precision; a line thinner than two pixels is drawn fainter instead."""
    ends = [(round(8 * point[0]), round(8 * point[1])) for point in (start, end)]
    faint = strength * min(1.0, 0.45 + width / 4)
    cv2.line(layer, ends[0], ends[1], faint, max(1, round(width)), cv2.LINE_AA, 3)


def _draw_point(field: _Field, rng: np.random.Generator, reach: float = 0.9) -> np.ndarray:
    """Return a point of the retina that lies in the picture and off the disc."""
    while True:
        angle, distance = rng.uniform(0, 2 * math.pi), field.radius * reach * math.sqrt(rng.uniform(0, 1))
        point = field.center + distance * np.array([math.cos(angle), math.sin(angle)])
        on_picture = 4 < point[0] < field.width - 5 and 4 < point[1] < field.height - 5
        if on_picture and np.hypot(*(point - field.disc)) > 1.4 * field.disc_radius:
            return point


def _draw_blob(
    layer: Pixels, mask: Pixels, point: np.ndarray, axes: tuple[float, float], angle: float, lesion: int
) -> None:
    place = (int(point[0]), int(point[1]))
    size = (max(1, round(axes[0])), max(1, round(axes[1])))
    cv2.ellipse(layer, place, size, angle, 0, 360, 1.0, -1, cv2.LINE_AA)
    if lesion:
        cv2.ellipse(mask, place, size, angle, 0, 360, lesion, -1)


def _draw_microaneurysms(dark: Pixels, mask: Pixels, field: _Field, count: int, rng: np.random.Generator) -> None:
    for _ in range(count):
        size = field.radius * rng.uniform(0.006, 0.010)
        _draw_blob(dark, mask, _draw_point(field, rng, 0.75), (size, size), 0, MICROANEURYSM)


def _draw_hemorrhages(
    dark: Pixels, mask: Pixels, field: _Field, count: int, grade: int, rng: np.random.Generator
) -> None:
    """Draw blots of a few overlapping ellipses; in grade 3 dealt to the quadrants in turn."""
    for number in range(count):
        point = _draw_point(field, rng, 0.8)
        while grade == 3 and _quadrant(point, field) != number % 4:
            point = _draw_point(field, rng, 0.8)
        size = field.radius * rng.uniform(0.014, 0.038)
        for _ in range(int(rng.integers(2, 5))):
            near = np.clip(point + rng.normal(0, 0.6 * size, 2), 1, (field.width - 2, field.height - 2))
            _draw_blob(dark, mask, near, (size, size * rng.uniform(0.4, 0.9)), rng.uniform(0, 180), HEMORRHAGE)


def _quadrant(point: np.ndarray, field: _Field) -> int:
    return int(point[0] > field.center[0]) + 2 * int(point[1] > field.center[1])


def _draw_exudates(bright: Pixels, mask: Pixels, field: _Field, count: int, rng: np.random.Generator) -> None:
    """Draw clusters of small sharp-edged bright spots."""
    for _ in range(count):
        middle = _draw_point(field, rng, 0.65)
        for _ in range(int(rng.integers(5, 16))):
            point = middle + rng.normal(0, 0.05 * field.radius, 2)
            point = np.clip(point, 1, (field.width - 2, field.height - 2))
            size = field.radius * rng.uniform(0.005, 0.014)
            _draw_blob(bright, mask, point, (size, size * rng.uniform(0.6, 1)), rng.uniform(0, 180), EXUDATE)


def _draw_new_vessels(vessels: Pixels, mask: Pixels, field: _Field, count: int, rng: np.random.Generator) -> None:
    """Draw tangles of fine looping vessels, on the disc's rim or elsewhere."""
    for number in range(count):
        angle = rng.uniform(0, 2 * math.pi)
        at_disc = field.disc + field.disc_radius * np.array([math.cos(angle), math.sin(angle)])
        root = at_disc if number == 0 else _draw_point(field, rng, 0.7)
        for _ in range(int(rng.integers(7, 13))):
            point, heading, turn = root, rng.uniform(0, 2 * math.pi), rng.normal(0, 0.28)
            for _ in range(int(rng.integers(14, 30))):
                heading += turn + rng.normal(0, 0.22)
                following = point + 0.016 * field.radius * np.array([math.cos(heading), math.sin(heading)])
                width = max(1.0, 0.0045 * field.radius)
                _draw_stroke(vessels, point, following, width, 0.95)
                ends = [(round(p[0]), round(p[1])) for p in (point, following)]
                cv2.line(mask, ends[0], ends[1], NEW_VESSEL, max(1, round(width)))
                point = following


def _draw_distractors(bright: Pixels, dark: Pixels, field: _Field, rng: np.random.Generator) -> None:
    """Draw what any eye may show: faint drusen, dust on the lens, a crescent of reflected light."""
    none = np.zeros((1, 1), np.uint8)
    drusen, dust = np.zeros_like(bright), np.zeros_like(dark)
    for _ in range(int(rng.integers(0, 8))):
        size = field.radius * rng.uniform(0.006, 0.012)
        _draw_blob(drusen, none, _draw_point(field, rng, 0.5), (size, size), 0, 0)
    for _ in range(int(rng.integers(0, 4))):
        size = field.radius * rng.uniform(0.006, 0.014)
        _draw_blob(dust, none, _draw_point(field, rng), (size, size), 0, 0)
    bright += 0.22 * drusen
    dark += 0.30 * dust
    if rng.random() < 0.2:
        angle = float(rng.uniform(0, 360))
        centre = (int(field.center[0]), int(field.center[1]))
        shine = np.zeros_like(bright)
        cv2.ellipse(shine, centre, (int(0.93 * field.radius),) * 2, angle, 0, 50, 1.0, max(2, int(0.05 * field.radius)))
        bright += 0.25 * cv2.blur(shine, (int(0.08 * field.radius) + 1,) * 2)


def _add_camera_effects(image: Pixels, field: _Field, rng: np.random.Generator) -> Pixels:
    """Add the camera: exposure, blur, grain, and the black surround."""
    image *= float(np.clip(rng.normal(1, 0.10), 0.7, 1.25))
    exposed = np.clip(image, 0, 255).astype(np.uint8)
    exposed = cv2.GaussianBlur(exposed, (0, 0), float(rng.uniform(0.0004, 0.0016)) * field.width + 0.3)
    grain = np.empty((*exposed.shape[:2], 3), np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(grain, np.zeros(3), np.full(3, rng.uniform(1, 4)))
    return _mask_outside_circle(cv2.add(exposed, grain, dtype=cv2.CV_8U), field)


def _mask_outside_circle(image: Pixels, field: _Field) -> Pixels:
    """Blacken what lies outside the camera's circle."""
    circle = np.zeros(image.shape[:2], np.uint8)
    centre = (int(field.center[0]), int(field.center[1]))
    cv2.circle(circle, centre, int(field.radius), 255, -1)
    return cv2.bitwise_and(image, image, mask=circle)
