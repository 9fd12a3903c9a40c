"""What a type checker must find; pyright reads this file, nothing runs it."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import isdiag
from isdiag import rl


def select_gamma_by_its_rule(x: NDArray[np.float64]) -> None:
    assert_type(isdiag.select_gamma(x), isdiag.GammaSelection)
    assert_type(isdiag.select_gamma(x, k_max=None, ess_min=0.5), isdiag.GammaSelection)
    assert_type(isdiag.select_gamma(x, rule="refit", axis=(0,), workers=-1), isdiag.GammaSelection)
    best = isdiag.select_gamma(x, rule="mse", h=x)
    assert_type(best, isdiag.AccurateSelection)
    assert_type((best.estimate, best.std_error), tuple[Any, Any])
    print(isdiag.select_gamma(x).estimate)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]  # noqa: T201
    isdiag.select_gamma(x, rule="mse")  # pyright: ignore[reportArgumentType]
    isdiag.select_gamma(x, h=x)  # pyright: ignore[reportArgumentType]
    isdiag.select_gamma(x, rule="best")  # pyright: ignore[reportArgumentType]


def each_function_has_its_result(x: NDArray[np.float64]) -> None:
    assert_type(isdiag.psis(x), isdiag.PSIS)
    assert_type(isdiag.truncate(x), isdiag.Truncated)
    assert_type(isdiag.gpd_fit(x), isdiag.GPDFit)
    assert_type(isdiag.snis(x, x, smooth="psis"), isdiag.SNIS)
    assert_type(isdiag.snis(x, x, smooth="auto"), isdiag.SNIS)
    assert_type(isdiag.estimate(x, x), isdiag.Estimate)
    assert_type(isdiag.estimate(x, x) - 2.0 * isdiag.estimate(x, x), isdiag.Estimate)
    assert_type(isdiag.quantile(x, x, 0.5), isdiag.Quantile)
    assert_type(isdiag.diagnose(x), isdiag.Diagnosis)
    assert_type(isdiag.diagnose(x, x).ok, Any)
    assert_type(isdiag.diagnose(x).to_dict(), dict[str, Any])
    assert_type(isdiag.mse_curve(x, x), isdiag.MSECurve)
    assert_type(isdiag.confidence_interval(x, x), isdiag.ConfidenceInterval)
    assert_type(isdiag.expectation_diagnostics(x, x), isdiag.ExpectationDiagnostics)
    assert_type(isdiag.finite_variance_test(x), isdiag.FiniteVarianceTest)
    assert_type(isdiag.control_variate(x, x), isdiag.ControlVariate)
    assert_type(isdiag.log_moment(x, 2.0), isdiag.Divergence)
    assert_type(isdiag.renyi_divergence(x, 2.0), isdiag.Divergence)
    assert_type(isdiag.alpha_divergence(x, 0.5), isdiag.Divergence)
    assert_type(isdiag.kl_divergence(x, direction="proposal"), isdiag.Divergence)
    assert_type(isdiag.chi2_divergence(x), isdiag.Divergence)
    assert_type(float(isdiag.kl_divergence(x)), float)
    assert_type(isdiag.geometric_path(x, x, [0.5]), isdiag.GeometricPath)
    assert_type(isdiag.stepping_stone(x, [0.0, 1.0]), isdiag.LogZ)
    assert_type(isdiag.thermodynamic(x, [0.0, 1.0]), isdiag.LogZ)
    isdiag.ess(x, kind="best")  # pyright: ignore[reportArgumentType]
    isdiag.kl_divergence(x, estimator="k4")  # pyright: ignore[reportArgumentType]
    isdiag.psis(x, 0.5)  # pyright: ignore[reportCallIssue]


def off_policy_learning(x: NDArray[np.float64]) -> None:
    controller = rl.GammaController(rl.Power(0.4), rl.Diagnosed())
    assert_type(controller.step(x, x), rl.Step)
    assert_type(controller.history.logged(), list[tuple[int, dict[str, float]]])
    assert_type(rl.compare_weights(x, x), rl.Step)
    assert_type(controller.gamma, float)
    assert_type(
        rl.take_step(x, reshape=rl.SFT(), schedule=rl.Fixed(), state=rl.State(0.3)), tuple[rl.State, rl.Step]
    )
    assert_type(rl.Power()(x), rl.Reshaped)
    assert_type(rl.Power().at(0.3), rl.Power)
    assert_type(rl.Truncated().bound, float)


def a_summary_gives_the_same_results(x: NDArray[np.float64]) -> None:
    summary = isdiag.Summary.of(x, x).merge(isdiag.Summary.of_parts([(x, x)]))
    assert_type(summary, isdiag.Summary)
    assert_type(isdiag.Summary.from_bytes(summary.to_bytes()), isdiag.Summary)
    assert_type(summary.to_bytes(), bytes)
    assert_type(summary.select_gamma(rule="refit"), isdiag.GammaSelection)
    assert_type(summary.snis(), isdiag.SNIS)
    assert_type(summary.diagnose(), isdiag.Diagnosis)
    summary.select_gamma(rule="mse")  # pyright: ignore[reportArgumentType]
    summary.merge(x)  # pyright: ignore[reportArgumentType]
