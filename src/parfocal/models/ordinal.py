"""Ordinal heads: they turn the score of an image into a logit for each grade, for ordered classes."""

import math

import torch
from torch import Tensor, nn

_MIN_GAP = 1e-3


class RegressionHead(nn.Module):
    """A head whose score is a grade; the most probable class is the interval between thresholds that contains it.

    Two neighboring classes are equally probable if the grade is at the threshold between them, and the odds grow by a
    factor of e for each `scale` of distance. New thresholds are halfway between grades, so the prediction is the
    rounded grade.
    """

    thresholds: Tensor
    scale: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.arange(n_classes - 1) + 0.5)
        self.register_buffer("scale", torch.ones(()))
        self.center = (n_classes - 1) / 2

    def forward(self, scores: Tensor) -> Tensor:
        """Compute logits (N, classes) for scores (N, 1), which are 0 at the middle grade."""
        return self.compute_logits(scores.float() + self.center)

    def compute_logits(self, grades: Tensor) -> Tensor:
        """Compute logits (N, classes) for grades (N, 1)."""
        steps = (grades - self.thresholds) / self.scale
        return torch.cat([torch.zeros_like(grades), steps.cumsum(dim=1)], dim=1)

    def compute_grades(self, logits: Tensor) -> Tensor:
        """Compute the grades (N,) from logits or log probabilities: the inverse of `compute_logits`."""
        # The two most probable neighbors are the most exact: far from the grade, probabilities lose precision.
        lower = logits.detach()[:, :-1].logaddexp(logits.detach()[:, 1:]).argmax(dim=1, keepdim=True)
        step = logits.gather(1, lower + 1) - logits.gather(1, lower)
        return (step * self.scale + self.thresholds[lower]).squeeze(1)


class CumulativeLinkHead(nn.Module):
    """A cumulative link model (proportional odds) with learned cutpoints on a score."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.first_cutpoint = nn.Parameter(torch.tensor([(2 - n_classes) / 2]))
        self.gaps = nn.Parameter(torch.full((n_classes - 2,), math.log(math.e - 1)))

    @property
    def cutpoints(self) -> Tensor:
        """The cutpoints (classes - 1), always in ascending order."""
        offsets = (_MIN_GAP + nn.functional.softplus(self.gaps)).cumsum(dim=0)
        return torch.cat([self.first_cutpoint, self.first_cutpoint + offsets])

    def forward(self, scores: Tensor) -> Tensor:
        """Compute log probabilities (N, classes) for scores (N, 1)."""
        cutpoints = self.cutpoints
        margins = cutpoints - scores.float()
        # σ(a) - σ(b) = σ(a) σ(-b) (1 - e^(b-a)). The logarithm of this form is finite for every score.
        inner = nn.functional.logsigmoid(margins[:, 1:]) + nn.functional.logsigmoid(-margins[:, :-1])
        inner = inner + torch.log(-torch.expm1(cutpoints[:-1] - cutpoints[1:]))
        first = nn.functional.logsigmoid(margins[:, :1])
        last = nn.functional.logsigmoid(-margins[:, -1:])
        return torch.cat([first, inner, last], dim=1)


ORDINAL_HEADS: dict[str, type[RegressionHead] | type[CumulativeLinkHead]] = {
    "regression": RegressionHead,
    "cumulative_link": CumulativeLinkHead,
}
"""The ordinal heads by the name of the loss that needs them."""


def build_ordinal_head(loss: str, n_classes: int) -> RegressionHead | CumulativeLinkHead | None:
    """Build the ordinal head that a loss needs; return None for a loss of unordered classes."""
    head = ORDINAL_HEADS.get(loss)
    return head(n_classes) if head else None
