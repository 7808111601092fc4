"""From one score for an image to one logit for each grade."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.models.classifier import Classifier, build_classifier
from parfocal.models.ordinal import CumulativeLinkHead, OrdinalHeadName, RegressionHead
from parfocal.schema import NetworkConfig


def _grades(thresholds: list[float], spread: float) -> RegressionHead:
    link = RegressionHead(len(thresholds) + 1)
    link.thresholds.copy_(torch.tensor(thresholds))
    link.scale.fill_(spread)
    return link


def test_a_new_link_rounds_the_grade_and_counts_from_the_middle() -> None:
    said = RegressionHead(5)(torch.tensor([[-9.0], [-1.4], [0.0], [0.6], [3.0]])).argmax(dim=1)
    assert said.tolist() == [0, 1, 2, 3, 4]


@given(
    cuts=st.lists(st.floats(-2, 6), min_size=1, max_size=6).map(sorted),
    spread=st.floats(0.05, 5),
    grade=st.floats(-3, 7),
)
def test_the_likeliest_class_is_the_one_between_whose_thresholds_the_grade_lies(
    cuts: list[float], spread: float, grade: float
) -> None:
    if min(abs(cut - grade) for cut in cuts) > 1e-3:
        logits = _grades(cuts, spread).compute_logits(torch.tensor([[grade]]))
        assert logits.argmax().item() == sum(cut < grade for cut in cuts)


@given(spread=st.floats(0.05, 5), grade=st.floats(-2, 12))
def test_the_grade_is_found_again_in_the_probabilities(spread: float, grade: float) -> None:
    link = _grades([0.2, 1.5, 1.7, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5], spread)
    probabilities = torch.softmax(link.compute_logits(torch.tensor([[grade]], dtype=torch.float64)), dim=1)
    assert link.compute_grades(probabilities.log()).item() == pytest.approx(grade, abs=1e-4)


def test_the_odds_of_neighbours_are_even_at_their_threshold_and_grow_with_the_distance() -> None:
    logits = _grades([0.4, 1.9], 0.5).compute_logits(torch.tensor([[0.4], [1.4]]))
    assert (logits[:, 1] - logits[:, 0]).tolist() == pytest.approx([0, 2], abs=1e-6)


def test_cutpoints_give_differences_of_logistic_functions() -> None:
    link, scores = CumulativeLinkHead(4), torch.tensor([[-1.3], [0.2], [2.0]])
    torch.testing.assert_close(link.cutpoints, torch.tensor([-1.0, 0.001, 1.002]))
    below = torch.sigmoid(link.cutpoints - scores)
    expected = torch.diff(below, dim=1, prepend=torch.zeros(3, 1), append=torch.ones(3, 1))
    torch.testing.assert_close(link(scores).exp(), expected)
    torch.testing.assert_close(torch.softmax(link(scores), dim=1), expected)


def test_two_classes_make_cutpoints_the_plain_logistic_function() -> None:
    scores, labels = torch.randn(20, 1) * 4, torch.arange(20) % 2
    found = torch.nn.functional.cross_entropy(CumulativeLinkHead(2)(scores), labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores.squeeze(1), labels.float())
    torch.testing.assert_close(found, expected)


def test_cutpoints_stay_in_order_and_finite_wherever_they_are_driven() -> None:
    link = CumulativeLinkHead(5)
    with torch.no_grad():
        link.gaps.copy_(torch.tensor([-500.0, 0.0, 500.0]))
    assert (link.cutpoints.diff() > 0).all()
    assert link(torch.tensor([[-1e6], [0.0], [1e6]])).isfinite().all()


@pytest.mark.parametrize("name", ["grades", "cutpoints"])
def test_a_classifier_keeps_its_link_with_its_weights(name: OrdinalHeadName, tmp_path: Path) -> None:
    classifier = build_classifier(NetworkConfig(model="resnet20"), ("none", "mild", "severe"), ordinal_head=name).eval()
    assert classifier.ordinal_head is not None
    for value in classifier.ordinal_head.state_dict().values():
        value += torch.rand(value.shape)
    classifier.save(tmp_path / "model.safetensors")
    loaded = Classifier.load(tmp_path / "model.safetensors").eval()
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    assert loaded(pixels).shape == (4, 3)
    assert loaded(pixels).equal(classifier(pixels))
