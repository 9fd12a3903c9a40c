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
* A kernel of several passes over a row is written once, as a function of its passes (`selecting`,
  `smoothing`, ...): of the compiled ones it is compiled, of those that threads share (`isdiag._core.parts`)
  Python runs it. What else it calls is an entry, so that both can.
"""

from importlib import import_module
from typing import Any

_ENTRIES = {
    "accurate": ("accurate_rows",),
    "averages": ("averaging", "averaging_row", "log_mean_rows", "moment_rows", "weighing", "weight_rows"),
    "bin_sums": ("bin_body_sums", "bin_ess_search", "bin_power_sums", "store_bin_sums"),
    "bins": ("GROUPS", "POWERS", "SLOTS", "empty_slots", "fill_slots", "join_bins"),
    "caution": ("cautious_ess", "cautious_gamma", "cautious_rows", "holding", "power_mean"),
    "chains": ("covariance_rows", "halve_rows"),
    "divergence_terms": ("term_sums_part",),
    "divergences": ("divergence_influence_rows", "divergence_rows", "diverging"),
    "ess_search": ("searching_ess",),
    "control": ("control_rows",),
    "estimates": ("estimate_rows", "estimating_rows", "snis_rows"),
    "expectation": ("component_rows",),
    "gpd": ("gpd_fit_rows", "weighted_gpd_row"),
    "influence": ("influence_rows", "power_sum_rows", "relative_rows"),
    "interval": ("bounded_rows", "grade_errors", "interval_rows", "name_first", "student_rows"),
    "least_error": ("least_error_rows",),
    "leave_one_out": ("leave_one_out_rows", "predictive_rows"),
    "likelihood_ratio": ("comparing_tails", "likelihood_ratio_rows", "ratio_of_tail"),
    "log_z": ("integral_rows", "sum_steps"),
    "moments": (
        "code_of_values",
        "estimating",
        "first_at",
        "largest_with_weight",
        "origin_rows",
        "scalar_sums_part",
        "scalar_values",
    ),
    "paths": ("following", "path_rows"),
    "power_sums": ("body_sums_part", "moments_part", "summing"),
    "psis": ("khat_rows", "measuring_tails", "psis_rows", "smoothing", "smoothing_row"),
    "quantiles": ("quantile_end_rows", "quantile_rows"),
    "regression": ("regression_rows",),
    "resampling": ("multinomial_rows", "residual_rows", "strata_rows"),
    "reweighting": ("longest_step_rows",),
    "selection": ("refit_rows", "refitting", "select_rows", "selecting"),
    "steps": ("all_known", "order_statistics", "ratio_sums", "weight_sums"),
    "sums": ("SEGMENT", "segments_of", "total_of"),
    "survey": (
        "extent_between",
        "extent_part",
        "new_candidates",
        "survey_of",
        "survey_part",
        "tail_bound",
    ),
    "term_averages": ("averaging_terms",),
    "truncation": ("truncate_rows", "truncating", "write_capped"),
    "units": ("scale_rows",),
    "vector_moments": ("estimating_vectors", "vector_sums_part", "vector_values"),
    "weights": (
        "ess_rows",
        "counting",
        "perplexity_rows",
        "temper_rows",
        "tempering",
        "write_tempered",
    ),
}
_HOME = {name: module for module, names in _ENTRIES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    found = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found
