"""The index of the theory pages: every claim once, a section for each, one verdict, and a test."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "theory"
VERDICTS = {"holds", "holds with a change", "does not hold"}
CLAIMS = (
    *("2.2", "2.3(a)", "2.3(b)", "2.3(c)", "2.4", "2.4 (table)"),
    *("3.2(a)", "3.2(b)", "3.2(c)", "3.2 (box)", "3.3(a)", "3.3(b)", "3.3(c)"),
    *("4.1", "4.1 (box)", "4.2", "4.3", "4.3 (log-normal)", "4.4"),
    *("5.1", "5.2", "5.2 (sample size)", "5.3", "5.4"),
    *("6.1", "6.2", "6.3", "7.1", "7.2"),
    *("7.3(1)", "7.3(2)", "7.3(3)", "7.3(4)", "7.3(5)"),
    *("9.1", "9.2", "9.3(1)", "9.3(2)", "9.3(3)", "10.1", "10.1 (PPO)", "10.2"),
    *("B.1", "B.2", "B.3", "B.4", "B.5", "B.6"),
)


def rows():
    text = (PAGES / "index.md").read_text()
    return re.findall(
        r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \| \[\w+\]\((\w+)\.md#([^)]+)\) \|$", text, re.MULTILINE
    )


def slug(heading):
    """As GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections(page):
    """Anchor of each section to its text."""
    text = (PAGES / f"{page}.md").read_text()
    found = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert len({slug(heading) for heading, _ in found}) == len(found)
    return {slug(heading): (heading, body) for heading, body in found}


def test_every_claim_is_listed_once():
    assert [name for name, *_ in rows()] == list(CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS)
def test_section_verdict_and_test(claim):
    (row,) = [row for row in rows() if row[0] == claim]
    _, verdict, page, anchor = row
    heading, body = sections(page)[anchor]
    assert heading.startswith(f"Claim {claim}: ")
    assert re.findall(r"^Verdict: \*\*([^*]+)\*\*", body, re.MULTILINE) == [verdict]
    assert verdict in VERDICTS
    assert "```python\n>>> " in body
    name = "_".join(
        re.findall(r"\d+|[a-z]+", claim.lower().replace("log-normal", "").replace("sample size", ""))
    )
    name = re.sub(r"(\d)_([abc])$", r"\1\2", name)
    assert f"def test_claim_{name}_" in (Path(__file__).parent / f"test_{page}.py").read_text()


def test_no_section_is_left_out():
    pages = {page for _, _, page, _ in rows()}
    listed = {(page, anchor) for _, _, page, anchor in rows()}
    written = {(page, anchor) for page in pages for anchor in sections(page) if anchor.startswith("claim-")}
    assert listed == written


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_links_to_sections_exist(page):
    for target, anchor in re.findall(r"\]\((\w+)\.md#([^)]+)\)", page.read_text()):
        assert anchor in sections(target), anchor


def test_every_page_is_in_the_tree():
    tree = re.search(
        r"^```\{toctree\}\n(.*?)^```", (PAGES / "index.md").read_text(), re.MULTILINE | re.DOTALL
    )
    pages = {line for line in tree[1].split("\n") if line and not line.startswith(":")}
    assert pages == {page.stem for page in PAGES.glob("*.md")} - {"index"}
