"""Mends pages where docutils or the theme leave out what screen readers and keyboards need.

Found with axe: headings without a level, landmarks without a name, boxes that scroll and cannot
be reached by the keyboard, empty cells in the heads of tables, deprecated roles of citations.
"""

from pathlib import Path

from sphinx.application import Sphinx

_MENDED = {
    'role="heading">': 'role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Site">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="On this page">',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    '<div class="math equation': '<div tabindex="0" class="math equation',
    '<th class="head"><p></p></th>': "<td></td>",
    '<th class="head"></th>': "<td></td>",
    ' role="doc-biblioentry"': "",
    '<div role="list" class="citation-list">': '<div class="citation-list">',
}


def _mend(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    for page in Path(app.outdir).glob("**/*.html"):
        text = mended = page.read_text(encoding="utf-8")
        for found, right in _MENDED.items():
            mended = mended.replace(found, right)
        if mended != text:
            page.write_text(mended, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Mend what has been built."""
    app.connect("build-finished", _mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
