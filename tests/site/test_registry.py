"""The registry is complete: what is public is listed; what is listed is as it says, and documented."""

import inspect
import re
from dataclasses import fields, is_dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

import isdiag
from isdiag import Status, rl
from isdiag._core import statuses
from isdiag._core.result import Result
from tests import registry
from tests.helpers import optional

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
ADAPTERS = registry.ADAPTERS
MODULES = ("isdiag", "isdiag.lognormal", "isdiag.printed", "isdiag.rl", "isdiag.rl.presets")
each_module = pytest.mark.parametrize("module", MODULES)


# ----------------------------------------------------------------------------------- what is listed


@pytest.mark.parametrize("module", registry.OTHERS)
def test_every_public_name_is_listed(module):
    if module in ADAPTERS:
        optional(ADAPTERS[module])
    public, listed = set(public_names(module)), registry.listed(module)
    missing, gone = sorted(public - listed), sorted(listed - public)
    assert not missing, (
        f"{missing} of {module} are not in tests/registry.py: add a Function for what takes log-weights, to "
        "HELPERS what takes none, to FIELDS a result, to RESHAPES, SCHEDULES or OBJECTIVES an instance for "
        "each regime, to OTHERS what is none of these"
    )
    assert not gone, f"{gone} stand in tests/registry.py and are not public in {module}: take them out"


def public_names(module):
    found = import_module(module)
    if hasattr(found, "__all__"):
        return found.__all__
    own = {name for name, value in vars(found).items() if getattr(value, "__module__", "") == module}
    return sorted(name for name in own if not name.startswith("_"))


@each_module
def test_all_is_sorted_and_complete(module):
    found = import_module(module)
    classes = [name for name in found.__all__ if isinstance(getattr(found, name), type) or name.isupper()]
    rest = [name for name in found.__all__ if name not in classes]
    assert sorted(rest) == rest
    home = "isdiag." if hasattr(found, "__path__") else module  # a package re-exports
    imported = {
        name
        for name, value in vars(found).items()
        if name[0] != "_" and getattr(value, "__module__", "").startswith(home) and callable(value)
    }
    assert imported <= set(found.__all__)


@pytest.mark.parametrize(
    ("base", "entries"),
    [(rl.Reshape, "RESHAPES"), (rl.Schedule, "SCHEDULES"), (rl.Objective, "OBJECTIVES")],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_every_class_of_a_kind_is_tried_in_every_parameter(base, entries):
    tried = getattr(registry, entries)
    public = {value for value in vars(rl).values() if inspect.isclass(value) and issubclass(value, base)}
    assert [entry.kind for entry in tried] == list(dict.fromkeys(entry.kind for entry in tried))
    missing = {kind.__name__ for kind in public - {base} - {entry.kind for entry in tried}}
    assert not missing, f"add to {entries} of tests/registry.py an instance for each regime of {missing}"
    for entry in tried:
        assert {type(instance) for instance in entry.instances} == {entry.kind}
        parameters = {f.name for f in fields(entry.kind)} - {"log_z"}  # which may be any number
        assert set(entry.refused) == parameters, (
            f"{entry.kind.__name__}: say which values a parameter refuses"
        )


TRIED = [*registry.RESHAPES, *registry.SCHEDULES, *registry.OBJECTIVES]


@pytest.mark.parametrize("entry", TRIED, ids=lambda entry: entry.kind.__name__)
def test_refused_values_are_named(entry):
    good = vars(entry.instances[0])
    for name, values in entry.refused.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{name}.* must") as caught:
                entry.kind(**good | {name: value})
            assert str(value) in str(caught.value)


# ------------------------------------------------------------------------------------- as it is said


@pytest.mark.parametrize("status", Status)
def test_every_status_is_reached_and_says_what_it_means(status):
    assert status in statuses.ORDER, f"say in ORDER of isdiag/_core/statuses.py what {status} gives way to"
    assert status in registry.STATUSES, f"add to STATUSES of tests/registry.py an input that reaches {status}"
    if status in (Status.NOT_FINITE, Status.NOT_FINITE_H):
        with pytest.warns(isdiag.NonFiniteWarning):
            assert registry.STATUSES[status]().status is status
    else:
        assert registry.STATUSES[status]().status is status
    assert status.message.endswith(".")
    assert str(status) == status.name


@pytest.mark.parametrize("kind", registry.FIELDS, ids=lambda kind: kind.__name__)
def test_fields_of_results(kind):
    found = [f.name for f in fields(kind)] if is_dataclass(kind) else list(kind._fields)
    assert found == registry.FIELDS[kind].split()
    assert issubclass(kind, (Result, tuple, rl.Limits))


@pytest.mark.parametrize("function", registry.FUNCTIONS, ids=lambda function: function.name)
def test_results_are_of_the_class_that_is_listed(heavy, function):
    assert function.calls
    for call in function.calls:
        result = call(heavy)
        if call.result is None:
            assert not isinstance(result, Result)
            assert np.shape(result) == (heavy.shape if function.weights else ())
        else:
            assert type(result) is call.result
            assert call.result in registry.FIELDS


@each_module
def test_signatures(module):
    found = {}
    for name in import_module(module).__all__:
        function = attrgetter(name)(import_module(module))
        if inspect.isfunction(function):
            signature = inspect.signature(function)
            bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
            found[name] = str(inspect.Signature(bare))[1:-1]
    assert found == registry.signatures()[module]


# ---------------------------------------------------------------------------------------- documented


def public_names_of(kind):
    """Methods of a class that are no properties."""
    return sorted(
        name for name, value in vars(kind).items() if name[0] != "_" and not isinstance(value, property)
    )


def documented():
    """Names by module, from the ``{api} module`` blocks of the reference."""
    names = {}
    for page in REFERENCE.glob("*.md"):
        blocks = re.findall(r"^```\{api\} (\S+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for module, block in blocks:
            names.setdefault(module, []).extend(block.split())
    return names


@pytest.mark.parametrize("module", registry.OTHERS)
def test_the_reference_has_what_is_listed(module):
    names = documented()
    pages_of_their_own = {name for name in registry.OTHERS[module] if f"{module}.{name}" in names}
    assert sorted(names[module]) == sorted(registry.listed(module) - pages_of_their_own)


DOCUMENTED = [
    f"{module}.{name}"
    for module in MODULES
    for name in sorted(registry.listed(module))
    if callable(getattr(import_module(module), name))
]
DOCUMENTED += [f"isdiag.rl.GammaController.{name}" for name in ("step", "state_dict", "load_state_dict")]
DOCUMENTED += [f"isdiag.Summary.{name}" for name in public_names_of(isdiag.Summary)]


DOCUMENTED += [f"{module}.{name}" for module in ADAPTERS for name in sorted(registry.OTHERS[module])]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstrings_are_complete_numpydoc(name):
    from numpydoc.validate import validate

    module = next((module for module in ADAPTERS if name.startswith(f"{module}.")), "isdiag")
    if module in ADAPTERS:
        optional(ADAPTERS[module])
    # See Also, extended summaries and the place of the opening quotes are matters of taste.
    ignored = {"SA01", "ES01", "GL01"}
    found = attrgetter(name.removeprefix(f"{module}."))(import_module(module))
    if not callable(found):
        assert found.__doc__
        return
    if not inspect.isfunction(found):
        ignored |= {"EX01", "PR01"}  # the functions that return them show and document them
    if "GammaController." in name:
        ignored |= {"EX01"}  # the class shows them
    errors = validate(name)["errors"]
    assert [error for error in errors if error[0] not in ignored] == []


@pytest.mark.parametrize("parameter", ["draws", "r_eff", "tail_length", "workers"])
def test_a_parameter_is_described_in_one_way(parameter):
    texts = {}
    for function in registry.FUNCTIONS:
        if parameter in function.takes:
            text = inspect.getdoc(getattr(isdiag, function.name))
            block = re.search(rf"^{parameter} : .*\n(?:    .*\n)+", text, re.MULTILINE)
            # r_eff may be estimated where draws may be those of chains.
            kind = parameter == "r_eff" and "draws" in function.takes
            texts.setdefault(kind, {}).setdefault(block[0], []).append(function.name)
    assert all(len(of_kind) == 1 for of_kind in texts.values()), texts


@pytest.mark.parametrize("name", registry.signatures()["isdiag"])
def test_functions_name_their_source(name):
    text = inspect.getdoc(getattr(isdiag, name))
    assert re.search(r"\nReferences\n-+\n.*\[\w+\]_", text)
    assert "Examples\n---" in text
