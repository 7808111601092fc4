"""Progressive resizing: early epochs show the same field of view with fewer pixels, and so take less time."""

import math

from parfocal.recipe_schema import ViewsConfig

# The images grow over this share of the training and keep their full size for the rest.
_GROWING_SHARE = 0.75
# Few sizes, since PyTorch chooses its algorithms again for every new one; the stride of the networks.
_STEP = 32


def choose_crop_size(config: ViewsConfig, epoch: int, n_epochs: float) -> int:
    """Return the side of the training crops in an epoch, counted from 0; the last epoch always has the full size.

    `n_epochs` is the length of the training, which is an estimate where the clock decides it.
    """
    if not config.start_size:
        return config.crop_size
    n_growing = max(1.0, min(_GROWING_SHARE * n_epochs, n_epochs - 1))
    growth = (config.crop_size - config.start_size) * min(1.0, epoch / n_growing)
    return min(config.crop_size, config.start_size + math.ceil(growth / _STEP) * _STEP)
