"""How a result prints."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def _brief(value: Any) -> str:
    shape = getattr(value, "shape", ())
    if shape and max(shape) > 6:
        return f"<{'x'.join(map(str, shape))} {type(value).__name__}>"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Result:
    """Base of the result dataclasses: a repr that stays readable whatever the arrays hold."""

    def __repr__(self) -> str:
        values = ", ".join(f"{f.name}={_brief(getattr(self, f.name))}" for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({values})"
