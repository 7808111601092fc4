"""Pictures inside a page: an address that holds the bytes themselves, so that nothing is asked of any server."""
# MERGED: """Filling a page's template: names from data are escaped, and a value that is missing is an error, not a blank."""

import base64
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import parfocal
from parfocal.errors import join_limited
from parfocal.evaluation.compare import Difference, MetricValue
from parfocal.report.formatting import format_metric_title, format_p_value


def data_uri(image_format: str, data: bytes) -> str:
    """Return the address of a picture of a kind such as `jpeg` or `svg+xml`."""
    return f"data:image/{image_format};base64,{base64.b64encode(data).decode()}"


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
        "percent": _format_percent,
        "number": _format_number,
        "duration": _format_duration,
        "listing": join_limited,
        "interval": _format_metric,
        "value": _format_value,
        "chance": format_p_value,
        "words": format_metric_title,
    }
    page = environment.get_template(template).render(version=parfocal.__version__, **content)
    # File names that are no valid text reach here as lone surrogates, which UTF-8 cannot hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _format_percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _format_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _format_metric(metrics: Mapping[str, Any], name: str) -> str:
    """Write a figure with its interval below it; runs judged by an older Parfocal may lack it."""
    return _format_value(MetricValue.from_metrics(metrics, name)) if name in metrics else str(MetricValue(None))


def _format_value(value: MetricValue | Difference) -> str:
    figure, _, interval = str(value if isinstance(value, MetricValue) else value.metric_value).partition(" (")
    return Markup("{}<small>{}</small>").format(figure, interval.rstrip(")")) if interval else figure
