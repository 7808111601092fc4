"""What holds training up on a machine, and what to change: a verdict on measured figures."""

from dataclasses import dataclass
from typing import Literal

from parfocal.recipe import Recipe

Bottleneck = Literal["memory", "loading", "sharing", "step", "others"]

# Below these, what is lost is noise or not worth a change.
_MAX_WAITING, _MIN_RELATIVE_SPEED, _MIN_GAIN = 0.05, 0.9, 1.2
# Loading that is so much faster than the step takes next to nothing of the cores they share.
_NEGLIGIBLE_LOADING_RATIO = 20
# Above this share of the memory a step fails at the next larger image; below the other a batch could be larger.
_GPU_FULL, _GPU_ROOMY = 0.92, 0.4
# A step that reaches this share of the matrix rate has little left to give.
_HIGH_UTILIZATION = 0.6


@dataclass(frozen=True)
class Measurements:
    """What a machine does with a recipe.

    `loading`, `step` and `together` are images a second: batches rendered with nothing else to do, the training step
    on a batch that lies ready, and the trainer's own epoch; `bare_loading` is loading with geometry alone. `waiting` is
    the share of the epoch in which the step waited for a batch. `work` is what the network computes for an image of
    training, in GFLOP; `matrix` what matrices of each precision reach here, in GFLOP/s. Memory is in GB: that of the
    prepared pixels, of the machine, of the graphics card (0 without one) and what of it a step takes; a batch that did
    not fit went through in `pieces`.
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
        """The share of the matrix rate that the bare step reaches."""
        return self.step_rate * self.gflop_per_image / self.matmul_gflops[self.precision]

    @property
    def relative_speed(self) -> float:
        """The share of the bare step's speed that is left when batches are rendered beside it."""
        return self.epoch_rate / self.step_rate


@dataclass(frozen=True)
class Diagnosis:
    """What holds training up, in a sentence, and what to change, the most promising first."""

    measurements: Measurements
    bottleneck: Bottleneck
    message: str
    suggestions: tuple[str, ...]


def diagnose(measurements: Measurements, recipe: Recipe) -> Diagnosis:
    """Say what holds training up."""
    if measurements.n_micro_batches > 1:
        text = f"Memory holds you up: batches of {recipe.training.batch_size} fit only in {measurements.n_micro_batches} pieces."
        return Diagnosis(measurements, "memory", text, _suggest_less_memory(recipe))
    if measurements.gpu_used_gb > _GPU_FULL * measurements.gpu_memory_gb > 0:
        used = measurements.gpu_used_gb / measurements.gpu_memory_gb
        text = f"Memory holds you up: a step takes {used:.0%} of the graphics card's."
        return Diagnosis(measurements, "memory", text, _suggest_less_memory(recipe))
    if measurements.waiting > _MAX_WAITING:
        text = f"Loading holds you up: the step waits for batches {measurements.waiting:.0%} of the time."
        return Diagnosis(measurements, "loading", text, _suggest_faster_loading(measurements, recipe))
    if (
        measurements.relative_speed < _MIN_RELATIVE_SPEED
        and measurements.loading_rate > _NEGLIGIBLE_LOADING_RATIO * measurements.step_rate
        and measurements.device == "cpu"
    ):
        text = (
            f"Other work on this machine holds you up: together, {measurements.relative_speed:.0%} of the bare step's speed is left, "
            "and loading is too fast to explain that."
        )
        return Diagnosis(measurements, "others", text, ("measure again when the machine has nothing else to do",))
    if measurements.relative_speed < _MIN_RELATIVE_SPEED:
        shared = (
            f"{measurements.n_cores} cores"
            if measurements.device == "cpu"
            else "graphics card and the process that feeds it"
        )
        text = f"Loading and the step share the {shared}: together, {measurements.relative_speed:.0%} of the bare step's speed is left."
        return Diagnosis(measurements, "sharing", text, _suggest_faster_loading(measurements, recipe))
    text = (
        f"The step holds you up: training runs at {min(1, measurements.relative_speed):.0%} of its speed and waits for batches "
        f"{measurements.waiting:.1%} of the time; it reaches {measurements.flops_utilization:.0%} of {measurements.precision}'s matrix rate."
    )
    return Diagnosis(measurements, "step", text, _suggest_faster_step(measurements, recipe))


def _suggest_less_memory(recipe: Recipe) -> tuple[str, ...]:
    part = recipe.training
    half = f"batch_size={max(1, part.batch_size // 2)} accumulate={2 * part.accumulate}: half the memory, the same step"
    return (half, *_suggest_smaller_crop(recipe))


def _suggest_faster_loading(measurements: Measurements, recipe: Recipe) -> tuple[str, ...]:
    changes: list[str] = []
    if measurements.gpu_memory_gb and not measurements.resident and not recipe.views.custom_transform:
        if measurements.pixels_gb < 0.9 * (measurements.gpu_memory_gb - measurements.gpu_used_gb):
            changes.append("gpu_cache=0.9: the pixels fit on the graphics card, which then renders the views itself")
        else:
            changes.append(f"a smaller size: {measurements.pixels_gb:.1f} GB of pixels do not fit on the graphics card")
    if measurements.geometry_loading_rate > _MIN_GAIN * measurements.loading_rate:
        changes.append(
            "fewer steps on colours, no erase and no also: with geometry alone loading does "
            f"{measurements.geometry_loading_rate:,.0f} images/s"
        )
    if recipe.images.store == "jpeg":
        changes.append("store=raw: nothing is decoded again, for more room on the disk")
    elif measurements.pixels_gb > 0.8 * measurements.memory_gb > 0:
        changes.append(
            f"store=jpeg or a smaller size: {measurements.pixels_gb:.1f} GB of pixels do not stay in {measurements.memory_gb:.1f} GB "
            "of memory and are read from the disk again in each epoch"
        )
    if measurements.device == "cuda" and measurements.loading_rate > 2 * measurements.epoch_rate:
        changes.append(
            f"batch_size={2 * recipe.training.batch_size}: loading alone is fast enough, so fewer, larger steps"
        )
    if not measurements.resident:
        changes.append(f"more cores: {measurements.n_cores} render now")
    return (*changes, *_suggest_smaller_crop(recipe))


def _suggest_faster_step(measurements: Measurements, recipe: Recipe) -> tuple[str, ...]:
    changes: list[str] = []
    gain = measurements.matmul_gflops["bf16"] / measurements.matmul_gflops["float32"]
    if measurements.precision == "float32" and gain > _MIN_GAIN:
        changes.append(f"precision=bf16: its matrices multiply {gain:.1f} times as fast here")
    if measurements.precision == "float32" and gain <= _MIN_GAIN:
        changes.append("a machine with bf16 in hardware: here its matrices are not worth it")
    roomy = measurements.gpu_used_gb < _GPU_ROOMY * measurements.gpu_memory_gb or recipe.views.crop_size <= 64
    if measurements.flops_utilization < _HIGH_UTILIZATION and roomy:
        changes.append(
            f"batch_size={2 * recipe.training.batch_size}: larger steps keep the hardware busier, and there is memory"
        )
    changes += _suggest_smaller_crop(recipe)
    if recipe.network.model != "resnet18":
        changes.append("a network of less depth")
    return tuple(changes)


def _suggest_smaller_crop(recipe: Recipe) -> tuple[str, ...]:
    crop = recipe.views.crop_size
    smaller = max(8, round(crop * 0.7 / 8) * 8)
    return (
        (f"crop_size={smaller}: {(smaller / crop) ** 2:.0%} of the work of crop_size={crop}",) if smaller < crop else ()
    )
