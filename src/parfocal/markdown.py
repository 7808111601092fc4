"""Write Markdown with text from data: names of files, classes, runs and folders are escaped, so that they show as they
are."""

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(
    r"[\\`*\[\]{}|~$^#@]"
    # Inside a word an underscore has no meaning, and recipe keys stay readable.
    r"|(?<![^\W_])_|_(?![^\W_])"
    # Many programs turn addresses into links.
    r"|:(?=//)|(?<=www)\.",
    re.IGNORECASE,
)
_LIST_NUMBER = re.compile(r"^(\d{1,9}|[A-Za-z])([.)])(?=\s|$)")
_LINE_START = re.compile(r"^(?=>|[-+=:](?:[\s=-]|$))")
_ENTITY = re.compile(r"&(?=#?\w+;)")


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""


def escape_markdown(value: object) -> Markdown:
    """Escape text so that it is only text: no markup, link, image, HTML, formula, or end of a table cell or line."""
    if isinstance(value, Markdown):
        return value
    text = " ".join(str(value).split()).encode("utf-8", "replace").decode("utf-8")
    text = _LIST_NUMBER.sub(r"\1\\\2", _LINE_START.sub(r"\\", _SPECIAL.sub(r"\\\g<0>", text)))
    return Markdown(_ENTITY.sub("&amp;", text).replace("<", "&lt;"))


def format_markdown_table(headings: Sequence[object], rows: Iterable[Sequence[object]]) -> Markdown:
    """Format a Markdown table; each cell is escaped."""
    lines = [headings, [Markdown("---")] * len(headings), *rows]
    return Markdown("\n".join(f"| {' | '.join(map(escape_markdown, line))} |" for line in lines))


def format_code(value: object) -> Markdown:
    """Format text as code within a line."""
    text = " ".join(str(value).split())
    fence = "`" * (_find_longest_fence(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


def format_code_block(value: object, language: str = "") -> Markdown:
    """Format text as a block of code."""
    fence = "`" * max(3, _find_longest_fence(str(value)) + 1)
    return Markdown(f"{fence}{language}\n{value}\n{fence}")


def _find_longest_fence(text: str) -> int:
    """Return the length of the longest run of backticks, which a longer fence keeps inside the code."""
    return max(map(len, re.findall("`+", text)), default=0)
