"""Pictures of results, with matplotlib (``pip install 'isdiag[plot]'``).

Each function takes a result, or one row of log-weights where no result holds what is drawn, and `ax=` to draw
into; it returns those Axes. Text has the colour of the style in use, so that a dark one works. A band of khat
has one colour and one marker everywhere. `import isdiag` imports none of this.
"""

from importlib import util

if util.find_spec("matplotlib") is None:
    _MSG = "pictures need matplotlib: pip install 'isdiag[plot]'"
    raise ModuleNotFoundError(_MSG, name="matplotlib")

from isdiag.plots._curves import gamma_curve, log_z, mse_curve
from isdiag.plots._tails import khat, tail_fit, weight_concentration
from isdiag.plots._training import training_run

__all__ = [
    "gamma_curve",
    "khat",
    "log_z",
    "mse_curve",
    "tail_fit",
    "training_run",
    "weight_concentration",
]
