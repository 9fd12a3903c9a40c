"""Reports for machines: strict JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from isdiag import Diagnosis
from isdiag._core.result import strict
from isdiag.report.merged import Merged
from isdiag.report.source import Source, estimates


def to_json(reports: Sequence[tuple[Source | Merged, Diagnosis]]) -> str:
    """The reports as strict JSON: a list of sources, each with a list of columns in file order."""
    result: list[dict[str, Any]] = []
    for source, diagnosis in reports:
        names = [None] if source.columns is None else source.columns
        columns = [
            {"column": name} | {key: strict(value) for key, value in record.items()}
            for name, record in zip(names, diagnosis.records(), strict=True)
        ]
        for estimate, values in estimates(diagnosis).items():
            for column, value in zip(columns, np.ravel(values).tolist(), strict=True):
                column[estimate] = strict(value)
        ok = all(column["ok"] for column in columns)
        result.append({"source": source.name, "ok": ok, "columns": columns})
    return json.dumps(result, indent=2)
