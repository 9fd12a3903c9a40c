"""Directives that make pages from the code: `api`, `status-table` and `capability-table`.

    ```{api} isdiag
    psis
    pareto_khat
    ```

documents names of a module, one a line: a table first, then each docstring.
"""

import ast
import inspect
import sys
from importlib import import_module
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import isdiag

ROOT = Path(__file__).parents[2]
REGISTRY = ROOT / "tests" / "registry.py"
sys.path.insert(0, str(ROOT))
registry = import_module("tests.registry")


class _Lines(SphinxDirective):
    """A directive that is read as if it were the reStructuredText that `lines` gives."""

    def lines(self) -> list[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Read the lines in the place of the directive, whose page is Markdown."""
        lines = StringList(["```{eval-rst}", *self.lines(), "```"], self.get_location())
        container = nodes.Element()
        self.state.nested_parse(lines, self.content_offset, container)
        return container.children


class API(_Lines):
    """Documents names of a module, one a line."""

    has_content = True
    required_arguments = 1

    def lines(self) -> list[str]:
        """A table of the names, and a directive of autodoc for each."""
        home = self.arguments[0]
        names = [line.strip() for line in self.content if line.strip()]
        if not names:
            return []
        module = import_module(home) if home not in registry.ADAPTERS else None
        kinds = {name: _kind(home, name, module) for name in names}
        lines = [f".. currentmodule:: {home}", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   {name}" for name in names if kinds[name] != "data"] + [""]
        for name, kind in kinds.items():
            values = kind == "data" and module is not None
            lines += [*(_values(name, module) if values else _directive(name, kind)), ""]
        return lines


def _kind(home: str, name: str, module: object) -> str:
    """What autodoc calls a thing; modules that may be mocked are read, not imported."""
    if module is None:
        place = ROOT / home.replace(".", "/")
        pages = place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        trees = [ast.parse(page.read_text()) for page in pages]
        for node in (n for tree in trees for n in tree.body if getattr(n, "name", None) == name):
            return "class" if isinstance(node, ast.ClassDef) else "function"
        return "data"
    value = getattr(module, name)
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else "data"


def _directive(name: str, kind: str) -> list[str]:
    lines = [f".. auto{kind}:: {name}"]
    if kind == "class":
        lines.append("   :members:")
    return lines


def _values(name: str, module: object) -> list[str]:
    """A constant has no docstring: its values."""
    values = ", ".join(f"``{value}``" for value in getattr(module, name))
    return [f".. py:data:: {name}", "", f"   {values}"]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


class StatusTable(_Lines):
    """All statuses with their codes and messages."""

    def lines(self) -> list[str]:
        """A list-table."""
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - code", "     - name", "     - message"]
        for status in isdiag.Status:
            lines += [
                f"   * - {int(status)}",
                f"     - ``{status.name}``",
                f"     - {status.message.replace('|', chr(92) + '|')}",
            ]
        return lines


class CapabilityTable(_Lines):
    """Kinds of arrays by functions of log-weights, from the registry that the tests go by."""

    def lines(self) -> list[str]:
        """A list-table; a row for each function."""
        self.env.note_dependency(str(REGISTRY))
        kinds = [kind.package for kind in registry.KINDS]
        rows = [["", "NumPy", *kinds, "on a GPU"]]
        tested = ["tested"] * (1 + len(kinds))
        rows += [[f"`isdiag.{function.name}`", *tested, "refused"] for function in registry.FUNCTIONS]
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in rows:
            lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
        return lines


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("api", API)
    app.add_directive("status-table", StatusTable)
    app.add_directive("capability-table", CapabilityTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
