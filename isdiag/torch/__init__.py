"""Off-policy losses for torch: weights chosen and diagnosed by `isdiag.rl`, gradients left to autograd.

What draws are made of goes to the CPU at once, a few numbers for each; what comes back are coefficients.
"""

from isdiag.torch.language_models import sequence_log_probs
from isdiag.torch.layouts import Layout
from isdiag.torch.loss import is_reshape_loss, reshape_coefficients, weighted_loss
from isdiag.torch.ranks import Gathered, all_reduce, gather
from isdiag.torch.trainer import ISReshapeTrainer

__all__ = [
    "Gathered",
    "ISReshapeTrainer",
    "Layout",
    "all_reduce",
    "gather",
    "is_reshape_loss",
    "reshape_coefficients",
    "sequence_log_probs",
    "weighted_loss",
]
