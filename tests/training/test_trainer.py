"""Fitting the thresholds and the scale of a regression head to its predictions."""

import numpy as np
import torch
from sklearn.metrics import cohen_kappa_score, log_loss

from parfocal.models.ordinal import RegressionHead
from parfocal.training.trainer import fit_thresholds
from tests.evaluation.make_predictions import draw_grades


def test_fitted_thresholds_improve_kappa_and_the_scale_calibrates_the_probabilities() -> None:
    grades, truth = draw_grades(0, 400, 5, 0.3)
    head = RegressionHead(5)
    scores = torch.from_numpy(grades[:, None] - 2)

    def predict() -> np.ndarray:
        return torch.softmax(head(scores).double(), dim=1).numpy()

    def kappa(probabilities: np.ndarray) -> float:
        return cohen_kappa_score(truth, probabilities.argmax(axis=1), weights="quadratic")

    before = predict()
    returned = fit_thresholds(head, before, truth)
    after = predict()
    np.testing.assert_allclose(returned, after, atol=1e-5)
    assert kappa(after) > kappa(before) + 0.05
    assert log_loss(truth, after) < log_loss(truth, before)
    fit_thresholds(head, after, truth)
    np.testing.assert_allclose(predict(), after, atol=1e-3)
