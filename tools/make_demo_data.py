"""Make the data sets of `isdiag demo`: python tools/make_demo_data.py (needs arviz and arviz-base).

centered_eight.npz
    Leave-one-out log-ratios (minus the pointwise log-likelihood) of ArviZ's example posterior
    "centered_eight": 4 chains of 500 draws of the eight schools model. Copyright ArviZ developers,
    Apache License 2.0; the log-likelihood was negated, chains were joined, nothing else was changed. `r_eff`
    is ArviZ's ESS of each likelihood over the number of draws.

stack_loss.npz
    Leave-one-out log-ratios of a Bayesian linear regression on Brownlee's stack loss data (1960; 21 days
    of a plant, public): a full quadratic in the three predictors, 10 coefficients. Normal likelihood
    with the conjugate prior beta | s2 ~ N(0, 100 s2 I) on standardised columns and
    s2 ~ Inv-Gamma(1/2, 1/2). The draws come from the exact posterior, so whatever goes wrong is
    importance sampling's own doing, and the true tail index of each ratio is known: see `true_k`.

stale_batch.npz
    Log-ratios of sequences, the policy that learns over the one that sampled some updates ago, of a small
    policy trained here: see `stale_batch`.
"""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "isdiag" / "data"

AIR_FLOW = [80, 80, 75, 62, 62, 62, 62, 62, 58, 58, 58, 58, 58, 58, 50, 50, 50, 50, 50, 56, 70]
WATER = [27, 27, 25, 24, 22, 23, 24, 24, 23, 18, 18, 17, 18, 19, 18, 18, 19, 19, 20, 20, 20]
ACID = [89, 88, 90, 87, 87, 87, 93, 93, 87, 80, 89, 88, 82, 93, 89, 86, 72, 79, 80, 82, 91]
LOSS = [42, 37, 37, 28, 18, 18, 19, 20, 15, 14, 14, 13, 11, 12, 8, 7, 8, 8, 9, 15, 15]


PRIOR_SHAPE, PRIOR_RATE = 0.5, 0.5


def design() -> tuple[np.ndarray, np.ndarray]:
    """Standardised columns of the quadratic, shape (21, 10), and response."""
    z = np.array([AIR_FLOW, WATER, ACID], float).T
    z = (z - z.mean(0)) / z.std(0)
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    x = np.column_stack([z, *(z[:, i] * z[:, j] for i, j in pairs)])
    x = np.column_stack([np.ones(len(z)), (x - x.mean(0)) / x.std(0)])
    y = np.array(LOSS, float)
    return x, (y - y.mean()) / y.std()


def posterior() -> tuple[np.ndarray, np.ndarray, float, float]:
    """Mean and precision of beta (over s2), shape and rate of s2."""
    x, y = design()
    precision = x.T @ x + np.eye(x.shape[1]) / 100
    mean = np.linalg.solve(precision, x.T @ y)
    rate = PRIOR_RATE + (y @ y - mean @ precision @ mean) / 2
    return mean, precision, PRIOR_SHAPE + len(y) / 2, rate


def true_k() -> np.ndarray:
    """Tail index of each day's ratio 1 / p(y_i | beta, s2) under the posterior.

    E[ratio^a] is finite while the posterior stays proper with day i deleted a times: its leverage must
    allow it, a h < 1, and so must the rate of s2, rate > a e^2 / (2 (1 - a h)). The index is 1 / a at the
    largest such a.
    """
    x, y = design()
    mean, precision, _, rate = posterior()
    leverage = np.einsum("ij,ji->i", x, np.linalg.solve(precision, x.T))
    residual = y - x @ mean
    return leverage + residual**2 / (2 * rate)


def stack_loss(draws: int = 2000, seed: int = 1960) -> np.ndarray:
    """Log-ratios -log p(y_i | draw), shape (draws, 21)."""
    rng = np.random.default_rng(seed)
    x, y = design()
    mean, precision, shape, rate = posterior()
    variance = rate / rng.gamma(shape, size=draws)
    root = np.linalg.inv(np.linalg.cholesky(precision)).T
    noise = rng.normal(size=(draws, x.shape[1])) @ root.T
    residual = y - (mean + np.sqrt(variance)[:, None] * noise) @ x.T
    return 0.5 * np.log(2 * np.pi * variance)[:, None] + residual**2 / (2 * variance[:, None])


def stale_batch(prompts: int = 512, tokens: int = 40, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Log-ratios of whole sequences, current over sampling policy, by the age of the sampler; and names.

    A policy over 12 tokens, with logits for each position, learns by REINFORCE to write token 0. A batch was
    sampled by the policy of 1, 4, 16 and 64 updates ago.
    """
    rng = np.random.default_rng(seed)
    logits, past = rng.normal(size=(tokens, 12)), []
    for _ in range(80):
        past.append(_log_policy(logits))
        draws = _sample(rng, past[-1], prompts)
        advantage = (draws == 0).sum(axis=1) - (draws == 0).sum(axis=1).mean()
        taken = np.eye(12)[draws]
        logits = logits + 0.02 * np.einsum("b,bta->ta", advantage, taken - np.exp(past[-1])) / prompts**0.5
    now = _log_policy(logits)
    ages = (1, 4, 16, 64)
    columns = []
    for age in ages:
        draws = _sample(rng, past[-age], prompts)
        difference = now - past[-age]
        columns.append(difference[np.arange(tokens), draws].sum(axis=1))
    return np.stack(columns, axis=1), np.array([f"{age} update{'s' * (age > 1)} old" for age in ages])


def _log_policy(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def _sample(rng: np.random.Generator, log_policy: np.ndarray, count: int) -> np.ndarray:
    """Sequences, (count, tokens), by Gumbel noise."""
    return (log_policy + rng.gumbel(size=(count, *log_policy.shape))).argmax(axis=2)


def centered_eight() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-ratios, shape (2000, 8), the schools' names, and ESS / n of each likelihood, for its chains."""
    import arviz
    import arviz_base

    log_lik = arviz_base.load_arviz_data("centered_eight")["log_likelihood"]["obs"]
    of_chains = np.exp(log_lik.values)  # (chain, draw, school)
    draws = of_chains.shape[0] * of_chains.shape[1]
    r_eff = np.array([arviz.ess(of_chains[:, :, j], method="mean") / draws for j in range(8)])
    return -log_lik.values.reshape(-1, 8), log_lik["school"].values.astype(str), r_eff


if __name__ == "__main__":
    log_ratios, schools, r_eff = centered_eight()
    np.savez_compressed(DATA / "centered_eight.npz", log_ratios=log_ratios, columns=schools, r_eff=r_eff)
    days = np.array([f"day {i}" for i in range(1, 22)])
    np.savez_compressed(DATA / "stack_loss.npz", log_ratios=stack_loss(), columns=days)
    sequences, ages = stale_batch()
    np.savez_compressed(DATA / "stale_batch.npz", log_ratios=sequences, columns=ages)
