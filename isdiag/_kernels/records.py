"""What kernels write: codes, and a record of named numbers for each row. NumPy alone reads this file."""

import math

import numpy as np

# Codes of `isdiag.Status`, and of what set gamma; a test holds both to their names.
OK, FLAT, TAIL_TOO_SHORT, DEGENERATE_TAIL, INFEASIBLE, NO_WEIGHT, NOT_FINITE = range(7)
CONSTANT_H, TWO_VALUED_H, ERROR_UNCERTAIN, NOT_FINITE_H, ONE_DRAW, ERROR_ROUGH = 7, 8, 9, 10, 11, 13
POOR_TAIL_FIT = 14
FITTED = (OK, POOR_TAIL_FIT)  # of a tail that a law was fitted to, well or poorly
# A standard error that fewer draws carry is rough, one that fewer than the other carry is likely too small.
# Chosen so that the second grade is given to nearly all cells of a study whose intervals cover less than
# 85 %, and to few good ones, see docs/explanation/which_rule.md. Six equal draws are six, up to rounding.
ROUGH_ERROR_DRAWS, FEW_ERROR_DRAWS = 15.0 - 1e-9, 6.0 - 1e-9
# Log of a weight that is none next to one of 1, as kernels take powers of two: h is not looked at there.
NEXT_TO_NOTHING = -1021.0 * math.log(2.0)

# The prior of a fit [Vehtari2024]_: ten pseudo-draws at k = 1/2.
PRIOR_DRAWS = 10.0
PRIOR_K = 0.5

# What a divergence is, and what it is the mean of, see `divergence_terms.Terms`.
MOMENT, RENYI, AMARI, CHI2, HALF_SQUARED, GENERATED = range(6)
GENERATOR, GENERATOR_NEAR_1, GENERATOR_APART, RATIO, LESS_ONE, WEIGHTED, MINUS_LOG, HALF_SQUARE = range(8)

BY_NONE, BY_PSIS, BY_ESS, BY_MAX, BY_MSE = range(5)


def _record(floats, ints="", codes=""):
    kinds = ((floats, np.float64), (ints, np.int64), (codes, np.int8))
    return np.dtype([(name, kind) for names, kind in kinds for name in names.split()], align=True)


SELECTION = _record("gamma gamma_psis gamma_ess khat khat_tempered ess ess_ratio", "n", "limited_by status")
SMOOTHED = _record("khat ess", "tail_length n", "status")
LEFT_OUT = _record("elpd lppd error khat khat_std_error ess", "tail_length n", "status")
SUMMED = _record("ess log_total variance", "n_finite", "status")
# Of the mean of one component of h, and of the weights.
ESTIMATED = _record("estimate std_error bias low high", codes="status")
WEIGHED = _record("ess khat log_z log_z_std_error error_draws")
# Of w^gamma (h - estimate), for one component of h.
COMPONENT = _record("std_error skewness ess error_draws khat_right khat_left", "", "unknown status")
# Of w^gamma h on w^gamma over its largest, h being scale h - centre: means, sums of squares of the weights
# and of what the slope leaves, the variance of w^gamma h itself, and what is known of the error.
REGRESSION = _record(
    "scale centre mean_weight less_one average slope spread variance squares skewness error_draws",
    "",
    "is_flat status",
)
# The mean of w^gamma that a regression is taken at, mean exp(top), that mean less one, and the share of the
# slope that is the best coefficient; and what the regression then says.
EXPECTED = _record("mean_weight less_one top share")
CONTROLLED = _record(
    "estimate std_error std_error_plain plain coefficient low high error_draws", codes="status"
)
OF_TAIL = _record("khat")
DIVERGENCE = _record(
    "estimate std_error khat skewness error_draws log_mean mean_error order high top origin slope",
    "unit",
    "kind sign state status",
)
DIVERGED = _record("estimate std_error khat low high error_draws", codes="status")
# What the estimate of least error starts from: the tail of w, and the log-weight at which to truncate.
TRUNCATED = _record("khat cap", "", "presence status")
# That estimate, of one component of h, and the tempered estimate beside it at each gamma.
ACCURATE = _record("estimate std_error bias mse error_draws low high", codes="status")
CHOSEN = _record("gamma khat khat_tempered ess ess_ratio", "n", "limited_by")
LEAST_ERROR = _record("estimate std_error bias skewness error_draws")
ON_CURVE = _record("estimate std_error bias tempering_bias tempering_bias_std_error mse ess")
ON_PATH = _record("ess khat log_z log_z_std_error error_draws", codes="status")
LOG_Z = _record("estimate std_error khat disagreement low high error_draws", codes="status")
