"""MixUp and CutMix on a batch of uint8 pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parfocal.parts import TrainingConfig
from parfocal.training.mixing import mix_batch

BATCH = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 12, 16, 3) * 30
LABELS = torch.arange(8)


@given(step=st.integers(0, 500))
def test_mixup_blends_each_image_with_its_partner_by_its_share(step: int) -> None:
    pixels, blend = mix_batch(BATCH, LABELS, TrainingConfig(mixup=0.4), (0, 0, step))
    assert blend is not None
    expected = BATCH.float() * blend.lam + BATCH[blend.partner_labels].float() * (1 - blend.lam)
    assert pixels.dtype == torch.uint8
    assert (pixels.float() - expected).abs().max() <= 0.5001


@given(step=st.integers(0, 500))
def test_cutmix_takes_a_box_of_the_partner_and_counts_its_area(step: int) -> None:
    pixels, blend = mix_batch(BATCH, LABELS, TrainingConfig(cutmix=1.0), (0, 0, step))
    assert blend is not None
    taken = (pixels != BATCH).any(dim=3)
    for image, partner in enumerate(blend.partner_labels.tolist()):
        if partner != image:
            assert taken[image].float().mean().item() == pytest.approx(1 - blend.lam)
            assert set(pixels[image].unique().tolist()) <= {30 * image, 30 * partner}
    assert (BATCH[3] == 90).all()


def test_both_take_turns_and_hang_on_seed_epoch_and_step() -> None:
    part = TrainingConfig(mixup=0.4, cutmix=1.0)
    boxes = [bool(np.isin(mix_batch(BATCH, LABELS, part, (0, 0, step))[0].numpy() % 30, 0).all()) for step in range(60)]
    assert 0.2 < np.mean(boxes) < 0.8
    one, same, other = (mix_batch(BATCH, LABELS, part, seed)[0] for seed in ((1, 2, 3), (1, 2, 3), (1, 2, 4)))
    assert one.equal(same)
    assert not one.equal(other)


def test_without_either_a_batch_is_left_alone() -> None:
    assert mix_batch(BATCH, LABELS, TrainingConfig(), (0, 0, 0)) == (BATCH, None)
