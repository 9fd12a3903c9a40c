"""Every compiled loop of isdiag; this file imports none of them, and Numba neither, until one is asked for.

Conventions
-----------
* A row is a C-contiguous float64 vector of log-weights. An entry of -inf is a draw of zero weight.
  Entries that the caller left out are -inf as well and only the row's count ``n`` tells them apart.
* Inside a kernel log-weights are relative to the row's maximum, so every exponent is <= 0.
* Kernels never raise and never warn: what became of a row is a status code (`isdiag.Status`).
* Rows are independent and a row's arithmetic has a fixed order, so neither the batch around a row
  nor the number of workers can change its bits.
* `@entry` is a kernel that Python calls, `@inner` one that only kernels call.
"""

from importlib import import_module
from typing import Any

_ENTRIES = {
    "caution": ("cautious_ess", "cautious_rows"),
    "curve": ("curve_rows",),
    "ess_search": ("begin_ess_search", "ess_limit", "step_ess_search"),
    "gpd": ("gpd_fit_rows",),
    "least_error": ("least_error_rows",),
    "moments": ("moment_rows",),
    "power_sums": ("kish", "moments_part", "power_sums_part"),
    "psis": ("khat_rows", "psis_rows"),
    "selection": ("refit_rows", "searches_ess", "select_row", "select_rows", "store_ess"),
    "steps": ("entries_between", "ratio_sums", "weight_sums"),
    "sums": ("SEGMENT", "segments_of", "total_of"),
    "survey": ("survey_of", "survey_part", "tail_bound"),
    "truncation": ("cap_rows",),
    "weights": ("ess_rows", "perplexity_rows", "temper_rows"),
    "workspace": ("new_workspace",),
}
_HOME = {name: module for module, names in _ENTRIES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found
