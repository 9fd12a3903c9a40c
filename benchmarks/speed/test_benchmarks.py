"""Every contestant on every shape: ``python -m pytest benchmarks/speed --benchmark-only``.

Contestants run one after the other here, so a machine that slows down in between is unfair to some;
``python benchmarks/speed/table.py`` interleaves them.
"""

import pytest
from comparisons import COMPARISONS, SHAPES, draw, label

CASES = [
    pytest.param(operation, name, shape, id=f"{operation}-{label(shape)}-{name}")
    for operation, table in COMPARISONS.items()
    for shape in SHAPES[operation]
    for name in table
]


@pytest.mark.parametrize(("operation", "name", "shape"), CASES)
def test_speed(benchmark, operation, name, shape):
    contestant = COMPARISONS[operation][name]
    if reason := contestant.why_not(shape):
        pytest.skip(f"{name}: {reason}")
    benchmark.group = f"{operation}, {label(shape)}"
    call = contestant.bind(draw(shape))
    call()  # compiles, imports, fills caches
    benchmark(call)
