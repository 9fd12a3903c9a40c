"""What became of a row of log-weights."""

from enum import IntEnum


class NonFiniteWarning(RuntimeWarning):
    """Some rows of log-weights hold NaN or +inf; their results are NaN, all other rows are untouched."""


class Status(IntEnum):
    """What became of a row, one code a row; `Status(code).message` says it in a sentence.

    Codes compare with integers, so ``result.status == Status.OK`` works on a batch. Only `OK` and `FLAT`
    rows can be trusted; `diagnose(...).ok` also asks for their khat and ESS. The last three are about an
    estimate and its h, and stand where the weights alone would be `OK`.
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

    def __str__(self) -> str:
        return self.name

    @property
    def about_h(self) -> bool:
        """Whether it is about an estimate and its h, the weights alone being `OK`."""
        return self >= Status.CONSTANT_H

    @property
    def message(self) -> str:
        """One sentence: what happened and what it means for the result."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.OK: "The tail was fitted and every constraint could be applied.",
    Status.FLAT: "All positive weights are equal: there is no tail to fear, nothing was changed.",
    Status.TAIL_TOO_SHORT: (
        "Fewer than 6 draws in the tail: khat is unknown (about 30 draws are needed), weights are "
        "not smoothed and gamma rests on ESS alone."
    ),
    Status.DEGENERATE_TAIL: (
        "The tail cannot be fitted (ties, or one draw holds all the mass): khat is infinite, which "
        "is bad, weights are not smoothed and gamma rests on ESS alone."
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
    Status.ERROR_UNCERTAIN: (
        "Fewer than 25 draws carry the standard error: it is uncertain by more than a tenth, most likely "
        "too small, and intervals made of it cover less than they say."
    ),
}
