"""A link's thresholds and spread, tuned on what it said."""

import numpy as np
import torch
from sklearn.metrics import cohen_kappa_score, log_loss

from parfocal.models.ordinal import RegressionHead
from parfocal.training.ordinal_thresholds import fit_thresholds
from tests.evaluation.make_predictions import draw_grades


def test_a_tuned_link_answers_by_its_thresholds_with_honest_probabilities() -> None:
    grades, truth = draw_grades(0, 400, 5, 0.3)
    link, scores = RegressionHead(5), torch.from_numpy(grades[:, None] - 2)

    def said() -> np.ndarray:
        return torch.softmax(link(scores).double(), dim=1).numpy()

    plain = said()
    told = fit_thresholds(link, plain, truth)
    np.testing.assert_allclose(told, said(), atol=1e-5)
    kappas = [cohen_kappa_score(truth, one.argmax(axis=1), weights="quadratic") for one in (plain, said())]
    assert kappas[1] > kappas[0] + 0.05
    assert log_loss(truth, said()) < log_loss(truth, plain)
    before = said()
    fit_thresholds(link, before, truth)
    np.testing.assert_allclose(said(), before, atol=1e-3)
