"""Quantize networks to int8, with activation ranges calibrated on images."""

from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from parfocal.engine.compiled import import_openvino
from parfocal.progress import show_progress

if TYPE_CHECKING:
    import openvino


def quantize(model: "openvino.Model", pixels: np.ndarray) -> "openvino.Model":
    """Return a model that computes in int8 where possible; NNCF calibrates its activation ranges on these images."""
    import_openvino()
    # NNCF always prints its own progress bars.
    with show_progress("Calibrating int8", None), redirect_stdout(StringIO()):
        import nncf

        images = nncf.Dataset([pixels[row : row + 1] for row in range(len(pixels))])
        # The fast bias correction doubles the difference from the original network.
        return nncf.quantize(model, images, subset_size=len(pixels), fast_bias_correction=False)
