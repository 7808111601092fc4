"""Heatmaps show strength by opacity on the caller's scale: zero is transparent, and weak maps stay weak."""

import numpy as np
import pytest

from parfocal.explainability.heatmap import (
    compute_shared_scale,
    find_contours,
    overlay_heatmap,
    render_gray_map,
    render_heatmap,
    resize_map,
)


def _make_peak_map(value: float) -> np.ndarray:
    evidence = np.zeros((7, 7), np.float32)
    evidence[2, 4] = value
    return evidence


def test_an_empty_map_looks_empty() -> None:
    image = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    empty = np.zeros((7, 7), np.float32)
    assert render_heatmap(empty, 3.0, 56)[..., 3].max() == 0
    assert np.ptp(overlay_heatmap(image, empty, 3.0).astype(int), axis=2).max() == 0
    assert np.unique(render_gray_map(empty, 3.0, 56)).tolist() == [128]
    assert compute_shared_scale(empty) == compute_shared_scale() == compute_shared_scale(np.empty((0, 7, 7))) == 1.0


@pytest.mark.parametrize(("sign", "warm"), [(1, True), (-1, False)])
def test_evidence_for_a_class_is_warm_and_against_it_cold(sign: int, warm: bool) -> None:
    heatmap = render_heatmap(_make_peak_map(sign * 2.0), 2.0, 56)
    row, column = np.unravel_index(heatmap[..., 3].argmax(), heatmap.shape[:2])
    assert (row // 8, column // 8) == (2, 4)
    red, _, blue, opacity = heatmap[row, column].astype(int)
    assert (red > blue) == warm
    assert opacity > 180
    gray = render_gray_map(_make_peak_map(sign * 2.0), 2.0, 56)
    assert gray[row, column] == pytest.approx(128 + sign * 112, abs=16)


def test_on_a_shared_scale_a_weak_map_stays_weak() -> None:
    scale = compute_shared_scale(_make_peak_map(4.0), _make_peak_map(-0.4))
    assert scale == 4.0
    strong, weak = (render_heatmap(_make_peak_map(value), scale, 56)[..., 3].max() for value in (4.0, 0.4))
    assert weak < strong / 8


def test_contours_enclose_the_area_that_reaches_the_level() -> None:
    evidence = _make_peak_map(3.0)
    (contour,) = find_contours(evidence, 1.5, 56)
    inside = resize_map(evidence, 56) >= 1.5
    for column, row in contour[:, 0]:
        assert inside[row, column]
    assert find_contours(evidence, 3.1, 56) == []
