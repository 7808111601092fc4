"""Example images to click, drawn: none of them shows anyone."""

from functools import cache

import cv2
import numpy as np

from parfocal.synthetic.fundus import draw_eye, draw_fundus
from parfocal.synthetic.smears import draw_cell, draw_patient

_CELL_SEVERITIES = {"Normal cell": -2.5, "Cell between the two": 0.0, "Blast": 2.5}
_EYE_GRADES = {"Eye without disease": 0, "Eye, moderate disease": 2, "Eye, proliferative disease": 4}

EXAMPLE_NAMES = tuple(
    [f"cell-{number}" for number in range(len(_CELL_SEVERITIES))]
    + [f"eye-{number}" for number in range(len(_EYE_GRADES))]
)
EXAMPLE_TITLES = dict(zip(EXAMPLE_NAMES, (*_CELL_SEVERITIES, *_EYE_GRADES), strict=True))
"""What each example shows, by its name."""


@cache
def draw_example(name: str) -> bytes:
    """Draw an example and return it as a JPEG file; the same at every call."""
    kind, _, number = name.partition("-")
    place = int(number)
    dice = np.random.default_rng([11, place])
    if kind == "cell":
        patient = draw_patient("drawn", has_leukemia=place > 0, rng=dice)
        pixels, _ = draw_cell(patient, np.full(4, list(_CELL_SEVERITIES.values())[place]), 450, dice)
    else:
        pixels, _ = draw_fundus(draw_eye(dice), False, list(_EYE_GRADES.values())[place], 640, dice)
    done, data = cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 90))
    assert done
    return data.tobytes()
