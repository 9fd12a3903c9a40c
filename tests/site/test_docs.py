"""The examples of README and docs run as printed, their links lead somewhere, their commands are one line."""

import doctest
import re
import sys
from pathlib import Path

import pytest

from tests.helpers import optional

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_examples(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    needed = {name: name for name in ("torch", "jax", "pandas", "polars", "xarray")}
    for module, package in (needed | {"isdiag.arviz": "arviz_base"}).items():
        if any(f"import {module}\n" in block for block in blocks):
            optional(package)
    if any(re.search(r"import (plots|pyplot)\b", block) for block in blocks):
        optional("matplotlib").use("Agg")
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    names = {}
    for number, block in enumerate(blocks):
        test = doctest.DocTestParser().get_doctest(block, names, f"{page.name}[{number}]", str(page), 0)
        assert test.examples, "a python block that runs nothing"
        report = []
        runner.run(test, out=report.append, clear_globs=False)
        names = test.globs
        assert not report, "".join(report)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


WIDEST = 98  # columns of code that a page's column holds at 1280 px


@each_page
def test_examples_fit_their_column(page):
    code = r"^```(?:python|pycon|bash|bibtex)\n(.*?)^```"
    for block in re.findall(code, page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            assert len(line) <= WIDEST, line


def test_examples_of_docstrings_fit_their_column():
    for source in (ROOT / "isdiag").glob("**/*.py"):
        for line in re.findall(r"^ *((?:>>>|\.\.\.) .*)$", source.read_text(), re.MULTILINE):
            assert len(line) <= WIDEST, f"{source.name}: {line}"


@each_page
def test_local_links(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_commands_are_one_line(heading):
    text = (ROOT / "README.md").read_text()
    section = re.search(rf"^## {heading}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    (block,) = re.findall(r"^```bash\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    assert block.count("\n") == 1


def test_the_bibliography_holds_what_is_cited_and_nothing_else():
    bibliography = ROOT / "docs" / "reference" / "bibliography.md"
    keys = re.findall(r"^\.\. \[(\w+)\] ", bibliography.read_text(), re.MULTILINE)
    assert keys == sorted(keys, key=str.lower)
    assert len(keys) == len(set(keys))
    sources = [*(ROOT / "isdiag").glob("**/*.py"), *(ROOT / "docs").glob("**/*.md")]
    cited = {key for path in sources for key in re.findall(r"\[([a-zA-Z]+\d{4})\]_", path.read_text())}
    assert cited == set(keys)
