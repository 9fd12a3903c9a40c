"""What is said first where a result is shown to people."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from isdiag._core import bands
from isdiag.status import Status

GREEN, YELLOW, RED = "green", "yellow", "red"
_UNTROUBLED = (Status.OK, Status.FLAT)


class Said(NamedTuple):
    """What comes first where a result is shown: a word, its colour in a terminal, a sentence."""

    word: str
    colour: str
    sentence: str


def said_of_status(result: Any) -> Said:
    """By the statuses of a result, if it has any."""
    codes = np.ravel(np.asarray(getattr(result, "status", Status.OK))).tolist()
    worst = [Status(code) for code in codes if code not in _UNTROUBLED]
    if not worst:
        return Said("computed", GREEN, "")
    if len(codes) == 1:
        return Said(worst[0].name, YELLOW, worst[0].message)
    names = ", ".join(f"{count} {status.name}" for status, count in Counter(worst).most_common())
    return Said("look at status", YELLOW, f"Of {len(codes)} rows: {names}.")


def said_of_tail(result: Any, khat: Any) -> Said:
    """By the worst khat of a result, and its statuses."""
    status, k = said_of_status(result), np.ravel(np.asarray(khat, np.float64)).tolist()
    if not k:
        return status
    each = [bands.band_of(value) for value in k]
    # The worst last, the unknown between: they may be anything.
    ranks = {band: rank for rank, band in enumerate((*bands.BANDS[:2], bands.UNKNOWN, *bands.BANDS[2:]))}
    worst = max(each, key=ranks.__getitem__)
    colour = status.colour if (worst.colour, status.colour) == (GREEN, YELLOW) else worst.colour
    if len(k) == 1:
        said = f"khat {k[0]:.3g}: {worst.moments}."
    else:
        counts = Counter(each)
        said = ", ".join(f"{counts[band]} {band.word}" for band in ranks if band in counts)
        said = f"khat of {len(k)}: {said}."
    return Said(worst.word, colour, f"{said} {status.sentence}".rstrip())
