"""The pages of docs: every page is in a table of contents, anchors exist."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for page in DOCS.glob("**/*.md") if "_build" not in page.parts)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))


def fenced(start, text):
    """What fenced blocks hold, beside the groups of their first line."""
    return re.findall(rf"^```{start}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for block in fenced(r"\{toctree\}", page.read_text()):
            for line in block.splitlines():
                name = re.sub(r".*<(.*)>$", r"\1", line.strip())
                if name and not name.startswith(":"):
                    listed.add((page.parent / f"{name}.md").resolve())
    assert {page.resolve() for page in PAGES} == {page.resolve() for page in listed}


def test_titles_occur_once():
    titles = [page.read_text().split("\n", 1)[0] for page in PAGES]
    titles = [title for title in titles if title.startswith("# ")]  # others include a file
    assert len(titles) == len(set(titles))


@each_page
def test_no_line_of_text_is_taken_for_a_comment(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^%.*", text, re.MULTILINE)  # MyST leaves such lines out without a word


def anchors(page):
    """Anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@each_page
def test_links_to_headings(page):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)#([^)]+)\)", page.read_text()):
        assert anchor in anchors((page.parent / target) if target else page), f"{target}#{anchor}"
