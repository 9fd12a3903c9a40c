"""Directives that make pages from the code: `api`, `status-table` and `capability-table`.

    ```{api} isdiag
    psis
    pareto_khat
    ```

documents names of a module, one a line: a table first, then each docstring.
"""

import ast
import inspect
from importlib import import_module
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import isdiag

ROOT = Path(__file__).parents[2]
BOUNDARY = ROOT / "tests" / "api" / "test_arrays.py"


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
        module = import_module(home) if home not in ("isdiag.torch", "isdiag.jax") else None
        kinds = {name: _kind(home, name, module) for name in names}
        lines = [f".. currentmodule:: {home}", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   {name}" for name in names if kinds[name] != "data"] + [""]
        for name, kind in kinds.items():
            lines += [*(_values(name, module) if kind == "data" else _directive(name, kind)), ""]
        return lines


def _kind(home: str, name: str, module: object) -> str:
    """What autodoc calls a thing; modules that may be mocked are read, not imported."""
    if module is None:
        tree = ast.parse((ROOT / (home.replace(".", "/") + ".py")).read_text())
        (node,) = (n for n in tree.body if getattr(n, "name", None) == name)
        return "class" if isinstance(node, ast.ClassDef) else "function"
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
    """Kinds of arrays by functions of log-weights, from the tests of the boundary."""

    def lines(self) -> list[str]:
        """A list-table; its rows are the functions whose first argument is `log_w`."""
        names = [
            name
            for name in isdiag.__all__
            if inspect.isfunction(function := getattr(isdiag, name))
            and next(iter(inspect.signature(function).parameters)) == "log_w"
        ]
        self.env.note_dependency(str(BOUNDARY))
        registry, kinds, called = _tested()
        for page in BOUNDARY.parent.glob("test_*.py"):
            registry |= _called(ast.parse(page.read_text()))
        head = ["", "NumPy", *kinds, "on a GPU"]
        rows = [head]
        for name in names:
            numpy = "tested" if name in registry else "yes"
            rows.append([f"`isdiag.{name}`", numpy, *["tested" if name in called else "yes"] * len(kinds)])
            rows[-1].append("refused")
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in rows:
            lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
        return lines


def _tested() -> tuple[set[str], list[str], set[str]]:
    """Functions in the boundary's registry, the other kinds of arrays, and functions called with those."""
    tree = ast.parse(BOUNDARY.read_text())
    registry: set[str] = set()
    kinds: list[str] = []
    called: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "FUNCTIONS":
            registry = _called(node)
        elif isinstance(node, ast.FunctionDef) and node.name == "kind":
            (fixture,) = node.decorator_list
            (ids,) = (keyword.value for keyword in fixture.keywords if keyword.arg == "ids")
            kinds = ast.literal_eval(ids)
        elif isinstance(node, ast.FunctionDef) and "kind" in {a.arg for a in node.args.args}:
            called |= _called(node)
            if any("FUNCTIONS" in ast.unparse(mark) for mark in node.decorator_list):
                called |= registry
    if not (registry and kinds and called):
        msg = f"{BOUNDARY} no longer has what the table of array kinds is made from"
        raise ValueError(msg)
    return registry, kinds, called


def _called(node: ast.AST) -> set[str]:
    """Names that stand after ``isdiag.``."""
    return {
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "isdiag"
    }


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("api", API)
    app.add_directive("status-table", StatusTable)
    app.add_directive("capability-table", CapabilityTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
