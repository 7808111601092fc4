"""Synthetic example images for the page. None of them shows a real patient."""

from functools import cache

import numpy as np

from parfocal.data.encode import encode_jpeg
from parfocal.synthetic.fundus import draw_eye, draw_fundus
from parfocal.synthetic.smears import draw_cell, draw_patient

_CELL_SEVERITIES = {"Normal cell": -2.5, "Borderline cell": 0.0, "Blast": 2.5}
_EYE_GRADES = {"Eye without disease": 0, "Eye, moderate disease": 2, "Eye, proliferative disease": 4}

EXAMPLE_NAMES = tuple(
    [f"cell-{number}" for number in range(len(_CELL_SEVERITIES))]
    + [f"eye-{number}" for number in range(len(_EYE_GRADES))]
)
EXAMPLE_TITLES = dict(zip(EXAMPLE_NAMES, (*_CELL_SEVERITIES, *_EYE_GRADES), strict=True))
"""The title of each example, by its name."""


@cache
def draw_example(name: str) -> bytes:
    """Draw an example and return it as a JPEG file. Every call returns the same file."""
    kind, _, number = name.partition("-")
    index = int(number)
    rng = np.random.default_rng([11, index])
    if kind == "cell":
        patient = draw_patient("drawn", has_leukemia=index > 0, rng=rng)
        pixels, _ = draw_cell(patient, np.full(4, list(_CELL_SEVERITIES.values())[index]), 450, rng)
    else:
        pixels, _ = draw_fundus(draw_eye(rng), False, list(_EYE_GRADES.values())[index], 640, rng)
    return encode_jpeg(pixels, 90)
