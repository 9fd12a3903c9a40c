"""Leave-one-out by isdiag and by ArviZ: the same numbers, the time they take, and the memory.

``python benchmarks/arviz/loo.py [--out FOLDER] [--only numbers|time|memory]`` prints Markdown, and with
``--out`` writes it there with a plot. Needs isdiag[arviz,bench], dask, and h5netcdf for ArviZ's examples; all
of it takes some ten minutes and 10 GB.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import arviz_stats as az
import numpy as np
import xarray
from arviz_base import load_arviz_data, rcParams
from scipy.special import expit
from sklearn.datasets import load_breast_cancer, load_diabetes

import isdiag.arviz

ROOT = Path(__file__).parents[2]
DIMS = ("chain", "draw")
PACKAGES = ("isdiag", "arviz-stats", "xarray", "numpy", "numba")

# --------------------------------------------------------------------------------------------- posteriors


def tree(log_lik: np.ndarray, **parameters: np.ndarray) -> xarray.DataTree:
    """Draws of parameters and the log-likelihood of each observation, chains and draws first."""
    shape = dict(zip(DIMS, log_lik.shape[:2], strict=True))
    coords = {dim: np.arange(size) for dim, size in shape.items()}
    posterior = {
        name: ((*DIMS, *(f"{name}_{i}" for i in range(values.ndim - 2))), values)
        for name, values in parameters.items()
    }
    return xarray.DataTree.from_dict(
        {
            "posterior": xarray.Dataset(posterior, coords),
            "log_likelihood": xarray.Dataset({"y": ((*DIMS, "obs"), log_lik)}, coords),
        }
    )


def stack_loss() -> xarray.DataTree:
    """The quadratic regression that comes with isdiag; as its draws are independent, any are a chain."""
    stored = np.load(ROOT / "isdiag" / "data" / "stack_loss.npz")
    log_lik = -stored["log_ratios"].reshape(4, 500, -1)
    return tree(log_lik, total=log_lik.sum(axis=2))


def diabetes() -> xarray.DataTree:
    """A regression of 442 patients on 10 variables with a conjugate prior: independent draws."""
    rng = np.random.default_rng(1)
    x, y = load_diabetes(return_X_y=True)
    x, y = np.c_[np.ones(len(y)), x * 20], (y - y.mean()) / y.std()
    precision = x.T @ x + np.eye(x.shape[1])
    mean = np.linalg.solve(precision, x.T @ y)
    scale = (1 + y @ y - mean @ precision @ mean) / 2
    variance = scale / rng.gamma(1 + len(y) / 2, size=(4, 1000))
    noise = rng.normal(size=(4, 1000, x.shape[1])) @ np.linalg.cholesky(np.linalg.inv(precision)).T
    beta = mean + np.sqrt(variance)[..., None] * noise
    error = (y - beta @ x.T) ** 2
    log_lik = -error / (2 * variance[..., None]) - np.log(2 * np.pi * variance[..., None]) / 2
    return tree(log_lik, beta=beta, variance=variance)


def breast_cancer() -> xarray.DataTree:
    """A logistic regression of 569 tumours on 4 variables, by a random walk: dependent draws."""
    rng = np.random.default_rng(2)
    x, y = load_breast_cancer(return_X_y=True)
    x = np.c_[np.ones(len(y)), (x[:, :4] - x[:, :4].mean(axis=0)) / x[:, :4].std(axis=0)]

    def log_lik(beta: np.ndarray) -> np.ndarray:
        return -np.logaddexp(0.0, (1 - 2 * y) * (beta @ x.T))

    beta = np.zeros((4, x.shape[1]))
    for _ in range(30):  # Newton's method, to the mode
        p = expit(beta[0] @ x.T)
        hessian = (x.T * (p * (1 - p))) @ x + np.eye(x.shape[1]) / 4
        beta += np.linalg.solve(hessian, x.T @ (y - p) - beta[0] / 4)
    root = 1.06 * np.linalg.cholesky(np.linalg.inv(hessian))
    kept, current = [], log_lik(beta).sum(axis=1) - (beta**2).sum(axis=1) / 8
    for step in range(6000):
        proposal = beta + rng.normal(size=beta.shape) @ root.T
        proposed = log_lik(proposal).sum(axis=1) - (proposal**2).sum(axis=1) / 8
        taken = np.log(rng.uniform(size=4)) < proposed - current
        beta, current = np.where(taken[:, None], proposal, beta), np.where(taken, proposed, current)
        if step >= 1000 and step % 5 == 0:
            kept.append(beta)
    draws = np.stack(kept, axis=1)
    return tree(log_lik(draws), beta=draws)


def half(data: xarray.DataTree) -> xarray.DataTree:
    return data.map_over_datasets(lambda part: part.astype(np.float32))


POSTERIORS = {
    "eight schools, centred": lambda: load_arviz_data("centered_eight"),
    "eight schools, not centred": lambda: load_arviz_data("non_centered_eight"),
    "stack loss, regression": stack_loss,
    "diabetes, regression": diabetes,
    "breast cancer, logistic regression": breast_cancer,
    "diabetes, in float32": lambda: half(diabetes()),
}


def r_eff_of_arviz(data: xarray.DataTree) -> float:
    """The one number that ArviZ's `loo` takes from the parameters."""
    posterior = data["posterior"].to_dataset()
    found = posterior.azstats.ess(method="mean")
    n = posterior.sizes["chain"] * posterior.sizes["draw"]
    return float(np.hstack([found[name].values.ravel() for name in found.data_vars]).mean() / n)


def numbers() -> list[str]:
    lines = [
        "| posterior | draws | observations | largest khat | elpd | se | p | khat | by default: elpd, khat |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, make in POSTERIORS.items():
        data = make()
        reff = r_eff_of_arviz(data)
        wide = (
            data.map_over_datasets(lambda part: part.astype(np.float64, copy=False)) if "32" in name else data
        )
        theirs = az.loo(wide, reff=reff)
        ours, by_default = isdiag.arviz.loo(data, reff=reff), isdiag.arviz.loo(data)
        off = [abs(ours[field] - theirs[field]) for field in ("elpd", "se", "p")]
        off.append(float(abs(ours.pareto_k - theirs.pareto_k).max()))
        change = by_default.elpd - theirs.elpd, float(abs(by_default.pareto_k - theirs.pareto_k).max())
        cells = [name, f"{ours.n_samples}", f"{ours.n_data_points}", f"{ours.pareto_k.max().item():.2f}"]
        cells += [f"{each:.0e}" for each in off] + [f"{change[0]:+.3f}, {change[1]:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


# --------------------------------------------------------------------------------------------------- time


def simulated(observations: int, draws: int = 1000) -> xarray.DataTree:
    """A normal mean and standard deviation."""
    rng = np.random.default_rng(0)
    mean, log_sd = 0.3 * rng.normal(size=(4, draws, 1)), 0.1 * rng.normal(size=(4, draws, 1))
    y = 1.5 * rng.normal(size=observations)
    log_lik = -(((y - mean) * np.exp(-log_sd)) ** 2) / 2 - log_sd
    return tree(log_lik, mean=mean[..., 0], sd=np.exp(log_sd[..., 0]))


def by_arviz(data: xarray.DataTree, module: object, **options: object) -> object:
    before = rcParams["stats.module"]
    rcParams["stats.module"] = module
    try:
        return az.loo(data, **options)
    finally:
        rcParams["stats.module"] = before


CONTESTANTS = {
    "az.loo, numba": lambda data: by_arviz(data, "numba"),
    "az.loo": lambda data: by_arviz(data, "base"),
    "az.loo, isdiag.arviz.backend": lambda data: by_arviz(data, isdiag.arviz.backend),
    "isdiag.arviz.loo": isdiag.arviz.loo,
    "isdiag.arviz.loo, reff of ArviZ": lambda data: isdiag.arviz.loo(data, reff=r_eff_of_arviz(data)),
    "the same and its log_weights": lambda data: (
        isdiag.arviz.loo(data, reff=r_eff_of_arviz(data)).log_weights
    ),
}


def times(rounds: dict[int, int]) -> list[str]:
    lines = ["| observations | | CPU s, median | fastest | numba / it |", "|--:|---|--:|--:|--:|"]
    small = simulated(20)
    for function in CONTESTANTS.values():
        function(small)  # compiles
    for observations, count in rounds.items():
        data = simulated(observations)
        taken: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        for _ in range(count):
            for name, function in CONTESTANTS.items():
                start = time.process_time()
                function(data)
                taken[name].append(time.process_time() - start)
        baseline = statistics.median(taken["az.loo, numba"])
        for name, seconds in taken.items():
            middle = statistics.median(seconds)
            lines.append(
                f"| {observations} | {name} | {middle:.3g} | {min(seconds):.3g} | {baseline / middle:.1f} |"
            )
    return lines


# ------------------------------------------------------------------------------------------------- memory

MEMORY_DRAWS = 250  # in each of 4 chains
SIZES = (1000, 10_000, 100_000, 1_000_000)


def high_water() -> int:
    """The largest memory of this process so far, in KB; that of getrusage begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def peak(kind: str, observations: int) -> None:
    """Print by how many MB the peak of memory grows in this process."""
    warmed = simulated(50, MEMORY_DRAWS)
    by_arviz(warmed, "base", reff=1.0)
    isdiag.arviz.loo(warmed, reff=1.0)
    rng = np.random.default_rng(0)
    mean = 0.3 * rng.normal(size=(4, MEMORY_DRAWS, 1))
    y = xarray.DataArray(1.5 * rng.normal(size=observations), dims="obs")
    groups = {
        "posterior": xarray.Dataset({"mean": (DIMS, mean[..., 0])}),
        "observed_data": xarray.Dataset({"y": y}),
    }

    def log_lik_fn(observed: xarray.DataArray, data: xarray.DataTree) -> np.ndarray:
        return -((observed.values - data["posterior"]["mean"].values[..., None]) ** 2) / 2

    data = xarray.DataTree.from_dict(groups)
    before = high_water()
    if kind == "function":
        isdiag.arviz.loo(data, log_lik_fn=log_lik_fn, reff=1.0)
    elif kind == "chunks":
        draws = xarray.DataArray(mean[..., 0], dims=DIMS)
        isdiag.arviz.loo(-((y.chunk(obs=5000) - draws) ** 2) / 2, reff=1.0)
    else:
        in_memory = tree(log_lik_fn(y, data))
        isdiag.arviz.loo(in_memory, reff=1.0) if kind == "memory" else by_arviz(in_memory, "base", reff=1.0)
    print((high_water() - before) / 1024)


KINDS = {
    "az.loo": "arviz",
    "isdiag.arviz.loo, in memory": "memory",
    "isdiag.arviz.loo, chunks of 5000": "chunks",
    "isdiag.arviz.loo, log_lik_fn": "function",
}


def memory(sizes: tuple[int, ...]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name, kind in KINDS.items():
        found[name] = []
        for size in sizes:
            if kind in ("arviz", "memory") and size > 100_000:
                continue
            command = [sys.executable, __file__, "--peak", kind, str(size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            found[name].append(float(done.stdout))
    return found


def memory_lines(found: dict[str, list[float]], sizes: tuple[int, ...]) -> list[str]:
    lines = [f"| MB, by observations | {' | '.join(map(str, sizes))} |", "|---|" + "--:|" * len(sizes)]
    for name, values in found.items():
        cells = [f"{value:.0f}" for value in values] + ["-"] * (len(sizes) - len(values))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    array = [f"{size * 4 * MEMORY_DRAWS * 8 / 2**20:.0f}" for size in sizes]
    return [*lines, f"| the log-likelihood itself | {' | '.join(array)} |"]


def plot(found: dict[str, list[float]], sizes: tuple[int, ...], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for (name, values), marker in zip(found.items(), "xosd", strict=True):
        axes.plot(sizes[: len(values)], values, marker=marker, label=name)
    axes.plot(
        sizes, [size * 4 * MEMORY_DRAWS * 8 / 2**20 for size in sizes], "k:", label="the log-likelihood"
    )
    axes.set(xscale="log", yscale="log", xlabel="observations", ylabel="MB beyond the program")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("numbers", "time", "memory"))
    parser.add_argument("--peak", nargs=2)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.peak:
        peak(arguments.peak[0], int(arguments.peak[1]))
        return
    wanted = (arguments.only,) if arguments.only else ("numbers", "time", "memory")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = ["# Leave-one-out beside ArviZ", ""]
    lines += [f"Python {platform.python_version()}, {versions}; `python benchmarks/arviz/loo.py`."]
    if "numbers" in wanted:
        lines += ["", "## The same numbers", "", *_NUMBERS, "", *numbers()]
    if "time" in wanted:
        lines += [
            "",
            "## Time",
            "",
            *_TIME,
            "",
            *times({300: 2} if arguments.quick else {3000: 5, 30_000: 2}),
        ]
    if "memory" in wanted:
        sizes = SIZES[:2] if arguments.quick else SIZES
        found = memory(sizes)
        lines += ["", "## Memory", "", *_MEMORY, "", *memory_lines(found, sizes)]
        if arguments.out:
            plot(found, sizes, arguments.out / "arviz_memory.png")
            lines += ["", "![Peak memory against observations](arviz_memory.png)"]
    print("\n".join(lines))
    if arguments.out:
        (arguments.out / "arviz_loo.md").write_text("\n".join([*lines, ""]))


_NUMBERS = (
    "Differences to `az.loo` at the same `reff` and tail; for float32 to `az.loo` of the same numbers in",
    "float64. The last column is what the default changes: the relative efficiency of each observation's",
    "likelihoods where ArviZ takes one of the parameters. Tumour 461 makes the difference in khat of the",
    "logistic regression: its log-weights range over 0.006, and against 40 digits khat is off by 7e-14 here,",
    "and by 8e-12 there, where weights less the cutoff cancel.",
)
_TIME = (
    "Of 4 chains with 1000 draws, CPU seconds of one process, whose contestants take turns. `numba / it` is",
    'how many times faster than `az.loo` with `rcParams["stats.module"] = "numba"`. isdiag makes',
    "`log_weights` when they are asked for. By default it takes the relative efficiency of the likelihoods",
    "of each observation; with `reff=`, one number for all, that time is saved.",
)
_MEMORY = (
    f"Of 4 chains with {MEMORY_DRAWS} draws: by how many MB the peak of a process grows, what the",
    "log-likelihood takes included.",
)

if __name__ == "__main__":
    main()
