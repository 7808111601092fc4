"""Synthetic blood-smear cells: a segmented lymphocyte or blast on black, like the images of the leukemia lab.

Four signals distinguish a blast: a nucleus that fills more of the cell, a more irregular nucleus, finer chromatin, and
nucleoli. Each is a normal variable whose mean depends on the class, independent of the others, so that the
classes overlap by design.
"""

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from parfocal.data.decode import Pixels

# Distance between the class means of each signal, in standard deviations. From all four signals together, the share
# Φ(SEPARATION) of the cells can be classified correctly.
SEPARATION = 1.9

CYTOPLASM, NUCLEUS = 127, 255
"""Values of a cell's mask; the background is 0."""

_SIDE = 450
_N_ANGLES = 720
_TEXTURE_SIDE = 1024


@dataclass(frozen=True)
class Patient:
    """What all cells of a patient have in common: stain, scale and camera; only `blast_share` depends on disease."""

    name: str
    has_leukemia: bool
    blast_share: float
    nucleus_density: np.ndarray
    cytoplasm_density: np.ndarray
    scale: float
    blur: float
    noise: float


def draw_patient(name: str, has_leukemia: bool, rng: np.random.Generator) -> Patient:
    """Draw a patient; with leukemia most cells are blasts, without none."""
    blast_share = float(rng.uniform(0.75, 0.97))
    nucleus = np.array([0.80, 1.45, 0.52]) * rng.normal(1, 0.06, 3) * rng.normal(1, 0.08)
    cytoplasm = np.array([0.30, 0.52, 0.17]) * rng.normal(1, 0.10, 3) * rng.normal(1, 0.12)
    return Patient(
        name=name,
        has_leukemia=has_leukemia,
        blast_share=blast_share if has_leukemia else 0.0,
        nucleus_density=nucleus.astype(np.float32),
        cytoplasm_density=cytoplasm.astype(np.float32),
        scale=float(rng.normal(1, 0.06)),
        blur=float(rng.uniform(0.7, 1.7)),
        noise=float(rng.uniform(1.5, 4.0)),
    )


def draw_signals(is_blast: bool, rng: np.random.Generator) -> np.ndarray:
    """Draw the four signals of a cell: size and irregularity of the nucleus, fineness of the chromatin, nucleoli."""
    return rng.normal((1 if is_blast else -1) * SEPARATION / 2, 1, 4)


def draw_cell(patient: Patient, signals: np.ndarray, size: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Draw a cell as RGB pixels (size, size, 3) and its mask (size, size)."""
    nucleus_size, irregularity, fineness, nucleoli = (1 / (1 + np.exp(-1.1 * signals))).tolist()
    radius = float(np.clip(118 * patient.scale * rng.normal(1, 0.07), 85, 165))
    cell_outline = radius * _draw_outline(rng, waves=(2, 3, 4, 5), strength=0.035)
    angle = np.linspace(0, 2 * np.pi, _N_ANGLES, endpoint=False)
    cell_outline *= 1 + 0.08 * rng.uniform(0, 1) * np.cos(2 * (angle - rng.uniform(0, np.pi)))
    nucleus_outline = _draw_outline(rng, waves=(2, 3, 4), strength=0.012 + 0.085 * irregularity)
    notch_depth = 0.42 * max(0.0, irregularity - 0.25)
    notch_angle = np.linspace(-np.pi, np.pi, _N_ANGLES, endpoint=False)
    notch = 1 - notch_depth * np.exp(-((notch_angle / rng.uniform(0.22, 0.40)) ** 2))
    nucleus_outline *= np.roll(notch, int(rng.integers(_N_ANGLES)))
    nucleus_radius = radius * math.sqrt(0.50 + 0.45 * nucleus_size)
    nucleus_outline *= nucleus_radius / math.sqrt(np.mean(nucleus_outline**2))
    half = int(min(cell_outline.max() * 1.02 + 4, _SIDE / 2 - 6))
    max_offset = 0.7 * (radius - nucleus_radius)
    offset = (max_offset * rng.uniform(-0.7, 0.7), max_offset * rng.uniform(-0.7, 0.7))

    in_cell = _soft_mask(cell_outline, half, (0.0, 0.0), softness=1.2)
    in_nucleus = _soft_mask(nucleus_outline, half, offset, softness=2.0)
    in_nucleus = in_nucleus * _soft_mask(cell_outline * 0.975, half, (0, 0), softness=1.5)
    clumps = np.tanh(1.6 * _draw_texture(rng, half, 9))
    chromatin = (0.36 * (1 - fineness)) * clumps + (0.05 + 0.07 * fineness) * _draw_texture(rng, half, 3)
    nucleus = 1 + chromatin - _draw_nucleoli(rng, half, offset, nucleus_radius, nucleoli)
    cytoplasm = 1 + 0.12 * _draw_texture(rng, half, 5) + 0.06 * _draw_texture(rng, half, 2)
    density = (in_nucleus * np.maximum(nucleus, 0.15))[..., None] * patient.nucleus_density
    density += ((1 - 0.7 * in_nucleus) * cytoplasm)[..., None] * patient.cytoplasm_density
    slope_y, slope_x, level = rng.normal((0, 0, 1), (0.06, 0.06, 0.04)).tolist()
    ramp = np.linspace(-1, 1, 2 * half, dtype=np.float32)
    illumination = level + slope_y * ramp[:, None] + slope_x * ramp[None, :]
    light = 245 * np.exp(-density) * illumination[..., None]
    image = cv2.GaussianBlur(np.clip(light, 0, 255).astype(np.uint8), (0, 0), patient.blur)
    noise = np.stack([_draw_texture(rng, half, 0) for _ in range(3)], axis=-1)
    image = cv2.addWeighted(image, 1, noise, patient.noise, 0, dtype=cv2.CV_8U)
    image[in_cell < 0.5] = 0
    mask = np.where(in_nucleus > 0.5, NUCLEUS, CYTOPLASM).astype(np.uint8)
    mask[in_cell < 0.5] = 0
    return _place_in_frame(image, mask, size, rng)


def _draw_outline(rng: np.random.Generator, waves: tuple[int, ...], strength: float) -> np.ndarray:
    """Return a radius for each angle, about 1, with waves of the given frequencies."""
    angle = np.linspace(0, 2 * np.pi, _N_ANGLES, endpoint=False)
    outline = np.ones(_N_ANGLES)
    for wave in waves:
        outline += strength * rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * np.pi)) / np.sqrt(wave / 2)
    return np.clip(outline, 0.6, 1.4)


@cache
def _polar_grid() -> tuple[np.ndarray, np.ndarray]:
    """Return the radius and the angle index of each pixel of a field twice as large as the frame, about its center."""
    y, x = np.mgrid[-_SIDE:_SIDE, -_SIDE:_SIDE].astype(np.float32)
    index = np.floor((np.arctan2(y, x) / (2 * np.pi) % 1) * _N_ANGLES).astype(np.int16) % _N_ANGLES
    return np.hypot(x, y), index


def _soft_mask(outline: np.ndarray, half: int, offset: tuple[float, float], softness: float) -> np.ndarray:
    """Return a mask of the area inside an outline about `offset`: 0 outside, 1 inside, with a soft edge."""
    radius, index = _polar_grid()
    left = _SIDE - half - round(offset[0])
    top = _SIDE - half - round(offset[1])
    box = (slice(top, top + 2 * half), slice(left, left + 2 * half))
    edge = outline.astype(np.float32)[index[box]] - radius[box]
    return np.clip(edge / (2 * softness) + 0.5, 0, 1)


@cache
def _noise_field(sigma: int) -> np.ndarray:
    """Return a large field of noise, smoothed by `sigma`, with mean 0 and standard deviation 1."""
    field = np.random.default_rng(sigma).standard_normal((_TEXTURE_SIDE, _TEXTURE_SIDE), dtype=np.float32)
    if sigma:
        field = cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return (field - field.mean()) / field.std()


def _draw_texture(rng: np.random.Generator, half: int, sigma: int) -> np.ndarray:
    """Cut a random square out of the noise field."""
    top, left = rng.integers(0, _TEXTURE_SIDE - 2 * half, 2)
    return _noise_field(sigma)[top : top + 2 * half, left : left + 2 * half]


def _draw_nucleoli(
    rng: np.random.Generator, half: int, offset: tuple[float, float], radius: float, strength: float
) -> np.ndarray:
    """Return by how much the nucleoli lighten a nucleus."""
    lighter = np.zeros((2 * half, 2 * half), np.float32)
    for _ in range(1 + int(strength > 0.45) + int(strength > 0.75)):
        angle = rng.uniform(0, 2 * np.pi)
        distance = radius * np.sqrt(rng.uniform(0, 0.36))
        center_x = half + offset[0] + distance * np.cos(angle)
        center_y = half + offset[1] + distance * np.sin(angle)
        size = radius * rng.uniform(0.13, 0.19)
        axes = (max(2, int(size * rng.uniform(0.8, 1.2))), max(2, int(size)))
        cv2.ellipse(lighter, (int(center_x), int(center_y)), axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    return 0.62 * strength * cv2.GaussianBlur(lighter, (0, 0), 3.0)


def _place_in_frame(image: Pixels, mask: Pixels, size: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Put the square near the center of the frame and resize the frame."""
    frame = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    frame_mask = np.zeros((_SIDE, _SIDE), np.uint8)
    side = len(mask)
    margin = (_SIDE - side) // 2
    top, left = (margin + int(np.clip(rng.normal(0, 5), -margin, margin)) for _ in range(2))
    box = (slice(top, top + side), slice(left, left + side))
    frame[box] = image
    frame_mask[box] = mask
    if size != _SIDE:
        frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
        frame_mask = cv2.resize(frame_mask, (size, size), interpolation=cv2.INTER_NEAREST)
    return frame, frame_mask
