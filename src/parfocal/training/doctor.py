"""What holds training up on a machine, and what to change: a verdict on measured figures."""

from dataclasses import dataclass
from typing import Literal

from parfocal.recipe import Recipe

Culprit = Literal["memory", "loading", "sharing", "step", "others"]

# Below these, what is lost is noise or not worth a change.
_WAITING, _KEPT, _WORTH_IT = 0.05, 0.9, 1.2
# Loading that is so much faster than the step takes next to nothing of the cores they share.
_FAR_FASTER = 20
# Above this share of the memory a step fails at the next larger image; below the other a batch could be larger.
_FULL, _ROOMY = 0.92, 0.4
# A step that reaches this share of the matrix rate has little left to give.
_NEAR_THE_MOST = 0.6


@dataclass(frozen=True)
class Figures:
    """What a machine does with a recipe.

    `loading`, `step` and `together` are images a second: batches rendered with nothing else to do, the training step
    on a batch that lies ready, and the trainer's own epoch; `bare_loading` is loading with geometry alone. `waiting` is
    the share of the epoch in which the step waited for a batch. `work` is what the network computes for an image of
    training, in GFLOP; `matrix` what matrices of each precision reach here, in GFLOP/s. Memory is in GB: that of the
    prepared pixels, of the machine, of the graphics card (0 without one) and what of it a step takes; a batch that did
    not fit went through in `pieces`.
    """

    device: str
    cores: int
    precision: Literal["bf16", "float32"]
    resident: bool
    loading: float
    bare_loading: float
    step: float
    together: float
    waiting: float
    work: float
    matrix: dict[str, float]
    pixels: float
    memory: float
    card_memory: float = 0.0
    card_used: float = 0.0
    pieces: int = 1

    @property
    def share(self) -> float:
        """The share of the matrix rate that the bare step reaches."""
        return self.step * self.work / self.matrix[self.precision]

    @property
    def kept(self) -> float:
        """The share of the bare step's speed that is left when batches are rendered beside it."""
        return self.together / self.step


@dataclass(frozen=True)
class Verdict:
    """What holds training up, in a sentence, and what to change, the most promising first."""

    figures: Figures
    culprit: Culprit
    text: str
    changes: tuple[str, ...]


def verdict(figures: Figures, recipe: Recipe) -> Verdict:
    """Say what holds training up."""
    if figures.pieces > 1:
        text = f"Memory holds you up: batches of {recipe.training.batch} fit only in {figures.pieces} pieces."
        return Verdict(figures, "memory", text, _less_memory(recipe))
    if figures.card_used > _FULL * figures.card_memory > 0:
        used = figures.card_used / figures.card_memory
        text = f"Memory holds you up: a step takes {used:.0%} of the graphics card's."
        return Verdict(figures, "memory", text, _less_memory(recipe))
    if figures.waiting > _WAITING:
        text = f"Loading holds you up: the step waits for batches {figures.waiting:.0%} of the time."
        return Verdict(figures, "loading", text, _faster_loading(figures, recipe))
    if figures.kept < _KEPT and figures.loading > _FAR_FASTER * figures.step and figures.device == "cpu":
        text = (
            f"Other work on this machine holds you up: together, {figures.kept:.0%} of the bare step's speed is left, "
            "and loading is too fast to explain that."
        )
        return Verdict(figures, "others", text, ("measure again when the machine has nothing else to do",))
    if figures.kept < _KEPT:
        shared = f"{figures.cores} cores" if figures.device == "cpu" else "graphics card and the process that feeds it"
        text = (
            f"Loading and the step share the {shared}: together, {figures.kept:.0%} of the bare step's speed is left."
        )
        return Verdict(figures, "sharing", text, _faster_loading(figures, recipe))
    text = (
        f"The step holds you up: training runs at {min(1, figures.kept):.0%} of its speed and waits for batches "
        f"{figures.waiting:.1%} of the time; it reaches {figures.share:.0%} of {figures.precision}'s matrix rate."
    )
    return Verdict(figures, "step", text, _faster_step(figures, recipe))


def _less_memory(recipe: Recipe) -> tuple[str, ...]:
    part = recipe.training
    half = f"batch={max(1, part.batch // 2)} accumulate={2 * part.accumulate}: half the memory, the same step"
    return (half, *_smaller_crop(recipe))


def _faster_loading(figures: Figures, recipe: Recipe) -> tuple[str, ...]:
    changes: list[str] = []
    if figures.card_memory and not figures.resident and not recipe.views.also:
        if figures.pixels < 0.9 * (figures.card_memory - figures.card_used):
            changes.append("resident=0.9: the pixels fit on the graphics card, which then renders the views itself")
        else:
            changes.append(f"a smaller size: {figures.pixels:.1f} GB of pixels do not fit on the graphics card")
    if figures.bare_loading > _WORTH_IT * figures.loading:
        changes.append(
            "fewer steps on colours, no erase and no also: with geometry alone loading does "
            f"{figures.bare_loading:,.0f} images/s"
        )
    if recipe.images.store == "jpeg":
        changes.append("store=raw: nothing is decoded again, for more room on the disk")
    elif figures.pixels > 0.8 * figures.memory > 0:
        changes.append(
            f"store=jpeg or a smaller size: {figures.pixels:.1f} GB of pixels do not stay in {figures.memory:.1f} GB "
            "of memory and are read from the disk again in each epoch"
        )
    if figures.device == "cuda" and figures.loading > 2 * figures.together:
        changes.append(f"batch={2 * recipe.training.batch}: loading alone is fast enough, so fewer, larger steps")
    if not figures.resident:
        changes.append(f"more cores: {figures.cores} render now")
    return (*changes, *_smaller_crop(recipe))


def _faster_step(figures: Figures, recipe: Recipe) -> tuple[str, ...]:
    changes: list[str] = []
    gain = figures.matrix["bf16"] / figures.matrix["float32"]
    if figures.precision == "float32" and gain > _WORTH_IT:
        changes.append(f"precision=bf16: its matrices multiply {gain:.1f} times as fast here")
    if figures.precision == "float32" and gain <= _WORTH_IT:
        changes.append("a machine with bf16 in hardware: here its matrices are not worth it")
    roomy = figures.card_used < _ROOMY * figures.card_memory or recipe.views.crop <= 64
    if figures.share < _NEAR_THE_MOST and roomy:
        changes.append(f"batch={2 * recipe.training.batch}: larger steps keep the hardware busier, and there is memory")
    changes += _smaller_crop(recipe)
    if recipe.network.model != "resnet18":
        changes.append("a network of less depth")
    return tuple(changes)


def _smaller_crop(recipe: Recipe) -> tuple[str, ...]:
    crop = recipe.views.crop
    smaller = max(8, round(crop * 0.7 / 8) * 8)
    return (f"crop={smaller}: {(smaller / crop) ** 2:.0%} of the work of crop={crop}",) if smaller < crop else ()
