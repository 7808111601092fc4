"""The rules of the recipe `auto`: plain functions from facts, and from what is chosen so far, to values with reasons.

What the user says is chosen before any rule; the values that rules yield for such keys are passed over.
"""
# MERGED: """The recipe `auto`: measure the data and the device, let the rules choose, and keep a reason beside each value."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parfocal.data.split import read_and_split
from parfocal.models import resnet
from parfocal.recipe import Recipe, expand_recipes, load_recipe, validate_changes
from parfocal.recipe_file import AUTO
from parfocal.reported import format_value
from parfocal.schema import ColumnsConfig, DataConfig, SplitConfig
from parfocal.training.fingerprint import Fingerprint, compute_fingerprint

Choice = tuple[str, Any, str]
"""A key, its value, and the reason."""

Rule = Callable[[Fingerprint, dict[str, Any]], Iterator[Choice]]

_DEFAULT_SIDE, _LARGE_SIDE, _MAX_SIDE = 224, 512, 4096
# Up to this side the usual stem, which divides by four at once, leaves too little to see.
_SMALL_SIDE = 64
# A picture whose sides differ by no more is squashed, one whose disc's box takes less is trimmed.
_MAX_SQUARE_RATIO, _FULL_DISC_AREA = 1.05, 0.9
_MANY_IMAGES = 10_000
# The largest class over the smallest: from here on, and the largest over its even share.
_IMBALANCE_RATIO, _DOMINANCE_RATIO = 3.0, 1.5
# How many grades diabetic retinopathy has.
_RETINOPATHY_GRADES = 5
_MIN_STEPS_PER_EPOCH = 30
_TOTAL_STEPS = {"cpu": 3_000, "cuda": 10_000}
_MIN_EPOCHS, _MAX_EPOCHS = 5, 100
_MAX_BATCH_SIZE = {"cpu": 32, "cuda": 128}
# Of the device's memory; a step needs about twice what is counted, and the rest is for weights and everybody else.
_BATCH_MEMORY_SHARE = 0.3


def choose_preprocessing(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Bring the images to a square, as large as is worth it."""
    square = max(fingerprint.width, fingerprint.height) <= _MAX_SQUARE_RATIO * fingerprint.short_side
    if (
        fingerprint.appearance == "disc"
        and fingerprint.short_side > _SMALL_SIDE
        and (fingerprint.disc_area < _FULL_DISC_AREA or not square)
    ):
        yield "crop_disc", True, f"the disc's box takes {fingerprint.disc_area:.0%} of the picture, the rest is black"
    if chosen.get("crop_disc"):
        yield "resize_mode", "pad", "the disc keeps its shape, and nothing of it is cut away"
    elif square:
        yield "resize_mode", "squash", "the images are about as wide as they are high"
    else:
        yield (
            "resize_mode",
            "pad",
            f"at {fingerprint.width}×{fingerprint.height} nothing is cut away, and shapes stay what they are",
        )
    most, why = _largest_useful_side(fingerprint)
    within = round(fingerprint.short_side * fingerprint.content_extent)
    why = "the images have no more" if within <= most else why
    wanted = chosen.get("crop_size", max(8, min(within, most)))
    if fingerprint.content_extent < 1:
        lit = f"so that the central {fingerprint.content_extent:.0%}, where all lies that is not black, has {wanted} pixels"
        yield "size", min(_MAX_SIDE, max(wanted, round(wanted / fingerprint.content_extent))), lit
        yield "crop_size", max(8, min(chosen["size"], round(chosen["size"] * fingerprint.content_extent))), why
    else:
        yield "size", wanted, why
        yield "crop_size", chosen["size"], "all that is stored is seen"


def choose_network(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose the network by images and device, and where it begins."""
    small = chosen["crop_size"] <= _SMALL_SIDE
    if fingerprint.device == "cpu":
        yield "model", "resnet18", "ResNet-50 takes three times as long on a CPU"
    elif fingerprint.n_images >= _MANY_IMAGES and not small:
        yield (
            "model",
            "resnet50",
            f"{fingerprint.n_images:,} images feed a deeper network, and the graphics card carries it",
        )
    else:
        yield "model", "resnet18", "a deeper network would learn so few and small images by heart"
    own = resnet.get_architecture(chosen["model"]).stem
    if small and own != "small" and chosen.get("init", "scratch") == "scratch":
        left = -(-chosen["crop_size"] // 32)
        yield (
            "stem",
            "small",
            f"the usual stem would leave {left}×{left} of {chosen['crop_size']}×{chosen['crop_size']} at the end",
        )
    if chosen.get("stem") == "small" or own == "small":
        yield "init", "scratch", "published weights are for another stem"
    elif chosen.get("normalization") in ("none", "whiten") or chosen.get("stride_in") == "1x1":
        yield "init", "scratch", "published weights saw pixels of another scale, or halve them elsewhere"
    elif chosen["model"] in fingerprint.cached_networks:
        yield "init", "imagenet", "ImageNet's weights are at hand; init=scratch would do without"
    else:
        yield "init", "scratch", f"ImageNet's weights for {chosen['model']} are not at hand; init=imagenet fetches them"
    if chosen["init"] == "scratch":
        yield "zero_init_residual", True, "each block begins as the identity, which steadies the first epochs"


def choose_augmentation(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Show the images in all ways in which they could as well have been taken."""
    if fingerprint.rotation_reason:
        yield "rotate", 180, fingerprint.rotation_reason
        yield "flip_horizontal", 0.5, "no side is left or right"
        yield "flip_vertical", 0.5, "no side is up"
        yield "zoom", 0.1, "the scale varies a little from image to image"
    else:
        yield "flip_horizontal", 0.5, "a mirrored image shows the same"
        yield "crop_position", "random", "moved a little, an image shows the same; say rotate=180 if these have no up"
        yield "crop_padding", chosen["crop_size"] // 8, "an eighth of the side"
    yield "brightness", 0.1, "light varies a little from image to image"
    yield "contrast", 0.1, "as brightness"


def choose_loss_and_sampling(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose what is made small, what chooses the epoch, and how often rare classes are shown."""
    shares = [count / fingerprint.n_images for count in fingerprint.class_counts if count]
    if fingerprint.ordinal_reason:
        yield "ordered", True, fingerprint.ordinal_reason
        if (
            len(fingerprint.class_counts) == _RETINOPATHY_GRADES
            and fingerprint.appearance == "disc"
            and chosen["ordered"]
        ):
            yield "referable", 2, "patients are referred from moderate retinopathy on"
        of_classes = chosen.get("label_smoothing") or chosen.get("logit_adjustment")
        loss = "cumulative_link" if of_classes else "regression"
        yield "loss", loss, "the classes are grades: a near miss should cost less than a far one"
        yield "select", "quadratic_kappa", "it counts how far a grade is missed, and is 0 for always the same"
    else:
        yield "loss", "cross_entropy", "the classes have no order that is known"
        if max(shares) > _DOMINANCE_RATIO / len(shares):
            yield "select", "balanced_accuracy", f"always the largest class would be right for {max(shares):.0%}"
        else:
            yield "select", "accuracy", "no class is much larger than the others"
    ratio = max(shares) / min(shares)
    if ratio > _IMBALANCE_RATIO:
        yield "sampling", "square_root", f"the largest class has {ratio:.0f} times the images of the smallest"
    else:
        yield "sampling", "natural", "the classes are of like size"


def choose_batch_size_and_epochs(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose the batch by memory and number of images, and the epochs by the steps they make."""
    numbers = _activations_per_pixel(chosen["model"], chosen.get("stem")) * chosen["crop_size"] ** 2
    size = numbers * (4 if chosen.get("precision") == "float32" else 2)
    room, most = int(_BATCH_MEMORY_SHARE * fingerprint.memory_gib * 2**30 / size), _MAX_BATCH_SIZE[fingerprint.device]
    steady = max(8, fingerprint.n_images // _MIN_STEPS_PER_EPOCH)
    why = f"at least {_MIN_STEPS_PER_EPOCH} steps an epoch" if steady < most else "larger ones would not be faster here"
    if room < min(most, steady):
        why = f"an image needs {size / 2**20:,.0f} MiB of the device's {fingerprint.memory_gib:.0f} GiB"
    yield "batch_size", min(most, _floor_power_of_two(min(room, steady))), why
    steps = _steps_per_epoch(fingerprint, chosen)
    wanted = _TOTAL_STEPS[fingerprint.device] // (1 if chosen["init"] == "scratch" else 2)
    epochs = max(_MIN_EPOCHS, min(_MAX_EPOCHS, round(wanted / steps)), math.ceil(chosen.get("warmup", 0)))
    bounds = f"{_MIN_EPOCHS} to {_MAX_EPOCHS} epochs"
    why = f"{steps:,} steps each; about {wanted:,} in all where {bounds} have as many"
    yield "epochs", epochs, "minutes goes before" if chosen.get("minutes") else why


def choose_optimizer(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose optimiser, rates and schedule."""
    yield "optimizer", "sgd", "it swings less from epoch to epoch than Adam"
    kind, begun = chosen["optimizer"], chosen["init"] != "scratch"
    rate, decay = {"sgd": (0.05, 5e-4), "adam": (1e-3, 0.0), "adamw": (1e-3, 0.05)}[kind]
    if kind == "sgd" and chosen.get("momentum") != 0:
        yield "nesterov", True, "looks ahead along its momentum, at no cost"
    gently = ", a quarter of it for weights that are learnt already" if begun else ""
    yield "learning_rate", rate / 4 if begun else rate, f"for 32 images a step with {kind}{gently}"
    size = f"{chosen['batch_size']} images" if chosen["batch_size"] else "as many images as the device takes"
    yield "lr_scaling", "linear" if kind == "sgd" else "square_root", f"a step has {size}"
    yield "weight_decay", decay, f"the usual with {kind}"
    yield "no_decay_norm_bias", True, "norms and biases need none"
    yield (
        "schedule",
        "one_cycle",
        "the rate climbs for 30 % of the run and ends near zero, so that the last epochs settle",
    )
    if chosen["schedule"] != "one_cycle":
        warmup = min(max(1, round(0.05 * chosen["epochs"])), chosen["epochs"] / 2)
        yield "warmup", warmup, "the full rate is too much for a network that has just begun"
    steps = chosen["epochs"] * _steps_per_epoch(fingerprint, chosen)
    yield (
        "ema",
        0.999 if steps >= 5_000 else 0.99,
        f"an average of the weights is steadier; the run has {steps:,} steps",
    )


RULES: tuple[Rule, ...] = (
    choose_preprocessing,
    choose_network,
    choose_augmentation,
    choose_loss_and_sampling,
    choose_batch_size_and_epochs,
    choose_optimizer,
)
"""In this order: each may ask what those before have chosen."""


def _largest_useful_side(fingerprint: Fingerprint) -> tuple[int, str]:
    """Return the largest side that is worth looking at, and why."""
    if fingerprint.appearance == "disc" and fingerprint.device == "cuda":
        return _LARGE_SIDE, "lesions are small, and the graphics card carries 512 pixels"
    if fingerprint.appearance == "disc":
        return _DEFAULT_SIDE, "512 pixels show more and take five times as long, too long for a CPU"
    return _DEFAULT_SIDE, "the side that the networks were made for"


def _steps_per_epoch(fingerprint: Fingerprint, chosen: dict[str, Any]) -> int:
    """Return the steps of an epoch; batch=auto is known only when training begins, and is taken for the largest."""
    return math.ceil(fingerprint.n_images / (chosen["batch_size"] or _MAX_BATCH_SIZE[fingerprint.device]))


def _floor_power_of_two(limit: int) -> int:
    """Return the largest power of two that is no larger, and at least 2, without which no norm learns."""
    return max(2, 1 << max(0, limit.bit_length() - 1))


@lru_cache
@torch.no_grad()
def _activations_per_pixel(model: str, stem: resnet.Stem | None) -> float:
    """Count the numbers that a network keeps of a pixel for its backward pass, without any pixels."""
    total = 0

    def count(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    with torch.device("meta"):
        made = resnet.build_resnet(model, n_classes=2, stem=stem)
        for module in made.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.register_forward_hook(count)
        made.eval()(torch.empty(1, 3, _DEFAULT_SIDE, _DEFAULT_SIDE))
    return total / _DEFAULT_SIDE**2


SET_BY_USER = "you said so"
"""The reason for a value that no rule chose."""

_DATA_KEYS = {"seed", *DataConfig.model_fields, *ColumnsConfig.model_fields, *SplitConfig.model_fields}


@dataclass(frozen=True)
class Plan:
    """A recipe and, where it was planned, the key, the value and the reason of each choice."""

    recipe: Recipe
    reasons: tuple[Choice, ...] = ()

    @property
    def user_keys(self) -> set[str]:
        """The keys that no rule chose."""
        return {key for key, _, reason in self.reasons if reason == SET_BY_USER}

    def to_markdown(self) -> str:
        """Return the plan as a page of text, to be kept with a run."""
        rows = "".join(f"| `{key}` | {format_value(value)} | {reason} |\n" for key, value, reason in self.reasons)
        return f"# Plan\n\n{self.recipe.about}\n\n| key | value | why |\n|---|---|---|\n{rows}"


def plan(data: Path | str, **changes: Any) -> Plan:
    """Plan a recipe for labelled images in any of the known layouts; `changes` are taken as they are."""
    said = validate_changes(changes)
    return plan_from_fingerprint(_fingerprint_data(data, _build_data_recipe(said)), said)


def plan_variants(data: Path | str, experiment: str = "", **changes: Any) -> dict[str, Plan]:
    """Return one plan for each combination of values given as lists, by run name."""
    known: dict[str, Fingerprint] = {}
    made: dict[str, Plan] = {}

    def make(_: object, **values: Any) -> Recipe:
        said = validate_changes(values)
        reading = _build_data_recipe(said)
        if reading.compute_hash() not in known:
            known[reading.compute_hash()] = _fingerprint_data(data, reading)
        one = plan_from_fingerprint(known[reading.compute_hash()], said)
        made[one.recipe.compute_hash()] = one
        return one.recipe

    recipes = expand_recipes(AUTO, experiment=experiment, load=make, **changes)
    return {name: made[one.compute_hash()] for name, one in recipes.items()}


def plan_from_fingerprint(fingerprint: Fingerprint, user_values: dict[str, Any]) -> Plan:
    """Choose a value for every key that a rule knows of; what is said is taken as it is."""
    taken = dict(user_values)
    reasons: list[Choice] = [(key, value, SET_BY_USER) for key, value in user_values.items()]
    for rule in RULES:
        for key, value, why in rule(fingerprint, taken):
            if key not in user_values:
                taken[key] = value
                reasons.append((key, value, why))
    about = f"Planned for {fingerprint.describe()}."
    return Plan(load_recipe(None, **{"name": AUTO, "about": about, **taken}), tuple(reasons))


def _build_data_recipe(user_values: dict[str, Any]) -> Recipe:
    """Return how labels are read and split, which is settled before anything can be measured."""
    return load_recipe(None, **{key: value for key, value in user_values.items() if key in _DATA_KEYS})


def _fingerprint_data(data: Path | str, data_recipe: Recipe) -> Fingerprint:
    return compute_fingerprint(read_and_split(data, data_recipe))
