"""Example images to click, drawn: none of them shows anyone."""

from functools import cache

import cv2
import numpy as np

from parfocal.data.fundus import draw_eye, draw_fundus
from parfocal.data.smear import draw_cell, draw_patient

_CELLS = {"Normal cell": -2.5, "Cell between the two": 0.0, "Blast": 2.5}
_GRADES = {"Eye without disease": 0, "Eye, moderate disease": 2, "Eye, proliferative disease": 4}

NAMES = tuple([f"cell-{number}" for number in range(len(_CELLS))] + [f"eye-{number}" for number in range(len(_GRADES))])
TITLES = dict(zip(NAMES, (*_CELLS, *_GRADES), strict=True))
"""What each example shows, by its name."""


@cache
def example(name: str) -> bytes:
    """Draw an example and return it as a JPEG file; the same at every call."""
    kind, _, number = name.partition("-")
    place = int(number)
    dice = np.random.default_rng([11, place])
    if kind == "cell":
        patient = draw_patient("drawn", ill=place > 0, dice=dice)
        pixels, _ = draw_cell(patient, np.full(4, list(_CELLS.values())[place]), 450, dice)
    else:
        pixels, _ = draw_fundus(draw_eye(dice), False, list(_GRADES.values())[place], 640, dice)
    done, data = cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 90))
    assert done
    return data.tobytes()
