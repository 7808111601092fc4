"""Links: how one score for each image becomes one logit for each grade, so that grades are answered like classes."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

OrdinalHeadName = Literal["none", "grades", "cutpoints"]

_MIN_GAP = 1e-3


class RegressionHead(nn.Module):
    """A score that is a grade: the most probable class is the one between whose thresholds the grade lies.

    Neighbouring classes are as probable as one another where the grade is at the threshold between them, and the odds
    grow by e for each `spread` it is away. New thresholds lie halfway, so that the answer is the grade rounded.
    """

    thresholds: Tensor
    scale: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.arange(n_classes - 1) + 0.5)
        self.register_buffer("scale", torch.ones(()))
        self.center = (n_classes - 1) / 2

    def forward(self, scores: Tensor) -> Tensor:
        """Give logits (N, classes) for scores (N, 1), which count from the middle grade."""
        return self.compute_logits(scores.float() + self.center)

    def compute_logits(self, grades: Tensor) -> Tensor:
        """Give logits (N, classes) for grades (N, 1)."""
        steps = (grades - self.thresholds) / self.scale
        return torch.cat([torch.zeros_like(grades), steps.cumsum(dim=1)], dim=1)

    def compute_grades(self, logits: Tensor) -> Tensor:
        """Give back the grades (N,) behind logits, or behind the logarithms of probabilities."""
        # The two likeliest neighbours say it best: far from the grade, probabilities drown in rounding.
        lower = logits.detach()[:, :-1].logaddexp(logits.detach()[:, 1:]).argmax(dim=1, keepdim=True)
        step = logits.gather(1, lower + 1) - logits.gather(1, lower)
        return (step * self.scale + self.thresholds[lower]).squeeze(1)


class CumulativeLinkHead(nn.Module):
    """A score with learnt cutpoints: a grade's probability is the difference of the logistic function at its two."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.first_cutpoint = nn.Parameter(torch.tensor([(2 - n_classes) / 2]))
        self.gaps = nn.Parameter(torch.full((n_classes - 2,), math.log(math.e - 1)))

    @property
    def cutpoints(self) -> Tensor:
        """The cutpoints (classes - 1), always in order."""
        above = (_MIN_GAP + nn.functional.softplus(self.gaps)).cumsum(dim=0)
        return torch.cat([self.first_cutpoint, self.first_cutpoint + above])

    def forward(self, scores: Tensor) -> Tensor:
        """Give logits (N, classes), the logarithms of the probabilities, for scores (N, 1)."""
        cutpoints = self.cutpoints
        away = cutpoints - scores.float()
        # σ(a) - σ(b) is σ(a) σ(-b) (1 - e^(b-a)); in this form its logarithm stays finite wherever the score lies.
        between = nn.functional.logsigmoid(away[:, 1:]) + nn.functional.logsigmoid(-away[:, :-1])
        between = between + torch.log(-torch.expm1(cutpoints[:-1] - cutpoints[1:]))
        ends = nn.functional.logsigmoid(away[:, :1]), nn.functional.logsigmoid(-away[:, -1:])
        return torch.cat([ends[0], between, ends[1]], dim=1)


def build_ordinal_head(name: OrdinalHeadName, n_classes: int) -> RegressionHead | CumulativeLinkHead | None:
    """Return a new link by name; `none` where the network itself gives a logit for each class."""
    if name == "none":
        return None
    return RegressionHead(n_classes) if name == "grades" else CumulativeLinkHead(n_classes)
