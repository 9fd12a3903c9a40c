"""The report on honesty is made, and its weights are what they say."""

import honesty
import numpy as np
import pytest
from scenarios import bandit, log_normal

import isdiag


@pytest.mark.parametrize("law", honesty.LAWS, ids=lambda law: law.name)
def test_divergences_are_where_many_draws_put_them(law):
    log_w = law.draw(np.random.default_rng(1), (10, 20_000))
    assert np.exp(log_w).mean() == pytest.approx(1.0, abs=6 * np.exp(log_w).std() / np.sqrt(log_w.size))
    found = isdiag.kl_divergence(log_w)
    assert np.isfinite(found.high - found.low).all()
    assert np.mean((found.low <= law.kl) & (law.kl <= found.high)) >= 0.7


def test_rewards_and_weights_of_greedy_policies():
    rng = np.random.default_rng(1)
    log_w, h, truth = honesty.Policies(0.7, 0.5, 0.1, 0.1).draw(rng, (10, 5000))
    found = isdiag.snis(log_w, h)
    assert np.exp(log_w).mean() == pytest.approx(1.0, abs=5 * np.exp(log_w).std() / np.sqrt(log_w.size))
    assert found.estimate.mean() == pytest.approx(truth, abs=5 * np.sqrt(np.mean(found.std_error**2) / 10))
    unseen, _, _ = honesty.Policies(0.7, 0.5, 0.1, 0.1, unseen=0.3).draw(rng, (10, 5000))
    assert 0.6 < np.exp(unseen).mean() < 0.9


def test_report_on_honesty(monkeypatch):
    for sizes in ("TAIL_SIZES", "DIVERGENCE_SIZES", "CELL_SIZES", "GREEDY_SIZES"):
        monkeypatch.setattr(honesty, sizes, (200,))
    monkeypatch.setattr(honesty, "JUDGED", (log_normal(0.5), bandit(1.0, 3.0)))
    monkeypatch.setattr(honesty, "GREEDY", honesty.GREEDY[:1])
    text = honesty.report(20)
    assert "nan" not in text
    assert all(name in text for name in (*honesty.FITTING, *honesty.DIVERGENCES, *honesty.BY_SNIS))
