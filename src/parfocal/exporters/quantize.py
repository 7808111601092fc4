"""Networks in whole numbers of 8 bits, their ranges measured on images."""

from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from parfocal.engine.compiled import import_openvino
from parfocal.progress import show_progress

if TYPE_CHECKING:
    import openvino


def quantize(model: "openvino.Model", pixels: np.ndarray) -> "openvino.Model":
    """Return a graph that computes in int8 where it can, its ranges measured on these images by NNCF."""
    import_openvino()
    # NNCF draws bars of its own wherever it runs.
    with show_progress("Measuring ranges", None), redirect_stdout(StringIO()):
        import nncf

        images = nncf.Dataset([pixels[row : row + 1] for row in range(len(pixels))])
        # The faster correction of biases leaves twice the difference.
        return nncf.quantize(model, images, subset_size=len(pixels), fast_bias_correction=False)
