"""A batch of draws: which of them can be used, and what gamma they allow."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from isdiag._core import caution, selection, steps, tails, weights
from isdiag._core.bands import GOOD_KHAT, Constraints
from isdiag._core.boundary import Rows, mask_array, read_only, real_array, rows_of
from isdiag._core.typing import Floats, Ints, Mask
from isdiag.rl.layouts import one_a_sequence
from isdiag.rl.reshapes import Power, Reshape
from isdiag.rl.schedules import BY_GAMMA_ALONE, Evidence, Schedule, State

_ONE = np.ones(1)


@dataclass(frozen=True)
class Limits(Constraints):
    """What `isdiag.select_gamma` is asked for.

    Attributes
    ----------
    k_max : float or None, default 0.7
        Largest khat allowed, > 0; None for `khat_threshold(n)`.
    ess_min : float, default 0.8
        Smallest ESS / n allowed, in [0, 1]. Training wants more of it than an estimate:
        docs/results/rl_study.md.
    gamma_max : float, default 1
        Largest gamma allowed, > 0.
    """

    k_max: float | None = GOOD_KHAT
    ess_min: float = 0.8
    gamma_max: float = 1.0


class Draws(NamedTuple):
    """The draws of a batch that can be used, read-only, and where they came from."""

    log_w: Floats
    advantage: Floats
    shape: tuple[int, ...]
    used: Mask | None  # of that shape; None for all
    left_out: int

    @classmethod
    def of(cls, log_w: Any, advantage: Any, where: Any) -> Draws:
        """Check and select them; errors as `take_step` raises them."""
        ratios, signs, there = _checked(log_w, advantage, where)
        row, beside = ratios.ravel(), signs.ravel()
        if there is None and steps.all_known(row, beside):
            return cls.whole(row, beside, ratios.shape)
        used = (ratios < inf) & np.isfinite(signs)
        count = used.size if there is None else int(np.count_nonzero(there))
        if there is not None:
            used &= there
        kept = ratios[used]
        return cls(read_only(kept), read_only(signs[used]), ratios.shape, used, count - kept.size)

    @classmethod
    def whole(cls, log_w: Floats, advantage: Floats, shape: tuple[int, ...], left_out: int = 0) -> Draws:
        """Of draws that can all be used, beside others that are in no array."""
        return cls(read_only(log_w), read_only(advantage), shape, None, left_out)

    def only(self, values: Floats) -> Floats:
        """Those of the values in the shape of the batch that belong to draws."""
        return values.ravel() if self.used is None else values[self.used]

    def spread(self, values: Floats) -> Floats:
        """Values of the draws in the shape of the batch, 0 for the others."""
        if self.used is None:
            return values.reshape(self.shape)
        whole = np.zeros(self.shape)
        whole[self.used] = values
        return whole


def present(log_w: Any, advantage: Any, where: Any) -> tuple[Floats, Floats]:
    """Log-ratios and advantages of the draws that there are, whether they can be used or not."""
    ratios, signs, there = _checked(log_w, advantage, where)
    return (ratios.ravel(), signs.ravel()) if there is None else (ratios[there], signs[there])


def _checked(log_w: Any, advantage: Any, where: Any) -> tuple[Floats, Floats, Mask | None]:
    """Log-ratios, advantages in their shape, and which draws there are, None for all."""
    ratios = real_array(log_w, "log_w")[0].astype(np.float64, copy=False)
    signs = real_array(advantage, "advantage")[0].astype(np.float64, copy=False)
    there = None if where is None else mask_array(where, "where")
    if signs.ndim == ratios.ndim + 1 and signs.shape[:-1] == ratios.shape and signs.shape[-1] > 1:
        by_token = there is not None and there.shape == signs.shape
        signs = one_a_sequence(signs, there if by_token else np.True_, "advantage")
    signs = _like(ratios, signs, "advantage")
    if there is None:
        return ratios, signs, None
    if there.ndim == ratios.ndim + 1:
        there = there.any(axis=-1)
    return ratios, signs, _like(ratios, there, "where")


def _like(ratios: Floats, values: Any, name: str) -> Any:
    """Values in the shape of the ratios; an axis that they lack is one over tokens, at the end."""
    if values.shape == ratios.shape:
        return values
    missing = ratios.ndim - values.ndim
    try:
        if missing == -1 and values.shape[-1] == 1:
            return np.broadcast_to(values[..., 0], ratios.shape)
        return np.broadcast_to(values.reshape(values.shape + (1,) * max(missing, 0)), ratios.shape)
    except ValueError:
        msg = f"{name} of shape {values.shape} does not fit log_w's {ratios.shape}"
        raise ValueError(msg) from None


class Used(NamedTuple):
    """A `Reshaped`, and the ESS of w^gamma at its exponent, None where that is 1."""

    log_f: Floats
    signal: Floats
    tempered_ess: float | None


class Batch:
    """Draws, and what they allow.

    `gamma` is the largest at which w keeps both limits and f, if its exponent is gamma, that of ESS. Where f
    does not even at gamma = 0, by its rewards say, gamma has no part in that, and goes by w alone. `khat` is
    that of w. Both are NaN without a draw, and then there are no rows.
    """

    rows: Rows
    lengths: Ints

    def __init__(self, draws: Draws, reshape: Reshape, limits: Limits) -> None:
        self.draws = draws
        # A reshape without an exponent says nothing of gamma: plain powers do.
        fixed = type(reshape) is not Power and reshape.at(0.0) is reshape
        self.tempered = Power() if fixed else reshape
        self.gamma = self.khat = nan
        if self.n:
            self.rows = rows_of(draws.log_w, -1, None)
            self.lengths = tails.lengths_of(self.rows)
            found = selection.select(self.rows, self.lengths, limits, "joint", 1)
            self.khat = found["khat"].item()
            self.gamma = self.held(found["gamma"].item(), limits.ess_min)

    @property
    def n(self) -> int:
        """How many draws can be used."""
        return self.draws.log_w.size

    def following(self, schedule: Schedule, state: State) -> State:
        """The state that comes next."""
        looked_at = self.n and type(schedule) not in BY_GAMMA_ALONE
        return schedule(state, Evidence(self.ess_ratio(state.gamma) if looked_at else nan, self.gamma))

    def ess_ratio(self, gamma: float) -> float:
        """ESS / n of the weights used at this gamma."""
        reshape, log_w, advantage = self.tempered, self.draws.log_w, self.draws.advantage
        if _is_cautious(reshape) and gamma > 0.0:
            return caution.ess(log_w, advantage, gamma, reshape.caution) / self.n
        log_f, _ = reshape.at(gamma).of_draws(log_w, advantage)
        ess, _ = weights.ess(self.rows.holding(log_f[None]), _ONE)
        return ess.item() / self.n

    def reshaped(self, reshape: Reshape) -> Used:
        """What a reshape makes of the draws."""
        gamma, log_w, advantage = reshape.exponent, self.draws.log_w, self.draws.advantage
        if _is_cautious(reshape) and gamma > 0.0:
            ess, log_z = caution.power_mean(log_w, gamma)
            return Used(caution.log_f(log_w, advantage, gamma, reshape.caution, log_z), advantage, ess)
        ess = None if gamma == 1.0 else weights.ess(self.rows, np.full(1, gamma))[0].item()
        return Used(*reshape.of_draws(log_w, advantage), ess)

    def accepts(self, gamma: float) -> bool:
        """Whether the reshape can have this exponent; that of `AlphaDivergence` is below 1."""
        if type(self.tempered) is Power:
            return True
        try:
            self.tempered.at(gamma)
        except ValueError:
            return False
        return True

    def held(self, gamma: float, least: float) -> float:
        """The gamma up to this one at which the weights used keep the least ESS."""
        reshape = self.tempered
        if not (gamma > 0.0 and least > 0.0 and self.accepts(gamma)):
            return gamma
        if type(reshape) is Power and reshape.caution == 1.0:
            return gamma  # f is w^gamma
        if _is_cautious(reshape):
            return caution.held_gamma(self.draws.log_w, self.draws.advantage, gamma, reshape.caution, least)
        return caution.held_by(self.ess_ratio, gamma, least)


def _is_cautious(reshape: Reshape) -> TypeGuard[Power]:
    """Whether f is a cautious power that is relative to the mean of the batch itself."""
    return type(reshape) is Power and reshape.caution != 1.0 and reshape.log_z is None
