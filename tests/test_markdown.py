"""Text from data shows in Markdown as it is, whatever it contains."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from parfocal.markdown import escape_markdown, format_code, format_code_block, format_markdown_table

HOSTILE = [
    "[free](javascript:alert(1))",
    "![x](http://evil.example/pixel.png)",
    "<img src=x onerror=alert(1)>",
    "<!-- ",
    "&lt;b&gt; &#60; &amp",
    "*bold* **bold** _italic_ __init__ ~~gone~~",
    "`code` ``code``",
    "a | b | c",
    "back\\slash \\| \\",
    "# heading",
    "heading #",
    "- item",
    "+ item",
    "1. item",
    "1) item",
    "> quote",
    "---",
    "===",
    "***",
    "```sh",
    "~~~",
    "[ ] task",
    "[name]: http://evil.example",
    "line\nbreak\n\n# heading\n| a |\n",
    "x_1 batch_size -0.5 (0.1–0.2) a+b 95 %",
]
WORDS = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text("ab1 *_`[]()<>!#|~\\&;-+=.:>{}$^@\n", max_size=8)))


def _render(markdown: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown).strip()


def _escape_html(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace('"', "&quot;")


def _check_text(text: str) -> None:
    if not text.strip():
        return
    shown = _escape_html(text)
    assert _render(escape_markdown(text)) == f"<p>{shown}</p>"
    assert _render(f"# {escape_markdown(text)}") == f"<h1>{shown}</h1>"
    assert _render(f"- {escape_markdown(text)}") == f"<ul>\n<li>{shown}</li>\n</ul>"
    assert _render(f"![{escape_markdown(text)}](a.png)").count("<") == 3
    rendered = _render(format_markdown_table([text, "b"], [["c", text]]))
    assert f"<th>{shown}</th>" in rendered
    assert f"<td>{shown}</td>" in rendered
    assert rendered.count("<t") == 9


def _check_code(text: str) -> None:
    if text.strip():
        assert _render(format_code(text)) == f"<p><code>{_escape_html(text)}</code></p>"
    block = html.escape(text, quote=False).replace('"', "&quot;")
    assert _render(format_code_block(text, "sh")) == f'<pre><code class="language-sh">{block}\n</code></pre>'


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_shown_as_they_are(text: str) -> None:
    _check_text(text)
    _check_code(text)


@given(WORDS)
def test_any_text_is_shown_as_it_is(words: list[str]) -> None:
    _check_text("".join(words))
    _check_code("".join(words))


def test_usual_text_stays_readable() -> None:
    for text in ("resnet18", "batch_size", "-0.012 (-0.046–0.022)", "sensitivity=0.9", "conflicting_labels, a.b"):
        assert escape_markdown(text) == text
    assert escape_markdown("$\\input{x}$ https://a www.b a@b") == "\\$\\\\input\\{x\\}\\$ https\\://a www\\.b a\\@b"
