"""The pages of docs: every public name is on one, every page is in a table of contents, anchors exist."""

import ast
import re
from pathlib import Path

import pytest

import isdiag

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for page in DOCS.glob("**/*.md") if "_build" not in page.parts)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))


def fenced(start, text):
    """What fenced blocks hold, beside the groups of their first line."""
    return re.findall(rf"^```{start}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def documented():
    """Names by module, from the ``{api} module`` blocks of the reference."""
    names = {}
    for page in (DOCS / "reference").glob("*.md"):
        for module, block in fenced(r"\{api\} (\S+)", page.read_text()):
            names.setdefault(module, []).extend(block.split())
    return names


def public(module):
    """Public names of a module's source, which needs no import of torch or JAX."""
    tree = ast.parse((DOCS.parent / module).read_text())
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


@pytest.mark.parametrize("module", ["isdiag", "isdiag.rl"])
def test_every_public_name_is_in_the_reference(module):
    names = documented()
    exported = isdiag.__all__ if module == "isdiag" else isdiag.rl.__all__
    pages_of_their_own = {name for name in exported if f"isdiag.{name}" in names}
    assert sorted(names[module]) == sorted(set(exported) - pages_of_their_own)


@pytest.mark.parametrize("module", ["lognormal", "torch", "jax"])
def test_every_public_name_of_a_submodule_is_in_the_reference(module):
    assert sorted(documented()[f"isdiag.{module}"]) == sorted(public(f"isdiag/{module}.py"))


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for block in fenced(r"\{toctree\}", page.read_text()):
            for line in block.splitlines():
                name = re.sub(r".*<(.*)>$", r"\1", line.strip())
                if name and not name.startswith(":"):
                    listed.add((page.parent / f"{name}.md").resolve())
    assert {page.resolve() for page in PAGES} == {page.resolve() for page in listed}


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
