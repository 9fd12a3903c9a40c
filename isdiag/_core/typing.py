"""Names for the arrays that go through the house, and for what the fields of a result hold."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Values = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Codes = NDArray[np.int8]
Mask = NDArray[np.bool_]
Records = NDArray[np.void]  # a row of named numbers for each row, see isdiag/_kernels/records.py
Positions = int | tuple[int, ...]
Axis = Positions | str | tuple[int | str, ...]  # names are for arrays whose axes have some

Rule = Literal["joint", "refit", "mse"]
StabilityRule = Literal["joint", "refit"]
Kind = Literal["kish", "perplexity", "max"]
Dependence = Literal["independent", "mcmc"]
Smoothing = bool | Literal["psis", "truncate", "auto"]
Covariance = Literal["target", "proposal"]
IntervalMethod = Literal["hall", "delta", "bounded"]
Resampling = Literal["systematic", "stratified", "residual", "multinomial"]
Direction = Literal["target", "proposal"]
Estimator = Literal["k1", "k2", "k3"]
TrapezoidRule = Literal["corrected", "trapezoid"]

# What a field of a result holds; `Result.of` goes by these names. Where the batch is 0-d all are scalars.
PerRow = Any  # numbers of the batch shape, or of that and h's own axes, in the caller's kind of array
Statuses = Any  # codes of `Status`, or one Status
Limits = Any  # names of what set gamma, from their codes
Words = Any
LogWeights = Any  # log_w's shape, kind and float dtype
Given = Any  # stays as it is
