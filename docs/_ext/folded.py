"""Long tables are folded: what they show is said above them, and whoever wants all rows opens them."""

from docutils import nodes
from sphinx.application import Sphinx

_ROWS = 40


def _fold(app: Sphinx, doctree: nodes.document, page: str) -> None:
    if app.builder.format != "html" or not page.startswith("results/"):
        return
    for table in list(doctree.findall(nodes.table)):
        rows = sum(len(body.children) for body in table.findall(nodes.tbody))
        if rows > _ROWS:
            opening, closing = f"<details><summary>{rows} rows</summary>", "</details>"
            folded = [
                nodes.raw("", opening, format="html"),
                table,
                nodes.raw("", closing, format="html"),
            ]
            table.parent[table.parent.index(table) : table.parent.index(table) + 1] = folded


def setup(app: Sphinx) -> dict[str, bool]:
    """Fold before pages are written."""
    app.connect("doctree-resolved", _fold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
