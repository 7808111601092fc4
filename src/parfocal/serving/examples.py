"""Synthetic example images for the page. None of them shows a real patient."""

from functools import cache

import numpy as np

from parfocal.data.encode import encode_jpeg
from parfocal.synthetic.fundus import draw_eye, draw_fundus
from parfocal.synthetic.smears import draw_cell, draw_patient

_CELL_SEVERITIES = (-2.5, 0.0, 2.5)
_EYE_GRADES = (0, 2, 4)

EXAMPLE_TITLES = {
    "cell-0": "Normal cell",
    "cell-1": "Borderline cell",
    "cell-2": "Blast",
    "eye-0": "Eye without disease",
    "eye-1": "Eye, moderate disease",
    "eye-2": "Eye, proliferative disease",
}
"""The title of each example, by its name."""


@cache
def draw_example(name: str) -> bytes:
    """Draw an example and return it as a JPEG file. Every call returns the same file."""
    kind, _, number = name.partition("-")
    index = int(number)
    rng = np.random.default_rng([11, index])
    if kind == "cell":
        patient = draw_patient("drawn", has_leukemia=index > 0, rng=rng)
        pixels, _ = draw_cell(patient, np.full(4, _CELL_SEVERITIES[index]), 450, rng)
    else:
        pixels, _ = draw_fundus(draw_eye(rng), False, _EYE_GRADES[index], 640, rng)
    return encode_jpeg(pixels, 90)
