"""What became of a row of log-weights."""

from enum import IntEnum


class NonFiniteWarning(RuntimeWarning):
    """Some rows of log-weights hold NaN or +inf; their results are NaN, all other rows are untouched."""


class Status(IntEnum):
    """What became of a row, one code a row; `Status(code).message` says it in a sentence.

    Codes compare with integers, so ``result.status == Status.OK`` works on a batch. `OK` means computed:
    whether a number can be believed is another matter, see `isdiag.diagnose`. Where several hold, the one
    that says most against the result is named.
    """

    OK = 0
    FLAT = 1
    TAIL_TOO_SHORT = 2
    DEGENERATE_TAIL = 3
    INFEASIBLE = 4
    NO_WEIGHT = 5
    NOT_FINITE = 6
    CONSTANT_H = 7
    TWO_VALUED_H = 8
    ERROR_UNCERTAIN = 9
    NOT_FINITE_H = 10
    ONE_DRAW = 11
    NOT_NORMALIZED = 12
    ERROR_ROUGH = 13
    POOR_TAIL_FIT = 14

    def __str__(self) -> str:
        return self.name

    @property
    def about_h(self) -> bool:
        """Whether it is about an estimate, and not about the weights alone."""
        return self >= Status.CONSTANT_H and self not in (Status.ONE_DRAW, Status.POOR_TAIL_FIT)

    @property
    def message(self) -> str:
        """One sentence: what happened and what it means for the result."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.OK: "Computed, with nothing odd: the tail was fitted and every constraint could be applied.",
    Status.FLAT: "All positive weights are equal: there is no tail to fear, nothing was changed.",
    Status.TAIL_TOO_SHORT: (
        "Fewer than 6 draws in the tail: khat is unknown (about 30 draws are needed), weights are "
        "not smoothed and gamma rests on ESS alone."
    ),
    Status.DEGENERATE_TAIL: (
        "The tail cannot be fitted (ties, or one draw holds all the mass): khat is infinite, which "
        "is bad, weights are not smoothed and gamma rests on ESS alone."
    ),
    Status.POOR_TAIL_FIT: (
        "The tail does not look like the generalised Pareto law that was fitted to it (mixtures of levels, "
        "lattices): khat and smoothed weights may be far off. Cut the weights instead, as "
        'smooth="auto" does, and go by the draws behind the error.'
    ),
    Status.INFEASIBLE: (
        "Too many draws have zero weight: even equal weights on the others miss ess_min, so gamma is 0."
    ),
    Status.NO_WEIGHT: "No draw has positive weight: nothing can be said.",
    Status.NOT_FINITE: "The row holds NaN or +inf: its results are NaN.",
    Status.CONSTANT_H: (
        "h is the same at every draw of positive weight: that it might vary elsewhere cannot be seen, and "
        "the standard error of zero is no evidence."
    ),
    Status.TWO_VALUED_H: (
        "h takes two values: w |h - estimate| has no tail of its own, and khat is that of the weights."
    ),
    Status.NOT_FINITE_H: "h is NaN or infinite at a draw of positive weight: its estimate is NaN.",
    Status.ONE_DRAW: "There is one draw: nothing can be said of its error or of a tail.",
    Status.NOT_NORMALIZED: (
        "The weights must have mean 1 here, and it is off by many standard errors: one of the densities is "
        "not normalised, or the draws miss a part of the target."
    ),
    Status.ERROR_UNCERTAIN: (
        "Fewer than 6 draws carry the standard error: it is most likely too small. Intervals are widened for "
        "it, and may still miss what no draw shows."
    ),
    Status.ERROR_ROUGH: (
        "Fewer than 15 draws carry the standard error: it is known within a fifth or so, and more often too "
        "small than too large."
    ),
}
