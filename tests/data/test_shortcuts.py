"""A shortcut is reported where features other than the content predict the label, and only there."""

import warnings

import numpy as np
import pytest

from parfocal.data.shortcuts import (
    ALL_FEATURES,
    SHORTCUT_FEATURES,
    Shortcut,
    compute_shortcut_features,
    find_shortcuts,
)

NAMES = [name for names in SHORTCUT_FEATURES.values() for name in names]


def _compute_by_name(image: np.ndarray, n_bytes: int) -> dict[str, float]:
    features = compute_shortcut_features(image, n_bytes, image.shape[1], image.shape[0])
    return dict(zip(NAMES, features.tolist(), strict=True))


def _draw_features(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, len(NAMES)))


def _find_by_kind(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Shortcut]:
    return {shortcut.kind: shortcut for shortcut in find_shortcuts(features, labels, groups)}


def test_features_are_computed_in_the_order_of_their_names() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[3:97, 6:194] = (200, 100, 50)
    image[-15:, -30:] = 255
    features = _compute_by_name(image, 5000)
    assert len(set(NAMES)) == len(NAMES)
    assert features["log of the file size"] == pytest.approx(np.log(5000))
    assert features["log of the aspect ratio"] == pytest.approx(np.log(2))
    assert features["mean red"] == pytest.approx(image[..., 0].mean())
    assert features["mean blue"] == pytest.approx(image[..., 2].mean())
    border_green = 255 * (30 * 3 + 12 * 6) / (100 * 200 - 94 * 188)
    assert features["green of the border"] == pytest.approx(border_green, rel=1e-3)
    assert features["red 3,3 of the bottom right corner"] == 255
    assert features["red 0,0 of the top left corner"] < 200
    assert features["green 0,3 of the top right corner"] < 100


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 300), (5, 5), (640, 480)])
def test_features_are_finite_for_images_of_any_shape(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    features = compute_shortcut_features(image, 0, shape[1], shape[0])
    assert features.shape == (len(NAMES),)
    assert np.isfinite(features).all()


def test_noise_predicts_nothing() -> None:
    labels = np.random.default_rng(1).integers(0, 3, 400)
    shortcuts = find_shortcuts(_draw_features(400), labels, np.arange(400) // 2)
    assert [shortcut.kind for shortcut in shortcuts] == [*SHORTCUT_FEATURES, ALL_FEATURES]
    assert not any(shortcut.is_clear for shortcut in shortcuts)
    assert {shortcut.chance_level for shortcut in shortcuts} == {1 / 3}


def test_a_file_size_that_predicts_the_class_is_the_only_shortcut() -> None:
    labels = np.arange(300) % 2
    features = _draw_features(300)
    features[:, NAMES.index("log of the file size")] += 4 * labels
    shortcuts = _find_by_kind(features, labels, np.arange(300))
    assert {kind for kind, shortcut in shortcuts.items() if shortcut.is_clear} == {"file size", ALL_FEATURES}
    assert shortcuts["file size"].accuracy > 0.9
    assert shortcuts["file size"].majority_accuracy == 0.5


def test_a_class_in_the_middle_of_the_range_is_found() -> None:
    labels = np.arange(400) % 2
    features = _draw_features(400) * 0.1
    features[:, NAMES.index("log of the width")] = np.where(labels, 6.0, np.where(np.arange(400) % 4 < 2, 5.0, 7.0))
    assert _find_by_kind(features, labels, np.arange(400))["image size"].balanced_accuracy > 0.9


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    labels = (np.arange(600) % 12 == 0).astype(int)
    features = _draw_features(600)
    features[:, NAMES.index("mean red")] += 2 * labels
    shortcut = _find_by_kind(features, labels, np.arange(600))["mean color"]
    assert shortcut.majority_accuracy == pytest.approx(11 / 12)
    assert shortcut.accuracy == pytest.approx(shortcut.majority_accuracy, abs=0.05)
    assert shortcut.balanced_accuracy > 0.7
    assert shortcut.is_clear


def test_features_that_separate_patients_but_not_classes_are_no_shortcut() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 20)
    labels = rng.permutation(40)[groups] % 2
    features = rng.normal(size=(40, len(NAMES)))[groups] + 0.01 * _draw_features(800)
    assert not any(shortcut.is_clear for shortcut in find_shortcuts(features, labels, groups))


def test_with_few_groups_no_shortcut_is_clear() -> None:
    labels = np.repeat(np.arange(4) % 2, 50)
    features = _draw_features(200)
    features[:, 0] += 6 * labels
    shortcuts = _find_by_kind(features, labels, np.repeat(np.arange(4), 50))
    assert shortcuts["file size"].balanced_accuracy > 0.9
    assert not shortcuts["file size"].is_clear


def test_small_classes_are_left_out_if_two_others_are_larger() -> None:
    labels = np.concatenate([np.arange(100) % 2, [2, 2, 3, -1, -1]])
    groups = np.array([f"patient {number}" for number in range(105)], dtype=object)
    shortcuts = find_shortcuts(_draw_features(105), labels, groups)
    assert {shortcut.chance_level for shortcut in shortcuts} == {0.5}


@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1], [-1, -1, -1], [0, 0, 0, 0, 1]])
def test_the_result_is_empty_where_nothing_can_be_tested(labels: list[int]) -> None:
    count = len(labels)
    assert find_shortcuts(_draw_features(count), np.array(labels, int), np.arange(count)) == []


def test_a_single_group_is_not_enough() -> None:
    assert find_shortcuts(_draw_features(60), np.arange(60) % 2, np.zeros(60)) == []


def test_constant_features_predict_exactly_as_well_as_chance_without_warnings() -> None:
    labels = np.arange(90) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shortcuts = find_shortcuts(np.full((90, len(NAMES)), 7.0), labels, np.arange(90))
    assert [shortcut.balanced_accuracy for shortcut in shortcuts] == pytest.approx([1 / 3] * len(shortcuts))
    assert not any(shortcut.is_clear for shortcut in shortcuts)


def test_rows_that_are_not_finite_are_left_out() -> None:
    features = _draw_features(100)
    features[::7] = np.nan
    assert len(find_shortcuts(features, np.arange(100) % 2, np.arange(100))) == len(SHORTCUT_FEATURES) + 1


def test_a_sample_of_many_rows_has_rows_of_all_groups_and_is_the_same_each_time() -> None:
    count = 30_000
    groups = np.concatenate([np.zeros(count // 2, int), 1 + np.arange(count // 2) // 4])
    labels = np.where(groups == 0, 0, groups % 2)
    features = _draw_features(count).astype(np.float32)
    features[:, 0] += 2 * labels
    first = find_shortcuts(features, labels, groups, seed=3)
    assert first == find_shortcuts(features, labels, groups, seed=3)
    assert {shortcut.kind: shortcut for shortcut in first}["file size"].is_clear
    assert first[0].majority_accuracy < 0.6
