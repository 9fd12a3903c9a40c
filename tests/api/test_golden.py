"""Against values at 50 digits, and against R's tables."""

import csv

import numpy as np
import pytest

import isdiag
from tests.helpers import GOLDEN, golden_cases

CASES = [
    pytest.param(log_w, exact[convention], id=f"{name}-{convention}")
    for name, log_w, exact in golden_cases()
    for convention in ("ceil", "floor")
]


@pytest.mark.parametrize(("log_w", "exact"), CASES)
def test_psis(log_w, exact):
    result = isdiag.psis(log_w, tail_length=exact["n_tail"])
    tail = np.sort(result.log_weights)[-exact["n_tail"] :]
    expected = np.array(exact["smoothed_tail_lognorm"])
    if expected.size < tail.size:  # every 50th value is stored of a long tail
        tail = tail[::50]
    assert result.status == isdiag.Status.OK
    assert abs(result.khat - exact["khat"]) <= 1e-12
    np.testing.assert_allclose(tail, expected, rtol=0, atol=1e-11)
    assert result.ess == pytest.approx(exact["ess"], rel=1e-12)
    assert isdiag.ess(log_w) == pytest.approx(exact["raw_ess"], rel=1e-12)
    assert isdiag.ess(log_w, kind="perplexity") == pytest.approx(exact["entropy_perplexity"], rel=1e-12)
    assert 1 / isdiag.ess(log_w, kind="max") == pytest.approx(exact["max_weight"], rel=1e-12)


@pytest.mark.parametrize(("log_w", "exact"), CASES)
def test_fit_of_the_tail(log_w, exact):
    top = np.sort(log_w - log_w.max())[-exact["n_tail"] - 1 :]
    excesses = np.exp(top[0]) * np.expm1(top[1:] - top[0])
    fit = isdiag.gpd_fit(excesses, prior=False)
    assert abs(fit.k - exact["khat_noprior"]) <= 1e-12
    assert fit.sigma == pytest.approx(exact["sigma"], rel=1e-11)


@pytest.mark.parametrize("name", sorted({name.split("[")[0] for name, _, _ in golden_cases()}))
def test_default_tail_length_is_the_papers(name):
    for case, log_w, exact in golden_cases():
        if case == name and "reff" not in name:
            assert isdiag.psis(log_w).tail_length == exact["floor"]["n_tail"]
        elif case == name:
            assert isdiag.psis(log_w, r_eff=0.5).tail_length == exact["floor"]["n_tail"]


def r_table(name):
    with (GOLDEN / "R_tables.tsv").open() as file:
        return [row[1:] for row in csv.reader(file, delimiter="\t") if row[0] == name]


def test_tail_length_table():
    rows = r_table("tail_length")
    assert len(rows) == 70
    for n, r_eff, posterior, _loo in rows:
        assert isdiag.tail_length(int(float(n)), float(r_eff)) == int(posterior)


def test_threshold_table():
    for n, _, threshold, *_ in r_table("khat_threshold"):
        # posterior leaves out the cap at 0.7
        expected = min(float(threshold), 0.7)
        assert isdiag.khat_threshold(int(float(n))) == pytest.approx(expected, abs=1e-15)


def test_min_sample_size_table():
    for _, khat, size, *_ in r_table("min_ss"):
        expected = np.inf if size == "Inf" else float(size)
        assert isdiag.min_sample_size(float(khat)) == pytest.approx(expected, rel=1e-11)


def test_convergence_rate_table():
    rows = r_table("convergence_rate")
    assert len(rows) == 52
    for n, khat, rate, *_ in rows:
        # posterior's 0 at khat = 0 is an unset branch: its limit from both sides is 1
        expected = 1.0 if float(khat) == 0 else float(rate)
        assert isdiag.convergence_rate(float(khat), int(float(n))) == pytest.approx(expected, abs=1e-9)


def test_fit_table():
    rows = r_table("gpdfit_quantile_grid")
    assert len(rows) == 56
    for n, true_k, k, sigma, k_no_prior, sigma_no_prior in rows:
        n, true_k = int(n), float(true_k)
        p = (np.arange(1, n + 1) - 0.5) / n
        x = -np.log1p(-p) if true_k == 0 else np.expm1(-true_k * np.log1p(-p)) / true_k
        fit, plain = isdiag.gpd_fit(x), isdiag.gpd_fit(x, prior=False)
        if k == "NA":
            assert np.isnan([fit.k, fit.sigma, fit.k_std_error]).all()
            continue
        assert fit.k == pytest.approx(float(k), abs=1e-11)
        assert fit.sigma == pytest.approx(float(sigma), rel=1e-11)
        assert plain.k == pytest.approx(float(k_no_prior), abs=1e-11)
        assert plain.sigma == pytest.approx(float(sigma_no_prior), rel=1e-11)
