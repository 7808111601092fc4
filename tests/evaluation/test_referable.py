"""Referable disease is a question of two answers, derived from the grades."""

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

import parfocal
from parfocal.errors import UsageError
from parfocal.evaluation.judgement import evaluate_split
from parfocal.evaluation.referable import binarize_grades
from parfocal.parts import EvaluationConfig
from parfocal.recipe import load_recipe
from tests.evaluation.said import make_predictions

GRADES = EvaluationConfig(ordered=True, referable=2)


def test_it_is_asked_of_the_sum_of_the_grades_probabilities() -> None:
    dice = np.random.default_rng(3)
    truth = dice.integers(0, 5, 200)
    probabilities = dice.dirichlet(np.ones(5) / 2 + np.eye(5)[0], 200)
    derived = binarize_grades(make_predictions(truth, probabilities), 2)
    assert derived.classes == ("below class 2", "class 2 or above")
    assert derived.truth.tolist() == (truth >= 2).astype(int).tolist()
    found = evaluate_split(make_predictions(truth, probabilities), GRADES)["referable"]
    assert found["auc"] == pytest.approx(sk.roc_auc_score(truth >= 2, probabilities[:, 2:].sum(axis=1)))
    low, high = found["intervals"]["auc"]
    assert low < found["auc"] < high


def test_what_nobody_knows_stays_unknown() -> None:
    assert binarize_grades(make_predictions([-1, 4], np.full((2, 5), 0.2)), 2).truth.tolist() == [-1, 1]


def test_it_is_named_in_the_recipe() -> None:
    assert load_recipe("retinopathy").judgement == GRADES
    assert "referable" not in evaluate_split(make_predictions([0, 1], np.eye(2)), load_recipe().judgement)
    with pytest.raises(UsageError, match="referable=2 needs ordered=true"):
        load_recipe(None, referable=2)


def test_a_grade_that_the_data_does_not_have_is_refused_before_training(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="referable=2, but the classes are normal, blast, counted from 0"):
        parfocal.train(cells, out=tmp_path / "runs", ordered=True, referable=2)
