"""Texts that would be markup are shown as they are, by a reader of Markdown with tables."""

import pytest
from markdown_it import MarkdownIt

from tagmill.tag_system.core.markdown import block, code, plain, table
from tagmill.tag_system.core.text import shown

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "[a](javascript:b) ![c](http://d/e.png) [f]: g",
    "``` `` `",
    "`",
    "**b** _c_ ~~d~~ e_f",
    "a|b",
    "# a",
    "- a",
    "1. a",
    "&lt;b&gt;",
    "<http://a>",
    "a\n\n# b\n| c |\u2028d",
    "\u202eevil\x1b[31m",
]


def inline(text):
    """Types and texts of what is in the lines of a text."""
    return [(one.type, one.content) for token in READER.parse(text) for one in token.children or ()]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_would_be_markup_is_shown(text):
    assert inline(plain(text)) == [("text", shown(text))]
    assert inline(code(text)) == [("code_inline", shown(text))]
    rows = inline(table(["a"], [[plain(text)], [code(text)]]))
    assert rows == [("text", "a"), ("text", shown(text)), ("code_inline", shown(text))]
    (fenced,) = READER.parse(block(text, "yaml"))
    assert (fenced.type, fenced.info, fenced.content.rstrip("\n")) == ("fence", "yaml", text)
