"""Log-weights of a file, with the names that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from isdiag import Diagnosis, diagnose


@dataclass(frozen=True, eq=False)
class Source:
    """Log-weights of a file: one vector, or draws x columns with the columns' names."""

    name: str
    log_w: NDArray[Any]
    columns: list[str] | None

    def diagnose(self, **options: Any) -> Diagnosis:
        """Diagnose the vector, or each column."""
        return diagnose(self.log_w, axis=0, **options)


def source_of(name: str, array: NDArray[Any], columns: list[str] | None = None) -> Source:
    """Check an array and name its columns."""
    if array.dtype.kind not in "fiu":
        msg = f"{name}: expected real numbers, got dtype {array.dtype}"
        raise ValueError(msg)
    if array.ndim not in (1, 2) or array.size == 0:
        msg = f"{name}: expected one vector or draws x columns, got shape {array.shape}"
        raise ValueError(msg)
    if array.ndim == 2 and array.shape[0] == 1:  # a vector on one line, not many columns of one draw
        array = array[0]
    if array.ndim == 1:
        return Source(name, array, None)
    names = columns or [str(j) for j in range(array.shape[1])]
    if len(names) != array.shape[1]:
        msg = f"{name}: {len(names)} names for {array.shape[1]} columns"
        raise ValueError(msg)
    return Source(name, array, names)
