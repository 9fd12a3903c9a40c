"""Diagnostics of weights that are in parts: on several machines, in files, in a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self, cast

import numpy as np

from isdiag._core import packing, summary
from isdiag._core.bands import GOOD_KHAT, Constraints
from isdiag._core.boundary import numbers, part_of
from isdiag._core.check import flag, number, of_kind, one_of
from isdiag._core.diagnosis import Diagnosis
from isdiag._core.result import SNIS, GammaSelection, bare
from isdiag._core.typing import Axis, StabilityRule


class Summary:
    """What weights in parts tell of the whole, without the draws.

    A summary is a state of fixed size. Those of parts merge, in any order and any tree, to the summary of all
    draws, and give the diagnostics that the functions of the same names give of all draws in one array. Make
    one with `Summary.of` or `Summary.of_parts`.

    Notes
    -----
    * Exact are n, the number of draws of positive weight, the extremes, and the tail: khat is that of the
      array within 1e-12, as the largest draws of all are among the largest of the parts.
    * The log-weights are in bins of one grid for all, each at most 1/63 as wide as it lies deep below the
      largest, with sums of powers up to the seventh in each. So ESS is that of the array within 1e-11 for
      whatever gamma, and no second pass over the draws is needed. The gamma that ESS sets is that of the
      array within 1e-10.
    * Values `h` are summed about their mean, with weights ``w**gamma`` for the gamma that `of` is given. The
      mean of h at a gamma that is chosen later takes a second pass over the draws.
    * Size: about ``24 sqrt(n_max)`` bytes a row for the tail, 0.8 MB for the default, 1.7 MB for 5e9 draws,
      and 82 bytes a bin, of which a row has some hundreds, or thousands where its largest weights are many
      and near. A row of fewer draws holds no more than those.
    * Results are NumPy's, or Python scalars.
    * Pickling a summary is `to_bytes`, so that what reaches another process was checked.

    References
    ----------
    [Vehtari2024]_; [Chan1983]_ for moments that join.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = np.random.default_rng(1).normal(scale=2.0, size=9000)
    >>> one, other = (isdiag.Summary.of(part) for part in (log_w[:1000], log_w[1000:]))
    >>> both = one.merge(other)
    >>> both
    Summary(n=9000, ess=201.121, khat=0.784005)
    >>> bool(abs(both.ess() / isdiag.ess(log_w) - 1) < 1e-11)
    True
    >>> isdiag.Summary.from_bytes(both.to_bytes()).select_gamma().limited_by
    'ess'
    """

    __slots__ = ("_state",)
    _state: summary.Summed

    def __init__(self) -> None:
        msg = "make a summary with Summary.of(log_w), Summary.of_parts(parts) or Summary.from_bytes(data)"
        raise TypeError(msg)

    @classmethod
    def _holding(cls, state: summary.Summed) -> Self:
        made = object.__new__(cls)
        made._state = state
        return made

    @classmethod
    def of(
        cls,
        log_w: Any,
        h: Any = None,
        *,
        gamma: float = 1.0,
        axis: Axis = -1,
        where: Any = None,
        n_max: float = 1e9,
        workers: int = 1,
    ) -> Self:
        """The summary of a part.

        Parameters
        ----------
        log_w : array_like, shape (..., n)
            Log importance weights up to a constant that all parts share; -inf is a draw of zero weight. There
            may be no draws.
        h : array_like, shape of log_w, or that shape and axes of its own
            Values at the draws, for `snis`.
        gamma : float, default 1
            Exponent, >= 0, of the weights that h is summed with, and of those alone.
        axis : int, str or tuple of them, default -1
            The sample axis or axes; the others are a batch, of one shape for all parts.
        where : array_like of bool, optional
            Entries to count, broadcast to `log_w`.
        n_max : float, default 1e9
            The most draws that all parts together may hold for khat to be known. Merged summaries have the
            least of theirs.
        workers : int, default 1
            Threads to spread the parts of rows of more than 2**20 draws over; -1 for one per CPU. Results do
            not depend on it.

        Returns
        -------
        Summary
            Of these draws.

        Notes
        -----
        * What is not a part of weights raises as in every function, see `isdiag`; NaN and +inf are told by
          the methods, as `Status.NOT_FINITE` and by the one `NonFiniteWarning`.

        Examples
        --------
        >>> import isdiag
        >>> isdiag.Summary.of([0.0, 0.1, 0.3]).merge(isdiag.Summary.of([])).n
        3
        """
        exponent, held = number("gamma", gamma, 0.0, np.inf, "[)"), summary.held_for(n_max)
        rows = part_of(log_w, axis, where)
        values, own = (None, None) if h is None else rows.trailing(h)
        state = summary.no_draws(rows, own, exponent, held)
        return cls._holding(summary.extended(state, rows, values, own, workers))

    @classmethod
    def of_parts(
        cls,
        parts: Iterable[Any],
        *,
        gamma: float = 1.0,
        axis: Axis = -1,
        n_max: float = 1e9,
        workers: int = 1,
    ) -> Self:
        """The summary of a stream, of which no more than a part is held at a time.

        Parameters
        ----------
        parts : iterable of array_like, or of pairs of them
            Log-weights, or tuples ``(log_w, h)``, of any lengths along the sample axis. At least one, which
            may hold no draws.
        gamma : float, default 1
            Exponent, >= 0, of the weights that h is summed with, and of those alone.
        axis : int, str or tuple of them, default -1
            The sample axis or axes; the others are a batch, of one shape for all parts.
        n_max : float, default 1e9
            The most draws that all parts together may hold for khat to be known.
        workers : int, default 1
            Threads to spread the parts of rows of more than 2**20 draws over; -1 for one per CPU.

        Returns
        -------
        Summary
            Of all draws of the stream.

        Raises
        ------
        ValueError
            If there are no parts.

        Notes
        -----
        * Parts of some 2**20 draws are read fastest. A memory map is a stream of its slices.

        Examples
        --------
        >>> import numpy as np
        >>> import isdiag
        >>> draws = np.random.default_rng(1)
        >>> parts = (draws.normal(size=1000) for _ in range(10))
        >>> isdiag.Summary.of_parts(parts).n
        10000
        """
        made: Self | None = None
        for part in parts:
            log_w, h = cast("tuple[Any, Any]", part) if isinstance(part, tuple) else (part, None)
            if made is None:
                made = cls.of(log_w, h, gamma=gamma, axis=axis, n_max=n_max, workers=workers)
            else:
                made = made.add(log_w, h, axis=axis, workers=workers)
        if made is None:
            msg = "parts must hold at least one part, got none"
            raise ValueError(msg)
        return made

    def add(self, log_w: Any, h: Any = None, *, axis: Axis = -1, where: Any = None, workers: int = 1) -> Self:
        """The summary of these draws as well.

        Parameters
        ----------
        log_w : array_like, shape (..., n)
            Log-weights, of the same batch shape.
        h : array_like, shape of log_w, or that shape and axes of its own
            Values at the draws, if the summary has any.
        axis : int, str or tuple of them, default -1
            The sample axis or axes.
        where : array_like of bool, optional
            Entries to count, broadcast to `log_w`.
        workers : int, default 1
            Threads to spread the parts of rows of more than 2**20 draws over; -1 for one per CPU.

        Returns
        -------
        Summary
            A new one, as ``self.merge(Summary.of(log_w, h))``, and sooner: what is not among the largest
            draws so far need not be held.

        Raises
        ------
        ValueError
            If they are of another batch or of other values.

        Examples
        --------
        >>> import isdiag
        >>> isdiag.Summary.of([0.0, 0.1]).add([0.2]).n
        3
        """
        rows = part_of(log_w, axis, where)
        values, own = (None, None) if h is None else rows.trailing(h)
        return self._holding(summary.extended(self._state, rows, values, own, workers))

    def merge(self, other: Summary) -> Self:
        """The summary of the draws of both.

        Parameters
        ----------
        other : Summary
            Of other draws, with the same batch shape, axes of h and gamma.

        Returns
        -------
        Summary
            A new one; neither is modified.

        Raises
        ------
        ValueError
            If they are of other batches or of other values.

        Examples
        --------
        >>> from functools import reduce
        >>> import isdiag
        >>> parts = [isdiag.Summary.of([0.0] * 4), isdiag.Summary.of([0.7] * 4), isdiag.Summary.of([0.1])]
        >>> reduce(isdiag.Summary.merge, parts).n
        9
        """
        of_kind("other", other, Summary)
        return self._holding(summary.merged(self._state, other._state))

    @classmethod
    def stack(cls, summaries: Iterable[Summary]) -> Self:
        """One summary of a batch of them, as of groups that are diagnosed side by side.

        Parameters
        ----------
        summaries : iterable of Summary
            With the same batch shape, axes of h and gamma.

        Returns
        -------
        Summary
            Of their batch shape after a new leading axis.

        Raises
        ------
        ValueError
            If there are none, or they are of other batches or of other values.

        Examples
        --------
        >>> import isdiag
        >>> isdiag.Summary.stack([isdiag.Summary.of([0.0] * 4), isdiag.Summary.of([0.1] * 3)]).ess()
        array([4., 3.])
        """
        given = list(summaries)
        for each in given:
            of_kind("summaries", each, Summary)
        return cls._holding(summary.stacked([each._state for each in given]))  # noqa: SLF001 -- our own

    def to_bytes(self) -> bytes:
        r"""The summary as bytes, with a version and a checksum; nothing in them is code.

        Returns
        -------
        bytes
            For `from_bytes`, on whatever machine.

        Examples
        --------
        >>> import isdiag
        >>> isdiag.Summary.of([0.0, 1.0]).to_bytes()[:8]
        b'isdiag\x00S'
        """
        return packing.packed(self._state)

    @classmethod
    def from_bytes(cls, data: Any) -> Self:
        """The summary that `to_bytes` wrote.

        Parameters
        ----------
        data : bytes
            What `to_bytes` returned.

        Returns
        -------
        Summary
            It is the same to the last bit.

        Raises
        ------
        ValueError
            If they are no summary, cut short, damaged, or of another version of the format; the message says
            which.
        TypeError
            If they are not bytes.

        Examples
        --------
        >>> import isdiag
        >>> data = isdiag.Summary.of([0.0, 1.0]).to_bytes()
        >>> isdiag.Summary.from_bytes(data[:-1])
        Traceback (most recent call last):
        ...
        ValueError: data is cut short: 342 bytes of 343
        """
        return cls._holding(packing.unpacked(data))

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return Summary.from_bytes, (self.to_bytes(),)

    @property
    def n(self) -> Any:
        """How many draws count: int or array of the batch shape."""
        return self._state.layout.diagnostic(self._state.n)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the results."""
        return self._state.batch_shape

    def ess(self, gamma: Any = 1.0) -> Any:
        """Effective sample size, Kish's, of the weights ``w**gamma``.

        Parameters
        ----------
        gamma : float or array_like of the batch shape, default 1
            Exponent, >= 0.

        Returns
        -------
        float or array of the batch shape
            In draws, as `isdiag.ess`.

        Examples
        --------
        >>> import isdiag
        >>> ones, twos = isdiag.Summary.of([0.0] * 4), isdiag.Summary.of([0.6931471805599453] * 4)
        >>> round(ones.merge(twos).ess() / 8, 6)  # .9: the mean of the parts' own would be 1
        0.9
        """
        layout = self._state.layout
        found, _, status = summary.ess_and_share(self._state, layout.gamma(gamma))
        return bare(layout, found, status)

    def pareto_khat(self, *, gamma: Any = 1.0, r_eff: Any = 1.0, tail_length: int | None = None) -> Any:
        """The shape khat of the tail of the weights ``w**gamma``.

        Parameters
        ----------
        gamma : float or array_like of the batch shape, default 1
            Exponent, >= 0; khat is re-fitted to the tempered weights.
        r_eff : float or array_like of the batch shape, default 1
            Relative efficiency of draws from MCMC; sets the tail length only.
        tail_length : int, optional
            Pin the tail length; default `tail_length(n, r_eff)`.

        Returns
        -------
        float or array of the batch shape
            As `isdiag.pareto_khat`.

        Raises
        ------
        ValueError
            If the tail is longer than that held, by `n_max`.

        Examples
        --------
        >>> import numpy as np
        >>> import isdiag
        >>> log_w = np.random.default_rng(1).normal(scale=2.0, size=1000)
        >>> round(isdiag.Summary.of(log_w).pareto_khat(), 6)
        0.688952
        """
        layout = self._state.layout
        lengths = summary.lengths_of(self._state, r_eff, tail_length)
        return bare(layout, *summary.khat(self._state, lengths, layout.gamma(gamma)))

    def select_gamma(
        self,
        *,
        k_max: float | None = GOOD_KHAT,
        ess_min: float = 0.3,
        gamma_max: float = 1.0,
        rule: StabilityRule = "joint",
        r_eff: Any = 1.0,
        tail_length: int | None = None,
    ) -> GammaSelection:
        """The largest gamma for which the weights ``w**gamma`` can be trusted.

        Parameters
        ----------
        k_max : float or None, default 0.7
            Largest khat allowed, > 0; None for `khat_threshold(n)`, inf for no limit.
        ess_min : float, default 0.3
            Smallest ``ESS / n`` allowed, in [0, 1].
        gamma_max : float, default 1
            Largest gamma allowed, > 0; 1 is full importance sampling.
        rule : {"joint", "refit"}, default "joint"
            As `isdiag.select_gamma`; the rule "mse" needs the draws.
        r_eff : float or array_like of the batch shape, default 1
            Relative efficiency of draws from MCMC; sets the tail length only.
        tail_length : int, optional
            Pin the tail length; default `tail_length(n, r_eff)`.

        Returns
        -------
        GammaSelection
            As `isdiag.select_gamma`.

        Raises
        ------
        ValueError
            If the tail is longer than that held, by `n_max`.

        Examples
        --------
        >>> import numpy as np
        >>> import isdiag
        >>> log_w = np.random.default_rng(1).normal(scale=3.0, size=1000)
        >>> chosen = isdiag.Summary.of(log_w).select_gamma()
        >>> chosen.limited_by, round(chosen.gamma, 6), round(chosen.ess_ratio, 6)
        ('ess', 0.342647, 0.3)
        """
        one_of("rule", rule, StabilityRule)
        limits = Constraints(k_max, ess_min, gamma_max)
        lengths = summary.lengths_of(self._state, r_eff, tail_length)
        found = summary.select(self._state, lengths, limits, rule)
        return GammaSelection.of_records(self._state.layout, found)

    def snis(self, *, r_eff: Any = 1.0, tail_length: int | None = None) -> SNIS:
        """An estimate of the mean of h under ``w**gamma``, the gamma of `of`, with its error.

        Parameters
        ----------
        r_eff : float or array_like of the batch shape, default 1
            Relative efficiency of draws from MCMC; sets the tail length only.
        tail_length : int, optional
            Pin the tail length; default `tail_length(n, r_eff)`.

        Returns
        -------
        SNIS
            As `isdiag.snis`, of weights that are normalised and not smoothed.

        Raises
        ------
        ValueError
            If there is no h, or the tail is longer than that held, by `n_max`.

        Examples
        --------
        >>> import numpy as np
        >>> import isdiag
        >>> x = np.random.default_rng(1).normal(size=2000)  # proposal N(0, 1)
        >>> parts = zip(np.split(x - 0.5, 4), np.split(x, 4))  # target N(1, 1), whose mean is 1
        >>> result = isdiag.Summary.of_parts(parts).snis()
        >>> print(
        ...     f"{result.estimate:.4f} +- {result.std_error:.4f}, "
        ...     f"{result.low:.4f} to {result.high:.4f}"
        ... )
        1.0257 +- 0.0556, 0.9129 to 1.2863
        """
        own = self._state.own
        if own is None:
            msg = "snis needs h: give it to Summary.of"
            raise ValueError(msg)
        lengths = summary.lengths_of(self._state, r_eff, tail_length)
        return SNIS.of_records(self._state.layout, *summary.estimates(self._state, lengths), own=own)

    def psis(
        self,
        parts: Iterable[Any],
        *,
        r_eff: Any = 1.0,
        tail_length: int | None = None,
        normalize: bool = True,
        axis: Axis = -1,
    ) -> Iterator[Any]:
        """Pareto smoothed log-weights, by a second pass over the draws.

        Parameters
        ----------
        parts : iterable of array_like
            The log-weights that the summary is of, in parts of any lengths.
        r_eff : float or array_like of the batch shape, default 1
            Relative efficiency of draws from MCMC; sets the tail length only.
        tail_length : int, optional
            Pin the tail length; default `tail_length(n, r_eff)`.
        normalize : bool, default True
            Make the weights of all parts together sum to one.
        axis : int, str or tuple of them, default -1
            The sample axis or axes of the parts.

        Returns
        -------
        iterator of arrays
            Of each part in turn, in its shape, kind and float dtype: the smoothed log-weights that
            `isdiag.psis` gives of all draws in that order.

        Raises
        ------
        ValueError
            At the end, if the parts held more or fewer draws than the summary is of; before, if the tail is
            longer than that held, by `n_max`.

        Notes
        -----
        * Draws that tie are smoothed in order of appearance. Where more draws tie with the smallest of the
          tail than are held, the first of them to appear belong to the tail, where `isdiag.psis` takes the
          last.

        Examples
        --------
        >>> import numpy as np
        >>> import isdiag
        >>> log_w = np.random.default_rng(1).normal(scale=2.0, size=3000)
        >>> parts = np.split(log_w, 3)
        >>> smoothed = np.concatenate(list(isdiag.Summary.of_parts(parts).psis(parts)))
        >>> bool(abs(smoothed - isdiag.psis(log_w).log_weights).max() < 1e-11)
        True
        """
        lengths = summary.lengths_of(self._state, r_eff, tail_length)
        smoothing = summary.Smoothing(self._state, lengths, flag("normalize", normalize))
        return _written(smoothing, parts, axis)

    def diagnose(
        self,
        *,
        k_max: float | None = None,
        ess_min: float = 0.3,
        gamma_max: float = 1.0,
        rule: StabilityRule = "joint",
        r_eff: Any = 1.0,
        tail_length: int | None = None,
    ) -> Diagnosis:
        """Everything that can be said of the weights, in words too.

        Parameters
        ----------
        k_max : float or None, default None
            Largest khat allowed, > 0; None for `khat_threshold(n)`, inf for no limit.
        ess_min : float, default 0.3
            Smallest ``ESS / n`` allowed, in [0, 1].
        gamma_max : float, default 1
            Largest gamma allowed, > 0.
        rule : {"joint", "refit"}, default "joint"
            As `isdiag.select_gamma`.
        r_eff : float or array_like of the batch shape, default 1
            Relative efficiency of draws from MCMC; sets the tail length only.
        tail_length : int, optional
            Pin the tail length; default `tail_length(n, r_eff)`.

        Returns
        -------
        Diagnosis
            As `isdiag.diagnose`, without the mean of h at the chosen gamma, and without any where h was
            summed at another gamma than 1.

        Raises
        ------
        ValueError
            If the tail is longer than that held, by `n_max`.

        Examples
        --------
        >>> import numpy as np
        >>> import isdiag
        >>> log_w = np.random.default_rng(1).normal(size=1000)
        >>> isdiag.Summary.of(log_w).diagnose().verdict
        'sound'
        """
        one_of("rule", rule, StabilityRule)
        limits = Constraints(k_max, ess_min, gamma_max)
        lengths = summary.lengths_of(self._state, r_eff, tail_length)
        own = self._state.own or ()
        return Diagnosis.of(self._state.layout, own, **summary.diagnose(self._state, lengths, limits, rule))

    def log_w_quantile(self, q: Any) -> Any:
        """The quantiles of the log-weights, zero weights at -inf among them.

        Parameters
        ----------
        q : float or array_like
            Probabilities, in [0, 1].

        Returns
        -------
        float or array
            In the batch shape followed by that of `q`. Exact in the tail that is held; below it wrong by at
            most 1/63 of the distance from the largest.

        Examples
        --------
        >>> import numpy as np
        >>> import isdiag
        >>> found = isdiag.Summary.of(np.linspace(-1.0, 0.0, 1001)).log_w_quantile([0.5, 1.0])
        >>> found.round(3)
        array([-0.5,  0. ])
        """
        probabilities = numbers("q", q, 0.0, 1.0, "[]")
        found = summary.quantiles(self._state, probabilities.ravel())
        return self._state.layout.diagnostic(found, probabilities.shape)

    def __repr__(self) -> str:
        if self.batch_shape:
            return f"Summary(batch_shape={self.batch_shape}, n={int(self._state.n.max(initial=0))})"
        return f"Summary(n={self.n}, {summary.said(self._state)})"


def _written(smoothing: summary.Smoothing, parts: Iterable[Any], axis: Axis) -> Iterator[Any]:
    for part in parts:
        rows = part_of(part, axis, None)
        yield rows.weights(smoothing.write(rows))
    smoothing.check_whole()
