"""How often intervals cover after moment matching: ``python benchmarks/accuracy/moved_draws.py``.

The proposal is a normal distribution half as wide as the target, as mean-field approximations are. Its
draws are weighed as they are, moved, moved by half, and drawn anew from a Student t where they were moved to.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

import isdiag

N = 2000
PRECISION = np.linalg.inv([[1.0, 0.5, 0.3], [0.5, 1.0, 0.4], [0.3, 0.4, 1.0]])
PROPOSAL = stats.multivariate_normal(np.zeros(3), 0.25 * np.eye(3))


def log_target(x: np.ndarray) -> np.ndarray:
    """A correlated normal density, tilted."""
    first = x[..., 0]
    return -((x @ PRECISION) * x).sum(axis=-1) / 2 + np.log1p(np.exp(-np.abs(first))) + 0.3 * first


def true_mean() -> float:
    """Of the first coordinate, on a grid."""
    axis = np.linspace(-6.0, 6.0, 81)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    mass = np.exp(log_target(grid))
    return float((mass * grid[..., 0]).sum() / mass.sum())


def contestants(rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Log-weights and values of the first coordinate."""
    log_proposal: Callable[[np.ndarray], np.ndarray] = PROPOSAL.logpdf
    x = PROPOSAL.rvs(N, random_state=rng)
    moved = isdiag.moment_match(x, log_target, log_proposal)
    half = isdiag.moment_match(x, log_target, log_proposal, split=True)
    student = stats.multivariate_t(moved.draws.mean(axis=0), np.cov(moved.draws.T), df=5)
    fresh = student.rvs(N, random_state=rng)
    return {
        "as they are": (log_target(x) - log_proposal(x), x[:, 0]),
        "moved": (moved.log_weights, moved.draws[:, 0]),
        "moved by half": (half.log_weights, half.draws[:, 0]),
        "drawn anew": (log_target(fresh) - student.logpdf(fresh), fresh[:, 0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    runs, truth = parser.parse_args().runs, true_mean()
    found: dict[str, list[tuple[bool, bool]]] = {}
    for seed in range(runs):
        for name, (log_w, h) in contestants(np.random.default_rng(seed)).items():
            report = isdiag.diagnose(log_w, h=h)
            covers = report.estimate.low <= truth <= report.estimate.high
            found.setdefault(name, []).append((report.ok, covers))
    print("draws, called sound or noisy, intervals of those that cover")
    for name, outcomes in found.items():
        covering = [covers for ok, covers in outcomes if ok]
        print(f"{name:14} {len(covering) / runs:.2f} {np.mean(covering):.3f}")


if __name__ == "__main__":
    main()
