"""Custom transforms: your own function, or an Albumentations transform, as the last step of an augmented view."""

import copy
import inspect
import os
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from parfocal.data.decode import Pixels
from parfocal.errors import UsageError

CustomTransform = Callable[[Pixels, int], Pixels]
"""Takes an image and the seed of its view, and returns an image."""


def load_custom_transform(name: str) -> CustomTransform:
    """Load the function `module:function` of the recipe key `custom_transform`.

    It takes an image and returns one. It is called with `seed=` if it has such a parameter, and as an Albumentations
    transform if it has `set_random_seed`.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(f"custom_transform={name} is not of the form module:function.")
    # Albumentations asks PyPI for a newer version when it is imported, unless this is set.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        transform: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"custom_transform={name}: {error}.") from None
    if not callable(transform):
        raise UsageError(f"custom_transform={name} is not a function. Name one in the form module:function.")
    function: Callable[..., Any] = transform
    if hasattr(function, "set_random_seed"):
        return _wrap_albumentations(function)
    if "seed" in inspect.signature(function).parameters:
        return lambda image, seed: function(image, seed=seed)
    return lambda image, _: function(image)


def _wrap_albumentations(transform: Any) -> CustomTransform:
    """Wrap an Albumentations transform so that it draws from the seed of the view; each thread has a copy of it."""
    thread_local = threading.local()

    def apply(image: Pixels, seed: int) -> Pixels:
        if not hasattr(thread_local, "transform"):
            thread_local.transform = copy.deepcopy(transform)
        thread_local.transform.set_random_seed(seed)
        return thread_local.transform(image=image)["image"]

    return apply
