"""Render the templates of reports: values are escaped in HTML, and a missing value is an error."""

import base64
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from parfocal.errors import join_limited
from parfocal.evaluation.metrics import get_metric
from parfocal.evaluation.summary import MetricValue
from parfocal.markdown import escape_markdown, format_code, format_code_block, format_markdown_table
from parfocal.report.formatting import format_p_value, format_share
from parfocal.version import __version__

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""The content security policy of a page that is opened as a file: no scripts, and nothing from elsewhere."""


def render(template: str, **context: Any) -> str:
    """Render a template of the folder `templates`."""
    text = _build_environment().get_template(template).render(version=__version__, **context)
    # File names that are not valid text contain lone surrogates, which UTF-8 cannot encode.
    return text.encode("utf-8", "replace").decode("utf-8")


@cache
def _build_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("parfocal", "report/templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": lambda value: "–" if value is None else f"{value:.1%}",
        "number": lambda value: "–" if value is None else f"{value:.3f}",
        "duration": _format_duration,
        "join_limited": join_limited,
        "metric": _format_metric,
        "metric_title": lambda name: get_metric(name).title,
        "p_value": format_p_value,
        "markdown": escape_markdown,
        "code": format_code,
        "code_block": format_code_block,
        # A file name need not be valid text.
        "url": lambda path: quote(path, errors="surrogateescape"),
        "share": format_share,
    }
    environment.globals |= {"table": format_markdown_table, "content_policy": CONTENT_POLICY}
    return environment


def data_uri(image_format: str, data: bytes) -> str:
    """Return a data URI that holds an image, so that a page needs no other file; `image_format` is such as `jpeg`."""
    return f"data:image/{image_format};base64,{base64.b64encode(data).decode()}"


def embed_image(path: Path | None) -> str:
    """Return a JPEG or SVG file as a data URI; empty if there is none."""
    if path is None or not path.is_file():
        return ""
    return data_uri("svg+xml" if path.suffix == ".svg" else "jpeg", path.read_bytes())


def _format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _format_metric(value: MetricValue) -> str:
    """Format a metric for an HTML cell, with its confidence interval on a line below."""
    text, _, interval = str(value).partition(" (")
    return Markup("{}<small>{}</small>").format(text, interval.rstrip(")")) if interval else text
