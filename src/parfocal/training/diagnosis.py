"""Diagnose the bottleneck of training from measurements, and suggest what to change."""

from dataclasses import dataclass
from typing import Literal

from parfocal.recipe import Recipe

Bottleneck = Literal["memory", "loading", "sharing", "step", "other_processes"]

# A loss of speed below these is noise, or not worth a change.
_MAX_WAITING = 0.05
_MIN_RELATIVE_SPEED = 0.9
_MIN_GAIN = 1.2
# Loading that is so much faster than the step takes next to nothing of the cores that both share.
_NEGLIGIBLE_LOADING_RATIO = 20
# Above this share of the GPU memory, a slightly larger image no longer fits; below the other, a larger batch fits.
_GPU_FULL = 0.92
_GPU_ROOMY = 0.4
# A step that reaches this share of the matrix multiplication rate can hardly become faster.
_HIGH_UTILIZATION = 0.6


@dataclass(frozen=True)
class Measurements:
    """The speed and memory of training on a machine.

    Rates are in images per second: `loading_rate` of rendering batches alone, `geometry_loading_rate` of the same with
    geometric augmentation only, `step_rate` of training steps on a batch in memory, `epoch_rate` of both as in
    training. `waiting` is the share of the epoch in which the step waits for a batch. `gflop_per_image` counts forward
    and backward pass; `matmul_gflops` is the speed of matrix multiplication in GFLOP/s by precision. Memory is in GB:
    of all prepared pixels, of the machine, of the GPU (0 without a GPU), and what a step uses of the GPU. A batch that
    did not fit was split into `n_micro_batches`.
    """

    device: str
    n_cores: int
    precision: Literal["bf16", "float32"]
    resident: bool
    loading_rate: float
    geometry_loading_rate: float
    step_rate: float
    epoch_rate: float
    waiting: float
    gflop_per_image: float
    matmul_gflops: dict[str, float]
    pixels_gb: float
    memory_gb: float
    gpu_memory_gb: float = 0.0
    gpu_used_gb: float = 0.0
    n_micro_batches: int = 1

    @property
    def flops_utilization(self) -> float:
        """The share of the matrix multiplication rate that the training step reaches."""
        return self.step_rate * self.gflop_per_image / self.matmul_gflops[self.precision]

    @property
    def relative_speed(self) -> float:
        """The speed of training relative to the training step alone."""
        return self.epoch_rate / self.step_rate


@dataclass(frozen=True)
class Diagnosis:
    """The bottleneck of training in a sentence, and suggestions, the most promising first."""

    measurements: Measurements
    bottleneck: Bottleneck
    message: str
    suggestions: tuple[str, ...]


def diagnose(measurements: Measurements, recipe: Recipe) -> Diagnosis:
    """Find the bottleneck of training."""
    speed = measurements.relative_speed
    on_cpu = measurements.device == "cpu"
    config = recipe.training
    is_split = measurements.n_micro_batches > 1
    if is_split or measurements.gpu_used_gb > _GPU_FULL * measurements.gpu_memory_gb > 0:
        bottleneck: Bottleneck = "memory"
        if is_split:
            split = f"{measurements.n_micro_batches} micro-batches"
            message = f"Memory limits training: batches of {config.batch_size} fit only when split into {split}."
        else:
            used = measurements.gpu_used_gb / measurements.gpu_memory_gb
            message = f"Memory limits training: a step uses {used:.0%} of the GPU memory."
        half = max(1, config.batch_size // 2)
        suggestions = [
            f"batch_size={half} accumulate={2 * config.accumulate}: half the memory, the same step",
            *_suggest_smaller_crop(recipe),
        ]
    elif measurements.waiting > _MAX_WAITING:
        bottleneck = "loading"
        message = f"Loading limits training: the step waits for batches {measurements.waiting:.0%} of the time."
        suggestions = _suggest_faster_loading(measurements, recipe)
    elif (
        speed < _MIN_RELATIVE_SPEED
        and on_cpu
        and measurements.loading_rate > _NEGLIGIBLE_LOADING_RATIO * measurements.step_rate
    ):
        bottleneck = "other_processes"
        message = (
            f"Other processes on this machine limit training: it runs at {speed:.0%} of the speed of the step alone, "
            "and loading is too fast to explain that."
        )
        suggestions = ["measure again when no other process runs"]
    elif speed < _MIN_RELATIVE_SPEED:
        bottleneck = "sharing"
        shared = f"{measurements.n_cores} cores" if on_cpu else "GPU and the process that feeds it"
        message = (
            f"Loading and the step share the {shared}: training runs at {speed:.0%} of the speed of the step alone."
        )
        suggestions = _suggest_faster_loading(measurements, recipe)
    else:
        bottleneck = "step"
        message = (
            f"The training step limits training: it runs at {min(1, speed):.0%} of its speed alone and waits for "
            f"batches {measurements.waiting:.1%} of the time. It reaches {measurements.flops_utilization:.0%} of the "
            f"{measurements.precision} matrix multiplication rate."
        )
        suggestions = _suggest_faster_step(measurements, recipe)
    return Diagnosis(measurements, bottleneck, message, tuple(suggestions))


def _suggest_faster_loading(measurements: Measurements, recipe: Recipe) -> list[str]:
    suggestions: list[str] = []
    pixels_gb = measurements.pixels_gb
    if measurements.gpu_memory_gb and not measurements.resident and not recipe.views.custom_transform:
        if pixels_gb < 0.9 * (measurements.gpu_memory_gb - measurements.gpu_used_gb):
            suggestions.append("gpu_cache=0.9: the pixels fit into GPU memory, and the GPU then renders the batches")
        else:
            suggestions.append(f"a smaller size: {pixels_gb:.1f} GB of pixels do not fit into GPU memory")
    if measurements.geometry_loading_rate > _MIN_GAIN * measurements.loading_rate:
        suggestions.append(
            "fewer color augmentations, no erase and no custom_transform: with geometric augmentation only, loading "
            f"reaches {measurements.geometry_loading_rate:,.0f} images/s"
        )
    if recipe.images.store == "jpeg":
        suggestions.append("store=raw: images are not decoded in every epoch, but need more disk space")
    elif pixels_gb > 0.8 * measurements.memory_gb > 0:
        suggestions.append(
            f"store=jpeg or a smaller size: {pixels_gb:.1f} GB of pixels do not stay in "
            f"{measurements.memory_gb:.1f} GB of memory and are read from disk in every epoch"
        )
    if measurements.device == "cuda" and measurements.loading_rate > 2 * measurements.epoch_rate:
        double = 2 * recipe.training.batch_size
        suggestions.append(f"batch_size={double}: loading alone is fast enough, so take fewer and larger steps")
    if not measurements.resident:
        suggestions.append(f"more CPU cores: loading now uses {measurements.n_cores}")
    return suggestions + _suggest_smaller_crop(recipe)


def _suggest_faster_step(measurements: Measurements, recipe: Recipe) -> list[str]:
    suggestions: list[str] = []
    if measurements.precision == "float32":
        gain = measurements.matmul_gflops["bf16"] / measurements.matmul_gflops["float32"]
        if gain > _MIN_GAIN:
            suggestions.append(f"precision=bf16: matrix multiplication is {gain:.1f} times as fast here")
        else:
            suggestions.append("a machine with bf16 in hardware: here bf16 is not faster than float32")
    has_memory = measurements.gpu_used_gb < _GPU_ROOMY * measurements.gpu_memory_gb or recipe.views.crop_size <= 64
    if measurements.flops_utilization < _HIGH_UTILIZATION and has_memory:
        double = 2 * recipe.training.batch_size
        suggestions.append(f"batch_size={double}: larger steps use the hardware better, and they fit into memory")
    suggestions += _suggest_smaller_crop(recipe)
    if recipe.network.model != "resnet18":
        suggestions.append("a shallower network")
    return suggestions


def _suggest_smaller_crop(recipe: Recipe) -> list[str]:
    """Suggest a smaller crop, unless the crop is as small as it can be."""
    crop_size = recipe.views.crop_size
    smaller = max(8, round(crop_size * 0.7 / 8) * 8)
    saving = f"{(smaller / crop_size) ** 2:.0%} of the computation of crop_size={crop_size}"
    return [f"crop_size={smaller}: {saving}"] if smaller < crop_size else []
