"""The diagnosis of the bottleneck of training, for measurements of each kind."""

from dataclasses import replace

import pytest

from parfocal.recipe import Recipe, load_recipe
from parfocal.training.diagnosis import Measurements, diagnose

FAST_LOADING = Measurements(
    device="cpu",
    n_cores=2,
    precision="bf16",
    resident=False,
    loading_rate=3000,
    geometry_loading_rate=3100,
    step_rate=35,
    epoch_rate=34.5,
    waiting=0.001,
    gflop_per_image=10.6,
    matmul_gflops={"float32": 190.0, "bf16": 430.0},
    pixels_gb=1.0,
    memory_gb=16.0,
)
GPU = replace(
    FAST_LOADING,
    device="cuda",
    gpu_memory_gb=80.0,
    gpu_used_gb=20.0,
    step_rate=8000,
    matmul_gflops={"float32": 4e4, "bf16": 7e5},
)
RECIPE = load_recipe(None, brightness=0.2)


def _diagnose(measurements: Measurements, recipe: Recipe = RECIPE) -> tuple[str, str]:
    """Return the bottleneck, and the message with all suggestions."""
    diagnosis = diagnose(measurements, recipe)
    return diagnosis.bottleneck, "\n".join([diagnosis.message, *diagnosis.suggestions])


def test_training_as_fast_as_its_step_is_limited_by_the_step() -> None:
    bottleneck, text = _diagnose(FAST_LOADING)
    assert bottleneck == "step"
    assert "runs at 99% of its speed alone and waits for batches 0.1% of the time" in text
    assert "reaches 86% of the bf16 matrix multiplication rate" in text
    assert "crop_size=160: 51% of the computation of crop_size=224" in text
    assert "batch_size=" not in text
    assert "precision=" not in text


def test_bf16_is_suggested_only_where_it_is_faster() -> None:
    slow = replace(FAST_LOADING, precision="float32")
    assert "precision=bf16: matrix multiplication is 2.3 times as fast here" in _diagnose(slow)[1]
    no_gain = replace(slow, matmul_gflops={"float32": 190.0, "bf16": 60.0})
    bottleneck, text = _diagnose(no_gain)
    assert bottleneck == "step"
    assert "precision=bf16" not in text
    assert "bf16 in hardware" in text


def test_a_larger_batch_is_suggested_where_the_hardware_is_underused_and_has_memory() -> None:
    underused = replace(GPU, epoch_rate=7900, loading_rate=40_000)
    assert _diagnose(underused)[0] == "step"
    assert "batch_size=64" in _diagnose(underused)[1]
    assert "batch_size=64" not in _diagnose(replace(underused, gpu_used_gb=60.0))[1]


def test_waiting_for_batches_is_attributed_to_loading() -> None:
    slow_loading = replace(FAST_LOADING, waiting=0.4, epoch_rate=20, loading_rate=22, geometry_loading_rate=60)
    bottleneck, text = _diagnose(slow_loading)
    assert bottleneck == "loading"
    assert "waits for batches 40% of the time" in text
    assert "with geometric augmentation only, loading reaches 60 images/s" in text
    assert "more CPU cores: loading now uses 2" in text
    assert "geometric augmentation" not in _diagnose(replace(slow_loading, geometry_loading_rate=23))[1]


def test_jpeg_stores_and_pixels_that_exceed_the_memory_are_recognized() -> None:
    slow_loading = replace(FAST_LOADING, waiting=0.4, epoch_rate=20)
    assert "store=raw" in _diagnose(slow_loading, load_recipe(None, store="jpeg"))[1]
    assert "20.0 GB of pixels do not stay in 16.0 GB of memory" in _diagnose(replace(slow_loading, pixels_gb=20.0))[1]
    assert "GB of pixels" not in _diagnose(replace(slow_loading, pixels_gb=20.0, memory_gb=0.0))[1]


def test_pixels_that_fit_into_gpu_memory_should_be_cached_there() -> None:
    slow_loading = replace(GPU, waiting=0.5, epoch_rate=2600, loading_rate=2700)
    assert "gpu_cache=0.9" in _diagnose(slow_loading)[1]
    assert "100.0 GB of pixels do not fit into GPU memory" in _diagnose(replace(slow_loading, pixels_gb=100.0))[1]
    bottleneck, text = _diagnose(replace(slow_loading, resident=True, waiting=0.0))
    assert bottleneck == "sharing"
    assert "gpu_cache=" not in text
    assert "cores" not in text


def test_cores_shared_by_loading_and_step_are_recognized() -> None:
    bottleneck, text = _diagnose(replace(FAST_LOADING, loading_rate=100, geometry_loading_rate=100, epoch_rate=26))
    assert bottleneck == "sharing"
    assert "share the 2 cores: training runs at 74% of the speed of the step alone" in text


def test_a_loss_of_speed_that_loading_cannot_explain_is_attributed_to_other_processes() -> None:
    bottleneck, text = _diagnose(replace(FAST_LOADING, epoch_rate=20))
    assert bottleneck == "other_processes"
    assert "measure again" in text


def test_full_gpu_memory_comes_before_all_other_bottlenecks() -> None:
    bottleneck, text = _diagnose(replace(GPU, gpu_used_gb=76.0, waiting=0.5))
    assert bottleneck == "memory"
    assert "batch_size=16 accumulate=2" in text


@pytest.mark.parametrize(("crop_size", "smaller"), [(1024, 720), (224, 160), (28, 16), (8, None)])
def test_a_smaller_crop_is_suggested_where_there_is_one(crop_size: int, smaller: int | None) -> None:
    text = _diagnose(FAST_LOADING, load_recipe(None, size=1024, crop_size=crop_size))[1]
    assert f"crop_size={smaller}: " in text if smaller else "crop_size=" not in text
