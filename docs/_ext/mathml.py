"""Formulas as MathML, which browsers draw by themselves: no script, no font and no network is needed."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number

# An operator's name stands apart from its argument, unless it is the base of a sub- or superscript.
_NAME = re.compile(
    r"(?<!<msub>)(?<!<msup>)(?<!<msubsup>)(?<!<munder>)(?<!<mover>)(?<!<munderover>)"
    r"(<m[io][^>]*>(?:log|exp|max|min|sup|inf|sin|cos)</m[io]>)(?=<m(?!o))"
)


def _mathml(text, display):
    return _NAME.sub(r'\1<mspace width="0.17em"/>', convert(text, display=display))


def _inline(self, node):
    self.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _display(self, node):
    text = node.astext()
    if "\\\\" in text and "\\begin" not in text:
        text = f"\\begin{{aligned}}{text}\\end{{aligned}}"
    number = ""
    if node["number"]:
        number = f'<span class="eqno">({get_node_equation_number(self, node)})</span>'
    self.body.append(self.starttag(node, "div", CLASS="math equation"))
    self.body.append(_mathml(text, "block") + number + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
