"""What the recipe `auto` can afford within `minutes`: the size of the images, the head, the epochs and the views.

The numbers come from 2,600 fundus photographs with ResNet-18 from ImageNet weights (docs/results.md): a linear probe on
224 pixels is ahead of two epochs of fine-tuning on 96, and larger images are worth their time once they are seen often.
"""

import math
from collections.abc import Mapping
from typing import Any

from parfocal.data.augment import TTA_VIEWS
from parfocal.training.fingerprint import Fingerprint
from parfocal.training.pace import FORWARD_SHARE, measure_pace

# The share of the minutes that is left for training: the rest is for preparing, evaluating and the report.
_TRAINING_SHARE = 0.65
_EVALUATION_SHARE = 0.2
# How many epochs make a side worthwhile, for this number of images.
_EPOCHS_BY_SIDE = {96: 0, 128: 3, 160: 5, 192: 8, 224: 10, 320: 16, 384: 16, 512: 20}
_REFERENCE_IMAGES = 2_600
# Fine-tuning takes this many steps to pass a linear probe. Larger sets gain more from it: on 17,092 blood cells it
# reached an accuracy of .98 where a probe reached .87.
_MIN_STEPS = 400
_MAX_PROBED_IMAGES = 5_000
_BATCH_SIZE = 32
_MAX_PROBED_SIDE = 224


def estimate_passes(fingerprint: Fingerprint, chosen: Mapping[str, Any], side: int) -> float:
    """Return how many times the network can train on each image of this side within the minutes."""
    return _count_pixels(chosen, _TRAINING_SHARE) / (fingerprint.n_images * side**2)


def fits_only_a_head(fingerprint: Fingerprint, chosen: Mapping[str, Any]) -> bool:
    """Return whether the minutes are too short for fine-tuning, so that a linear probe is the better network."""
    side = chosen.get("crop_size", min(_EPOCHS_BY_SIDE))
    n_steps = estimate_passes(fingerprint, chosen, side) * fingerprint.n_images / _BATCH_SIZE
    return n_steps < _MIN_STEPS and fingerprint.n_images <= _MAX_PROBED_IMAGES


def find_affordable_side(fingerprint: Fingerprint, chosen: Mapping[str, Any]) -> int:
    """Return the largest side for which there is time to show every image as often as that side needs."""
    if chosen.get("head") == "probe":
        # One forward pass, and time to spare.
        sides = [side for side in _EPOCHS_BY_SIDE if side <= _MAX_PROBED_SIDE]
        fit = [side for side in sides if estimate_passes(fingerprint, chosen, side) >= 1.5 * FORWARD_SHARE]
        return max(fit, default=min(sides))
    # Large data sets need fewer epochs, though more steps.
    size_factor = min(1.0, math.sqrt(_REFERENCE_IMAGES / fingerprint.n_images))
    return max(
        side
        for side, n_epochs in _EPOCHS_BY_SIDE.items()
        if estimate_passes(fingerprint, chosen, side) >= n_epochs * size_factor
    )


def choose_views_by_minutes(fingerprint: Fingerprint, chosen: Mapping[str, Any]) -> str:
    """Return the most views for test-time augmentation that valid and test can be predicted with in the time left."""
    n_forward = _count_pixels(chosen, _EVALUATION_SHARE) / FORWARD_SHARE / chosen["crop_size"] ** 2
    affordable = [name for name in ("d4", "flips") if len(TTA_VIEWS[name]) * fingerprint.n_evaluated <= n_forward]
    return affordable[0] if affordable else "none"


def _count_pixels(chosen: Mapping[str, Any], share: float) -> float:
    """Return how many pixels the network trains on in a share of the minutes."""
    return share * 60 * chosen["minutes"] * measure_pace(chosen["model"], chosen.get("stem"))
