"""Whether the errors of remedies are honest: ``python benchmarks/accuracy/remedies.py``.

Ten small scenarios for each: how often 95 % intervals hold the truth, and the standard deviation of the
estimate over its standard error. Prints a table; takes a minute.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

import isdiag

REPEATS = 1000
# Draws of N(0, 1), targets N(s, 1): spread of the log-weights, and how many draws.
SCENARIOS = [(s, n) for s in (0.2, 0.4, 0.6, 0.8, 1.0) for n in (200, 1000)]


def draws(s: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws of N(0, 1) and their log-weights, (repeats, n)."""
    x = np.random.default_rng([int(10 * s), n]).normal(size=(REPEATS, n))
    return x, s * x - s**2 / 2


def difference(s: float, n: int) -> tuple[isdiag.Estimate, float]:
    """Means of N(s, 1) and N(s + .1, 1)."""
    x, log_w = draws(s, n)
    return isdiag.estimate(log_w + 0.1 * x, x) - isdiag.estimate(log_w, x), 0.1


def ratio(s: float, n: int) -> tuple[isdiag.Estimate, float]:
    """A probability given an event."""
    x, log_w = draws(s, n)
    found = isdiag.estimate(log_w, x > 1) / isdiag.estimate(log_w, x > 0)
    return found, norm.sf(1, s) / norm.sf(0, s)


def deviation(s: float, n: int) -> tuple[isdiag.Estimate, float]:
    """A standard deviation."""
    x, log_w = draws(s, n)
    mean = isdiag.estimate(log_w, x).value[:, None]
    return isdiag.estimate(log_w, (x - mean) ** 2) ** 0.5, 1.0


def clustered(s: float, n: int) -> tuple[isdiag.Estimate, float]:
    """Draws in clusters of five that share most of what they are."""
    rng = np.random.default_rng([int(10 * s), n, 1])
    shared = np.repeat(rng.normal(size=(REPEATS, n // 5)), 5, axis=1)
    x = 0.9 * shared + np.sqrt(0.19) * rng.normal(size=(REPEATS, n))
    return isdiag.estimate(s * x, x, clusters=np.arange(n) // 5), s


def stratified(s: float, n: int) -> tuple[isdiag.Estimate, float]:
    """Draws of two proposals, a quarter of N(-1, 1) and the rest of N(1, 1), for the target N(s, 1)."""
    rng = np.random.default_rng([int(10 * s), n, 2])
    counts, centres = np.array([n // 4, n - n // 4]), np.array([-1.0, 1.0])
    labels = np.repeat([0, 1], counts)
    x = centres[labels] + rng.normal(size=(REPEATS, n))
    log_w = isdiag.mixture_log_weights(-((x - s) ** 2) / 2, -((x - centres[:, None, None]) ** 2) / 2, counts)
    return isdiag.estimate(log_w, x, strata=labels), s


def quantile(q: float) -> object:
    def of_scenario(s: float, n: int) -> tuple[isdiag.Quantile, float]:
        x, log_w = draws(s, n)
        return isdiag.quantile(log_w, x, q), norm.ppf(q, s)

    return of_scenario


REMEDIES = {
    "difference": difference,
    "ratio": ratio,
    "standard deviation": deviation,
    "clusters": clustered,
    "strata": stratified,
    "quantile .1": quantile(0.1),
    "median": quantile(0.5),
    "quantile .9": quantile(0.9),
}


def cell(remedy: object, s: float, n: int) -> tuple[float, float]:
    """(coverage, standard deviation of the estimate over the root mean square of its standard error)."""
    found, truth = remedy(s, n)
    value = found.value if isinstance(found, isdiag.Estimate) else found.estimate
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    known = np.isfinite(found.std_error)
    return float(covered), float(value.std() / np.sqrt(np.mean(found.std_error[known] ** 2)))


def main() -> None:
    print("coverage of 95 % intervals | spread over standard error, at s, n")
    print(" " * 19 + "".join(f"{f'{s}, {n}':>12}" for s, n in SCENARIOS))
    for name, remedy in REMEDIES.items():
        cells = (cell(remedy, s, n) for s, n in SCENARIOS)
        print(f"{name:19}" + "".join(f"{a:7.3f}{b:5.2f}" for a, b in cells), flush=True)


if __name__ == "__main__":
    main()
