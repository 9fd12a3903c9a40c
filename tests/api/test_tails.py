"""What a khat says of the tail index."""

import numpy as np
import pytest

import isdiag


@pytest.mark.parametrize("k", [0.0, 0.3, 0.5, 0.7, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("m", [6, 20, 94, 300])
def test_khat_interval_covers_the_tail_index(rng, m, k):
    uniform = rng.random((1000, m))
    excesses = -np.log(uniform) if k == 0.0 else (uniform**-k - 1.0) / k
    low, high = isdiag.khat_interval(isdiag.gpd_fit(excesses).k, m)
    covered = np.mean((low <= k) & (k <= high))
    # 3000 repeats gave .93 to .99; four standard errors of 1000 are .032 at .93.
    assert covered >= 0.90


def test_khat_interval_takes_the_prior_off_and_widens_by_ratios():
    # khat = (m k + 5) / (m + 10); the ends plus 1: (1 + k) over 1 + z / sqrt(m), and over 1 - z / sqrt(m).
    m, k, z = 94, 0.8, 1.959963984540054
    low, high = isdiag.khat_interval((m * k + 5.0) / (m + 10.0), m)
    assert low == pytest.approx((1.0 + k) / (1.0 + z / np.sqrt(m)) - 1.0, rel=1e-12)
    assert high == pytest.approx((1.0 + k) / (1.0 - z / np.sqrt(m)) - 1.0, rel=1e-12)


def test_khat_interval_at_its_edges():
    assert isdiag.khat_interval(np.nan, 50) == pytest.approx((np.nan, np.nan), nan_ok=True)
    assert isdiag.khat_interval(np.inf, 50) == (np.inf, np.inf)
    assert isdiag.khat_interval(-np.inf, 50) == (-np.inf, -np.inf)
    low, high = isdiag.khat_interval([0.2, 0.7], [6, 600], level=0.999)
    assert high[0] == np.inf  # six draws
    assert low[1] < 0.7 < high[1] < np.inf
    with pytest.raises(ValueError, match="tail_length"):
        isdiag.khat_interval(0.5, 5)
    with pytest.raises(ValueError, match="level"):
        isdiag.khat_interval(0.5, 50, level=1.0)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (isdiag.khat_interval, "khat and tail_length"),
        (isdiag.tail_length, "n and r_eff"),
        (isdiag.convergence_rate, "khat and n"),
    ],
)
def test_shapes_that_do_not_go_together_are_named(function, names):
    with pytest.raises(ValueError, match=rf"{names} must have shapes that broadcast, got \(2,\) and \(3,\)"):
        function([10.0, 20.0], [10.0, 20.0, 30.0])
