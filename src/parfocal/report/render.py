"""Filling a page's template: names from data are escaped, and a value that is missing is an error, not a blank."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import parfocal
from parfocal.errors import listing


def render(template: str, **content: Any) -> str:
    """Return the page that a template makes of its content."""
    environment = Environment(
        loader=PackageLoader("parfocal", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "duration": _duration, "listing": listing}
    page = environment.get_template(template).render(version=parfocal.__version__, **content)
    # File names that are no valid text reach here as lone surrogates, which UTF-8 cannot hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
