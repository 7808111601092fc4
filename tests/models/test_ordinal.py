"""Ordinal heads turn one score per image into one logit per grade."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.models.classifier import Classifier, build_classifier
from parfocal.models.ordinal import ORDINAL_HEADS, CumulativeLinkHead, RegressionHead, build_ordinal_head
from parfocal.recipe_schema import NetworkConfig


def _make_regression_head(thresholds: list[float], scale: float) -> RegressionHead:
    head = RegressionHead(len(thresholds) + 1)
    head.thresholds.copy_(torch.tensor(thresholds))
    head.scale.fill_(scale)
    return head


def test_only_losses_of_ordered_classes_have_an_ordinal_head() -> None:
    assert build_ordinal_head("cross_entropy", 3) is None
    assert isinstance(build_ordinal_head("regression", 3), RegressionHead)
    assert isinstance(build_ordinal_head("cumulative_link", 3), CumulativeLinkHead)


def test_a_new_regression_head_rounds_the_grade_and_its_score_is_0_at_the_middle_grade() -> None:
    predicted = RegressionHead(5)(torch.tensor([[-9.0], [-1.4], [0.0], [0.6], [3.0]])).argmax(dim=1)
    assert predicted.tolist() == [0, 1, 2, 3, 4]


@given(
    thresholds=st.lists(st.floats(-2, 6), min_size=1, max_size=6).map(sorted),
    scale=st.floats(0.05, 5),
    grade=st.floats(-3, 7),
)
def test_the_most_probable_class_is_the_interval_that_contains_the_grade(
    thresholds: list[float], scale: float, grade: float
) -> None:
    if min(abs(threshold - grade) for threshold in thresholds) > 1e-3:
        logits = _make_regression_head(thresholds, scale).compute_logits(torch.tensor([[grade]]))
        assert logits.argmax().item() == sum(threshold < grade for threshold in thresholds)


@given(scale=st.floats(0.05, 5), grade=st.floats(-2, 12))
def test_the_grade_is_recovered_from_the_probabilities(scale: float, grade: float) -> None:
    head = _make_regression_head([0.2, 1.5, 1.7, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5], scale)
    probabilities = torch.softmax(head.compute_logits(torch.tensor([[grade]], dtype=torch.float64)), dim=1)
    assert head.compute_grades(probabilities.log()).item() == pytest.approx(grade, abs=1e-4)


def test_the_odds_of_neighboring_classes_are_even_at_their_threshold_and_grow_with_the_distance() -> None:
    logits = _make_regression_head([0.4, 1.9], 0.5).compute_logits(torch.tensor([[0.4], [1.4]]))
    assert (logits[:, 1] - logits[:, 0]).tolist() == pytest.approx([0, 2], abs=1e-6)


def test_cumulative_link_probabilities_are_differences_of_logistic_functions() -> None:
    head = CumulativeLinkHead(4)
    scores = torch.tensor([[-1.3], [0.2], [2.0]])
    torch.testing.assert_close(head.cutpoints, torch.tensor([-1.0, 0.001, 1.002]))
    cumulative = torch.sigmoid(head.cutpoints - scores)
    expected = torch.diff(cumulative, dim=1, prepend=torch.zeros(3, 1), append=torch.ones(3, 1))
    torch.testing.assert_close(head(scores).exp(), expected)
    torch.testing.assert_close(torch.softmax(head(scores), dim=1), expected)


def test_with_two_classes_the_cumulative_link_is_logistic_regression() -> None:
    scores = torch.randn(20, 1) * 4
    labels = torch.arange(20) % 2
    loss = torch.nn.functional.cross_entropy(CumulativeLinkHead(2)(scores), labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores.squeeze(1), labels.float())
    torch.testing.assert_close(loss, expected)


def test_cutpoints_stay_in_order_and_logits_finite_for_extreme_parameters() -> None:
    head = CumulativeLinkHead(5)
    with torch.no_grad():
        head.gaps.copy_(torch.tensor([-500.0, 0.0, 500.0]))
    assert (head.cutpoints.diff() > 0).all()
    assert head(torch.tensor([[-1e6], [0.0], [1e6]])).isfinite().all()


@pytest.mark.parametrize("loss", ORDINAL_HEADS)
def test_a_classifier_is_saved_with_its_ordinal_head(loss: str, tmp_path: Path) -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20"), ("none", "mild", "severe"), loss=loss).eval()
    assert classifier.ordinal_head is not None
    for value in classifier.ordinal_head.state_dict().values():
        value += torch.rand(value.shape)
    classifier.save(tmp_path / "model.safetensors")
    loaded = Classifier.load(tmp_path / "model.safetensors").eval()
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    assert loaded(pixels).shape == (4, 3)
    assert loaded(pixels).equal(classifier(pixels))
