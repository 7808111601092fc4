"""The doctor's verdicts, each on figures that call for it."""

from dataclasses import replace

import pytest

from parfocal.recipe import Recipe, load_recipe
from parfocal.training.diagnosis import Measurements, diagnose

HEALTHY = Measurements(
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
CARD = replace(
    HEALTHY,
    device="cuda",
    gpu_memory_gb=80.0,
    gpu_used_gb=20.0,
    step_rate=8000,
    matmul_gflops={"float32": 4e4, "bf16": 7e5},
)
RECIPE = load_recipe(None, brightness=0.2)


def _says(figures: Measurements, chosen: Recipe = RECIPE) -> tuple[str, str]:
    found = diagnose(figures, chosen)
    return found.bottleneck, "\n".join([found.message, *found.suggestions])


def test_a_loop_as_fast_as_its_step_is_held_up_by_the_step() -> None:
    culprit, text = _says(HEALTHY)
    assert culprit == "step"
    assert (
        "runs at 99% of its speed and waits for batches 0.1% of the time; it reaches 86% of bf16's matrix rate" in text
    )
    assert "crop_size=160: 51% of the work of crop_size=224" in text
    assert "batch_size=" not in text
    assert "precision=" not in text


def test_float32_is_called_out_only_where_bf16_is_faster() -> None:
    slow = replace(HEALTHY, precision="float32")
    assert "precision=bf16: its matrices multiply 2.3 times as fast here" in _says(slow)[1]
    alike = replace(slow, matmul_gflops={"float32": 190.0, "bf16": 60.0})
    culprit, text = _says(alike)
    assert culprit == "step"
    assert "precision=bf16" not in text
    assert "bf16 in hardware" in text


def test_a_larger_batch_is_advised_where_the_hardware_idles_and_has_room() -> None:
    idle = replace(CARD, epoch_rate=7900, loading_rate=40_000)
    assert _says(idle)[0] == "step"
    assert "batch_size=64" in _says(idle)[1]
    assert "batch_size=64" not in _says(replace(idle, gpu_used_gb=60.0))[1]


def test_waiting_for_batches_is_laid_to_loading() -> None:
    hungry = replace(HEALTHY, waiting=0.4, epoch_rate=20, loading_rate=22, geometry_loading_rate=60)
    culprit, text = _says(hungry)
    assert culprit == "loading"
    assert "waits for batches 40% of the time" in text
    assert "with geometry alone loading does 60 images/s" in text
    assert "more cores: 2 render now" in text
    assert "geometry alone" not in _says(replace(hungry, geometry_loading_rate=23))[1]


def test_loading_from_packed_or_too_many_pixels_is_seen() -> None:
    hungry = replace(HEALTHY, waiting=0.4, epoch_rate=20)
    assert "store=raw" in _says(hungry, load_recipe(None, store="jpeg"))[1]
    assert "20.0 GB of pixels do not stay in 16.0 GB of memory" in _says(replace(hungry, pixels_gb=20.0))[1]
    assert "GB of pixels" not in _says(replace(hungry, pixels_gb=20.0, memory_gb=0.0))[1]


def test_on_a_card_pixels_that_fit_are_to_lie_there() -> None:
    hungry = replace(CARD, waiting=0.5, epoch_rate=2600, loading_rate=2700)
    assert "gpu_cache=0.9" in _says(hungry)[1]
    assert "100.0 GB of pixels do not fit on the graphics card" in _says(replace(hungry, pixels_gb=100.0))[1]
    lying = _says(replace(hungry, resident=True, waiting=0.0))
    assert lying[0] == "sharing"
    assert "gpu_cache=" not in lying[1]
    assert "cores" not in lying[1]


def test_cores_that_render_and_compute_are_seen_to_be_shared() -> None:
    culprit, text = _says(replace(HEALTHY, loading_rate=100, geometry_loading_rate=100, epoch_rate=26))
    assert culprit == "sharing"
    assert "share the 2 cores: together, 74% of the bare step's speed is left" in text


def test_a_loss_of_speed_that_loading_cannot_explain_is_laid_to_others() -> None:
    culprit, text = _says(replace(HEALTHY, epoch_rate=20))
    assert culprit == "others"
    assert "measure again" in text


def test_a_full_card_comes_first() -> None:
    culprit, text = _says(replace(CARD, gpu_used_gb=76.0, waiting=0.5))
    assert culprit == "memory"
    assert "batch_size=16 accumulate=2" in text


@pytest.mark.parametrize(("crop", "smaller"), [(1024, 720), (224, 160), (28, 16), (8, None)])
def test_a_smaller_crop_is_advised_where_there_is_one(crop: int, smaller: int | None) -> None:
    text = _says(HEALTHY, load_recipe(None, size=1024, crop_size=crop))[1]
    assert f"crop_size={smaller}: " in text if smaller else "crop_size=" not in text
