"""Filling a page's template: names from data are escaped, and a value that is missing is an error, not a blank."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import parfocal
from parfocal.errors import listing
from parfocal.evaluation.compare import Difference, Value
from parfocal.report.words import chance_words, title_of


def render(template: str, **content: Any) -> str:
    """Return the page that a template makes of its content."""
    environment = Environment(
        loader=PackageLoader("parfocal", "report/templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": _percent,
        "number": _number,
        "duration": _duration,
        "listing": listing,
        "interval": _interval,
        "value": _value,
        "chance": chance_words,
        "words": title_of,
    }
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


def _interval(judged: Mapping[str, Any], name: str) -> str:
    """Write a figure with its interval below it; runs judged by an older Parfocal may lack it."""
    return _value(Value.judged(judged, name)) if name in judged else str(Value(None))


def _value(one: Value | Difference) -> str:
    figure, _, interval = str(one if isinstance(one, Value) else one.shown).partition(" (")
    return Markup("{}<small>{}</small>").format(figure, interval.rstrip(")")) if interval else figure
