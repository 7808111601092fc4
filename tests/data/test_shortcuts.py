"""What lies beside a picture's content is measured, and said to predict the label only where it does."""

import warnings

import numpy as np
import pytest

from parfocal.data.shortcuts import ALL_FEATURES, SHORTCUT_FEATURES, Shortcut, compute_shortcut_features, find_shortcuts

NAMES = [name for names in SHORTCUT_FEATURES.values() for name in names]


def _values(picture: np.ndarray, size: int = 1000) -> dict[str, float]:
    vector = compute_shortcut_features(picture, size, picture.shape[1], picture.shape[0])
    return dict(zip(NAMES, vector.tolist(), strict=True))


def _noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, len(NAMES)))


def _by_kind(found: list[Shortcut]) -> dict[str, Shortcut]:
    return {one.kind: one for one in found}


def test_trivia_are_measured_in_the_order_of_their_names() -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[3:97, 6:194] = (200, 100, 50)
    picture[-15:, -30:] = 255
    found = _values(picture, 5000)
    assert len(set(NAMES)) == len(NAMES)
    assert found["log of the bytes"] == pytest.approx(np.log(5000))
    assert found["log of the aspect"] == pytest.approx(np.log(2))
    assert found["mean red"] == pytest.approx(picture[..., 0].mean())
    assert found["mean blue"] == pytest.approx(picture[..., 2].mean())
    assert found["green of the border"] == pytest.approx(255 * (30 * 3 + 12 * 6) / (100 * 200 - 94 * 188), rel=1e-3)
    assert found["red 3,3 of the bottom right corner"] == 255
    assert found["red 0,0 of the top left corner"] < 200
    assert found["green 0,3 of the top right corner"] < 100


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 300), (5, 5), (640, 480)])
def test_trivia_are_finite_for_pictures_of_any_shape(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    vector = compute_shortcut_features(picture, 0, shape[1], shape[0])
    assert vector.shape == (len(NAMES),)
    assert np.isfinite(vector).all()


def test_noise_predicts_nothing() -> None:
    labels = np.random.default_rng(1).integers(0, 3, 400)
    found = find_shortcuts(_noise(400), labels, np.arange(400) // 2)
    assert [one.kind for one in found] == [*SHORTCUT_FEATURES, ALL_FEATURES]
    assert not any(one.is_clear for one in found)
    assert {one.chance_level for one in found} == {1 / 3}


def test_a_file_size_that_tells_the_class_is_found_and_nothing_else_is_blamed() -> None:
    labels = np.arange(300) % 2
    vectors = _noise(300)
    vectors[:, NAMES.index("log of the bytes")] += 4 * labels
    found = _by_kind(find_shortcuts(vectors, labels, np.arange(300)))
    assert {kind for kind, one in found.items() if one.is_clear} == {"file size", ALL_FEATURES}
    assert found["file size"].accuracy > 0.9
    assert found["file size"].majority_accuracy == 0.5


def test_a_class_in_the_middle_of_the_range_is_found() -> None:
    labels = np.arange(400) % 2
    vectors = _noise(400) * 0.1
    vectors[:, NAMES.index("log of the width")] = np.where(labels, 6.0, np.where(np.arange(400) % 4 < 2, 5.0, 7.0))
    assert _by_kind(find_shortcuts(vectors, labels, np.arange(400)))["image size"].balanced_accuracy > 0.9


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    labels = (np.arange(600) % 12 == 0).astype(int)
    vectors = _noise(600)
    vectors[:, NAMES.index("mean red")] += 2 * labels
    found = _by_kind(find_shortcuts(vectors, labels, np.arange(600)))["mean colour"]
    assert found.majority_accuracy == pytest.approx(11 / 12)
    assert found.accuracy == pytest.approx(found.majority_accuracy, abs=0.05)
    assert found.balanced_accuracy > 0.7
    assert found.is_clear


def test_what_tells_patients_apart_but_not_classes_is_no_shortcut() -> None:
    dice = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 20)
    labels = dice.permutation(40)[groups] % 2
    vectors = dice.normal(size=(40, len(NAMES)))[groups] + 0.01 * _noise(800)
    assert not any(one.is_clear for one in find_shortcuts(vectors, labels, groups))


def test_few_groups_are_too_few_to_be_sure() -> None:
    labels = np.repeat(np.arange(4) % 2, 50)
    vectors = _noise(200)
    vectors[:, 0] += 6 * labels
    found = _by_kind(find_shortcuts(vectors, labels, np.repeat(np.arange(4), 50)))
    assert found["file size"].balanced_accuracy > 0.9
    assert not found["file size"].is_clear


def test_small_classes_are_left_out_while_two_others_are_larger() -> None:
    labels = np.concatenate([np.arange(100) % 2, [2, 2, 3, -1, -1]])
    found = find_shortcuts(_noise(105), labels, np.array([f"patient {number}" for number in range(105)], dtype=object))
    assert {one.chance_level for one in found} == {0.5}


@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1], [-1, -1, -1], [0, 0, 0, 0, 1]])
def test_nothing_is_said_where_nothing_can_be_tested(labels: list[int]) -> None:
    count = len(labels)
    assert find_shortcuts(_noise(count), np.array(labels, int), np.arange(count)) == []


def test_one_group_is_not_enough() -> None:
    assert find_shortcuts(_noise(60), np.arange(60) % 2, np.zeros(60)) == []


def test_constant_numbers_predict_exactly_as_well_as_guessing_and_warn_of_nothing() -> None:
    labels = np.arange(90) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_shortcuts(np.full((90, len(NAMES)), 7.0), labels, np.arange(90))
    assert [one.balanced_accuracy for one in found] == pytest.approx([1 / 3] * len(found))
    assert not any(one.is_clear for one in found)


def test_rows_that_are_not_finite_are_left_out() -> None:
    vectors = _noise(100)
    vectors[::7] = np.nan
    assert len(find_shortcuts(vectors, np.arange(100) % 2, np.arange(100))) == len(SHORTCUT_FEATURES) + 1


def test_of_many_rows_a_part_is_taken_from_all_groups_and_the_same_each_time() -> None:
    count = 30_000
    groups = np.concatenate([np.zeros(count // 2, int), 1 + np.arange(count // 2) // 4])
    labels = np.where(groups == 0, 0, groups % 2)
    vectors = _noise(count).astype(np.float32)
    vectors[:, 0] += 2 * labels
    first, second = (find_shortcuts(vectors, labels, groups, seed=3) for _ in range(2))
    assert first == second
    assert _by_kind(first)["file size"].is_clear
    assert first[0].majority_accuracy < 0.6
