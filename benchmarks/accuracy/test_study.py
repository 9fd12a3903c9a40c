"""The study runs, and its scenarios are what they say."""

import numpy as np
import pytest
from estimators import ESTIMATORS, PEERS
from scenarios import GROUPS, bandit, log_normal
from study import report, run_cell

import isdiag

SCENARIOS = [scenario for group in GROUPS.values() for scenario in group]


def test_names_are_seeds_and_differ():
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_truth_is_where_many_draws_put_it(scenario):
    # Where errors can be trusted the estimates tell; elsewhere that there are numbers of the right shape.
    log_w, values = scenario.draw(np.random.default_rng(1), 10, 4000)
    for question, truth in scenario.truth.items():
        assert values[question].shape == log_w.shape
        found = isdiag.snis(log_w, values[question])
        if np.max(isdiag.pareto_khat(log_w)) < 0.4 and np.min(found.error_draws) > 25:
            error = np.sqrt(np.mean(found.std_error**2) / 10)
            assert abs(found.estimate.mean() - truth) < 4.5 * error
            assert abs(np.exp(log_w).mean() - 1) < 5 * np.exp(log_w).std() / 200


def test_cells_and_report():
    rows = []
    for group in GROUPS:
        for scenario in (log_normal(0.5), bandit(1.0, 3.0)):
            for n in (64, 200):
                rows += run_cell(group, scenario, n, repeats=4)
    assert all(np.isfinite(row[name]) for row in rows for name in ESTIMATORS)
    text = report(rows, repeats=4)
    assert all(name in text for name in PEERS)
