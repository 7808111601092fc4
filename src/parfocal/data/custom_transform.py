"""Custom transforms: the user's last augmentation, which is code.

A recipe or a run folder may come from a stranger, so the code that it names is imported only if the call allows its
module. A function that a Python program passes itself needs no permission.
"""

import copy
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from parfocal.data.decode import Pixels
from parfocal.errors import UsageError

CustomTransform = Callable[[Pixels, int], Pixels]
"""Takes an image and the seed of its view, and returns an image."""


@dataclass(frozen=True)
class AllowedCode:
    """The code that a call may run: the modules that it allows, and the functions that it passes, by name.

    `recipe_file` is where the recipe comes from, for errors; "" if the call itself names the code.
    """

    modules: tuple[str, ...] = ()
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    recipe_file: str = ""


class CodeNotAllowedError(UsageError):
    """A recipe names code that the call does not allow."""

    def __init__(self, problem: str, module: str) -> None:
        remedy = f"If you trust it, pass allow_code=[{module!r}], or pass the function itself as custom_transform."
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.module = module


def separate_functions(
    changes: Mapping[str, Any], allow_code: Iterable[str], recipe: object = None
) -> tuple[dict[str, Any], AllowedCode]:
    """Return changes in which each function is replaced by its name, and the code that they and `allow_code` allow.

    `recipe` is the recipe, or the name of its file, that the changes apply to.
    """
    if isinstance(allow_code, str):
        raise UsageError(f"allow_code={allow_code!r} is not a list of modules. Pass allow_code=[{allow_code!r}].")
    functions: dict[str, Callable[..., Any]] = {}

    def replace_functions(value: Any) -> Any:
        if isinstance(value, list):
            return [replace_functions(item) for item in value]
        if not callable(value):
            return value
        name = _get_name(value)
        if functions.setdefault(name, value) is not value:
            raise UsageError(f"Two functions have the name {name}. Give each a name of its own.")
        return name

    named = {key: replace_functions(value) for key, value in changes.items()}
    is_changed = any(key.rpartition(".")[2] == "custom_transform" for key in changes)
    recipe_file = str(recipe) if isinstance(recipe, str | Path) and not is_changed else ""
    return named, AllowedCode(tuple(allow_code), functions, recipe_file)


def _get_name(function: Callable[..., Any]) -> str:
    """Return `module:qualname`; an object that is called, such as an Albumentations transform, has that of its type."""
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def load_custom_transform(name: str, allowed: AllowedCode) -> CustomTransform | None:
    """Return the function that a recipe names `module:function`, if its code is allowed; None if it names none.

    It maps an image to an image. It is called with `seed=` if it has such a parameter, and as an Albumentations
    transform if it has `set_random_seed`.
    """
    if not name:
        return None
    function = allowed.functions.get(name) or _import_function(name, allowed)
    if hasattr(function, "set_random_seed"):
        return _wrap_albumentations(function)
    if _has_seed(function):
        return lambda image, seed: function(image, seed=seed)
    return lambda image, _: function(image)


def _import_function(name: str, allowed: AllowedCode) -> Callable[..., Any]:
    setting = ": ".join(filter(None, (allowed.recipe_file, f"custom_transform={name}")))
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UsageError(f"{setting} is not of the form module:function.")
    if module not in allowed.modules:
        raise CodeNotAllowedError(f"{setting} names code, which runs only if you allow it.", module)
    # Albumentations asks PyPI for a newer version when it is imported, unless this is set.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        function: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{setting}: {error}. Pass the function itself in Python if no module has it.") from None
    if not callable(function):
        raise UsageError(f"{setting} is not a function. Name one in the form module:function.")
    return function


def _has_seed(function: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(function).parameters
    except ValueError:
        # A function of C code, such as a ufunc of NumPy, may have no signature.
        return False


def _wrap_albumentations(transform: Any) -> CustomTransform:
    """Wrap an Albumentations transform so that it uses the seed of the view; each thread has a copy of it."""
    thread_local = threading.local()

    def apply(image: Pixels, seed: int) -> Pixels:
        if not hasattr(thread_local, "transform"):
            thread_local.transform = copy.deepcopy(transform)
        thread_local.transform.set_random_seed(seed)
        return thread_local.transform(image=image)["image"]

    return apply
