"""Where a map lies to a region, counted by cells, beside what random places would give."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parfocal.explaining.places import (
    background_mask,
    border_mask,
    center_mask,
    compute_region_overlap,
    compute_region_share,
)


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 9), columns=st.integers(1, 9), side=st.integers(9, 40))
def test_shares_are_shares_and_a_region_and_the_rest_are_all(seed: int, rows: int, columns: int, side: int) -> None:
    dice = np.random.default_rng(seed)
    evidence = dice.normal(size=(rows, columns)).astype(np.float32)
    region = (dice.random((side, side)) < 0.3).astype(np.float32)
    inside, outside = compute_region_share(evidence, region), compute_region_share(evidence, 1 - region)
    if (evidence > 0).any():
        assert inside is not None
        assert outside is not None
        assert -1e-6 <= inside <= 1 + 1e-6
        assert abs(inside + outside - 1) < 1e-4
    else:
        assert inside is None
    found = compute_region_overlap(evidence, region)
    assert abs(found.random_share - region.mean()) < 1e-4
    assert found.random_share <= found.random_hit + 1e-6


def test_what_is_told_of_random_maps_is_what_random_maps_reach() -> None:
    dice = np.random.default_rng(0)
    region = np.zeros((28, 28), np.float32)
    region[3:12, 9:27] = 1
    found = [compute_region_overlap(dice.permutation(np.arange(49.0)).reshape(7, 7) - 20, region) for _ in range(4000)]
    assert abs(np.mean([one.hit for one in found]) - found[0].random_hit) < 0.02
    assert abs(np.mean([one.share for one in found if one.share is not None]) - found[0].random_share) < 0.01


def test_a_peak_hits_where_its_cell_holds_some_of_the_region() -> None:
    evidence, region = np.zeros((4, 4)), np.zeros((32, 32))
    evidence[1, 2] = 5.0
    region[15, 23] = 1
    assert compute_region_overlap(evidence, region).hit
    assert compute_region_overlap(evidence, region).share == 1 / 64
    region[15, 23], region[16, 23] = 0, 1
    assert not compute_region_overlap(evidence, region).hit
    assert not compute_region_overlap(np.zeros((4, 4)), np.ones((32, 32))).hit
    assert compute_region_overlap(-np.ones((4, 4)), np.ones((32, 32))).share is None


def test_the_surround_is_black_and_reaches_the_edge() -> None:
    picture = np.full((40, 40, 3), 120, np.uint8)
    picture[:, :6] = 3
    picture[18:22, 18:22] = 0
    found = background_mask(picture)
    assert found[:, :6].all()
    assert not found[:, 6:].any()
    assert not background_mask(np.full((8, 8, 3), 200, np.uint8)).any()
    assert background_mask(np.zeros((8, 8, 3), np.uint8)).all()


def test_the_border_is_the_outer_twelfth() -> None:
    found = border_mask(48)
    assert found[:4].all()
    assert not found[4:-4, 4:-4].any()
    assert border_mask(5).any()


@given(side=st.integers(24, 512))
def test_the_middle_is_as_large_as_the_border(side: int) -> None:
    assert abs(center_mask(side).mean() - border_mask(side).mean()) < 0.06
    assert not (center_mask(side) & border_mask(side)).any()
