"""The rules of the recipe `auto`: each chooses some keys from the fingerprint and what is chosen so far.

To choose another key, add it to the rule that it belongs to, with the reason; the values of the user come first.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from parfocal.models.architectures import Stem, get_architecture
from parfocal.models.pretrained import recognize_network
from parfocal.models.resnet import build_resnet
from parfocal.recipe_schema import NetworkConfig
from parfocal.training.auto_minutes import (
    choose_views_by_minutes,
    estimate_passes,
    find_affordable_side,
    fits_only_a_head,
)
from parfocal.training.fingerprint import Fingerprint

Choice = tuple[str, Any, str]
"""A key, its value, and the reason."""

_DEFAULT_SIDE = 224
_LARGE_SIDE = 512
_MAX_SIDE = 4096
# Up to this side the usual stem, which downsamples by four at once, leaves too small a feature map.
_SMALL_SIDE = 64
# Pretrained weights have the usual stem, so small images are enlarged for them.
_ENLARGED_SIDE = {"cpu": 160, "cuda": 224}
# An image with sides of at most this ratio is squashed to a square.
_MAX_SQUARE_RATIO = 1.05
# An image whose disc covers less than this share is trimmed.
_FULL_DISC_AREA = 0.9
_MANY_IMAGES = 10_000
# A class dominates where it has more than this many times its even share.
_DOMINANCE_RATIO = 1.5
# The number of grades of diabetic retinopathy.
_RETINOPATHY_GRADES = 5
# Learning rate for a batch of 32 and weight decay, by optimizer and whether the weights are pretrained.
_LEARNING_RATES = {
    ("sgd", False): (0.05, 5e-4),
    ("sgd", True): (0.0125, 5e-4),
    ("adam", False): (1e-3, 0.0),
    ("adam", True): (3e-4, 0.0),
    ("adamw", False): (1e-3, 0.05),
    ("adamw", True): (3e-4, 0.05),
}
# Share of the training over which the learning rate rises.
_WARMUP_SHARE = 0.1
_TTA_REASONS = {
    "d4": "the average over eight flips and quarter turns is better than one view",
    "flips": "the average over four flips is better than one view, and there is no time for eight",
    "none": "there is no time to evaluate more than one view of each image",
}
_MIN_STEPS_PER_EPOCH = 30
_TOTAL_STEPS = {"cpu": 3_000, "cuda": 10_000}
_MIN_EPOCHS = 5
_MAX_EPOCHS = 100
_MAX_BATCH_SIZE = {"cpu": 32, "cuda": 128}
# Share of the memory: a step needs about twice the counted activations, and the weights need the rest.
_BATCH_MEMORY_SHARE = 0.3


def choose_start(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose the network, which is that of the initial weights if these are the user's, else by images and device."""
    is_small = chosen.get("crop_size", _content_side(fingerprint)) <= _SMALL_SIDE
    if fingerprint.device == "cpu":
        model, reason = "resnet18", "ResNet-50 takes three times as long on a CPU"
    elif fingerprint.n_images >= _MANY_IMAGES and not is_small:
        model, reason = "resnet50", f"{fingerprint.n_images:,} images suffice for a deeper network on a GPU"
    else:
        model, reason = "resnet18", "a deeper network would overfit so few or such small images"
    model = chosen.get("model", model)
    recognized = recognize_network(NetworkConfig(model=model, init=chosen["init"]))
    for key, value in recognized.items():
        yield key, value, "the initial weights are of such a network"
    if not recognized:
        yield "model", model, reason


def choose_head(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose a linear probe where there is no time for fine-tuning."""
    is_pretrained = chosen["init"] != "scratch" and chosen.get("freeze", "none") == "none"
    has_logits = chosen.get("loss", "joint") in ("cross_entropy", "focal", "joint")
    if chosen.get("minutes") and is_pretrained and has_logits and fits_only_a_head(fingerprint, chosen):
        yield "head", "probe", f"{chosen['minutes']:g} minutes are too short here for fine-tuning to pass it"


def choose_preprocessing(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose how images become squares, and how large these are."""
    width = fingerprint.width
    height = fingerprint.height
    extent = fingerprint.content_extent
    is_square = max(width, height) <= _MAX_SQUARE_RATIO * fingerprint.short_side
    has_black_surround = fingerprint.disc_area < _FULL_DISC_AREA or not is_square
    if fingerprint.appearance == "disc" and fingerprint.short_side > _SMALL_SIDE and has_black_surround:
        yield "crop_disc", True, f"the disc covers {fingerprint.disc_area:.0%} of the image, the rest is black"
    if chosen.get("crop_disc"):
        yield "resize_mode", "pad", "keeps the shape of the disc and cuts nothing away"
    elif is_square:
        yield "resize_mode", "squash", "the images are nearly square"
    else:
        yield "resize_mode", "pad", f"padding {width}×{height} images keeps their shape and cuts nothing away"
    max_side = _DEFAULT_SIDE
    reason = "the side that the networks were designed for"
    if fingerprint.appearance == "disc" and fingerprint.device == "cuda":
        max_side = _LARGE_SIDE
        reason = "lesions are small, and a GPU is fast enough for 512 pixels"
    elif fingerprint.appearance == "disc":
        reason = "512 pixels show more but take five times as long, too long for a CPU"
    content_side = _content_side(fingerprint)
    side = max(8, min(content_side, max_side))
    if content_side <= _SMALL_SIDE and chosen["init"] != "scratch" and not _has_small_stem(chosen):
        side = _ENLARGED_SIDE[fingerprint.device]
        reason = f"enlarged from {content_side} pixels, because pretrained weights expect larger structures"
    elif content_side <= max_side:
        reason = "the images have no more pixels"
    if chosen.get("minutes") and "crop_size" not in chosen:
        affordable = find_affordable_side(fingerprint, chosen)
        if affordable < side:
            side = affordable
            reason = f"larger images would be seen too seldom in {chosen['minutes']:g} minutes on this machine"
    crop_size = chosen.get("crop_size", side)
    if extent < 1:
        size = min(_MAX_SIDE, max(crop_size, round(crop_size / extent)))
        yield "size", size, f"gives the central {extent:.0%}, where all content is, {crop_size} pixels"
        yield "crop_size", max(8, min(chosen["size"], round(chosen["size"] * extent))), reason
    else:
        yield "size", crop_size, reason
        yield "crop_size", chosen["size"], "the network sees the whole stored image"


def choose_network(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose what a network that starts from scratch needs in addition."""
    if chosen["init"] != "scratch":
        return
    crop_size = chosen["crop_size"]
    if crop_size <= _SMALL_SIDE and not _has_small_stem(chosen):
        map_side = -(-crop_size // 32)
        reason = f"the usual stem would leave a {map_side}×{map_side} feature map of {crop_size}×{crop_size} pixels"
        yield "stem", "small", reason
    yield "zero_init_residual", True, "each block starts as the identity, which stabilizes the first epochs"


def choose_augmentation(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose augmentations that leave the labels as they are."""
    if fingerprint.rotation_reason:
        yield "rotate", 180, fingerprint.rotation_reason
        yield "flip_horizontal", 0.5, "left and right are interchangeable"
        yield "flip_vertical", 0.5, "top and bottom are interchangeable"
        yield "zoom", 0.1, "the scale varies a little between images"
        tta = choose_views_by_minutes(fingerprint, chosen) if chosen.get("minutes") else "d4"
        yield "tta", tta, _TTA_REASONS[tta]
    else:
        yield "flip_horizontal", 0.5, "a mirrored image has the same label"
        yield "crop_position", "random", "a shifted image has the same label; set rotate=180 if a turned one has, too"
        yield "crop_padding", chosen["crop_size"] // 8, "an eighth of the side"
    yield "brightness", 0.2, "the light varies between images"
    yield "contrast", 0.2, "the contrast varies between images"


def choose_loss(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose the loss, the metric that selects the best epoch, and the decision rule; show each image once an epoch."""
    shares = [count / fingerprint.n_images for count in fingerprint.class_counts if count]
    if fingerprint.ordinal_reason:
        yield "ordered", True, fingerprint.ordinal_reason
        is_retinopathy = len(fingerprint.class_counts) == _RETINOPATHY_GRADES and fingerprint.appearance == "disc"
        if is_retinopathy and chosen["ordered"]:
            yield "referable", 2, "patients are referred from moderate retinopathy on"
        yield "loss", "joint", "the classes are grades: a near miss costs less than a far one, and every grade counts"
        yield "select", "quadratic_kappa", "weights errors by distance in grades; 0 for a constant prediction"
        if chosen["select"] == "quadratic_kappa" and chosen["loss"] != "regression" and chosen["ordered"]:
            yield "decide", "mean", "the rounded mean grade has a higher quadratic kappa than the most probable grade"
    else:
        yield "loss", "cross_entropy", "the classes have no known order"
        if max(shares) > _DOMINANCE_RATIO / len(shares):
            yield "select", "balanced_accuracy", f"the largest class alone would score {max(shares):.0%} accuracy"
        else:
            yield "select", "accuracy", "no class is much larger than the others"
    yield "sampling", "natural", "showing rare classes more often cost accuracy and kappa where it was measured"


def choose_batch_size_and_epochs(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose the batch size by memory and number of images, and the epochs by the total number of steps."""
    activations = _activations_per_pixel(chosen["model"], chosen.get("stem")) * chosen["crop_size"] ** 2
    bytes_per_image = activations * (4 if chosen.get("precision") == "float32" else 2)
    memory_limit = int(_BATCH_MEMORY_SHARE * fingerprint.memory_gib * 2**30 / bytes_per_image)
    steps_limit = max(8, fingerprint.n_images // _MIN_STEPS_PER_EPOCH)
    max_batch_size = _MAX_BATCH_SIZE[fingerprint.device]
    if memory_limit < min(max_batch_size, steps_limit):
        reason = f"an image needs {bytes_per_image / 2**20:,.0f} MiB of the device's {fingerprint.memory_gib:.0f} GiB"
    elif steps_limit < max_batch_size:
        reason = f"at least {_MIN_STEPS_PER_EPOCH} steps per epoch"
    else:
        reason = "a larger batch would not be faster on this device"
    limit = min(memory_limit, steps_limit)
    # At least 2 images, which batch norm needs.
    power_of_two = max(2, 1 << max(0, limit.bit_length() - 1))
    yield "batch_size", min(max_batch_size, power_of_two), reason
    if chosen.get("head") == "probe":
        yield "epochs", 1, "not used: head=probe fits the head at once"
        return
    if chosen.get("minutes"):
        n_passes = estimate_passes(fingerprint, chosen, chosen["crop_size"])
        epochs = max(1, math.ceil(chosen.get("warmup", 0)), round(n_passes))
        yield "epochs", epochs, "an estimate from a short measurement: minutes decides the length of the training"
        return
    steps_per_epoch = _steps_per_epoch(fingerprint, chosen)
    total_steps = _TOTAL_STEPS[fingerprint.device] // (1 if chosen["init"] == "scratch" else 2)
    epochs = min(_MAX_EPOCHS, round(total_steps / steps_per_epoch))
    epochs = max(_MIN_EPOCHS, epochs, math.ceil(chosen.get("warmup", 0)))
    limits = f"{_MIN_EPOCHS} to {_MAX_EPOCHS} epochs"
    reason = f"{steps_per_epoch:,} steps each: about {total_steps:,} in total, but {limits}"
    yield "epochs", epochs, reason


def choose_optimizer(fingerprint: Fingerprint, chosen: dict[str, Any]) -> Iterator[Choice]:
    """Choose the optimizer, the learning rate and its schedule, weight decay and EMA."""
    yield "optimizer", "adamw", "learns in fewer epochs than SGD, above all from pretrained weights"
    optimizer = chosen["optimizer"]
    is_pretrained = chosen["init"] != "scratch"
    learning_rate, weight_decay = _LEARNING_RATES[optimizer, is_pretrained]
    if optimizer == "sgd" and chosen.get("momentum") != 0:
        yield "nesterov", True, "looks ahead along the momentum, at no cost"
    start = "pretrained" if is_pretrained else "random"
    yield "learning_rate", learning_rate, f"for {optimizer}, {start} weights and 32 images per step"
    n_images = f"{chosen['batch_size']} images" if chosen["batch_size"] else "as many images as fit on the device"
    yield "lr_scaling", "linear" if optimizer == "sgd" else "square_root", f"a step has {n_images}"
    yield "weight_decay", weight_decay, f"the usual value with {optimizer}"
    yield "no_decay_norm_bias", True, "batch norm and biases need no weight decay"
    yield "schedule", "one_cycle", "warms up and ends near zero, so that the last epochs converge"
    warmup = round(min(_WARMUP_SHARE * chosen["epochs"], chosen["epochs"] / 2), 2)
    yield "warmup", warmup, f"the learning rate rises over {_WARMUP_SHARE:.0%} of the training"
    total_steps = chosen["epochs"] * _steps_per_epoch(fingerprint, chosen)
    reason = f"an average of the weights varies less; the run has {total_steps:,} steps"
    yield "ema", 0.999 if total_steps >= 5_000 else 0.99, reason


RULES: tuple[Callable[[Fingerprint, dict[str, Any]], Iterator[Choice]], ...] = (
    choose_start,
    choose_head,
    choose_preprocessing,
    choose_network,
    choose_augmentation,
    choose_loss,
    choose_batch_size_and_epochs,
    choose_optimizer,
)
"""In this order: each rule may use what the rules before it have chosen."""


def _content_side(fingerprint: Fingerprint) -> int:
    """Return the side, in pixels of the images, of the central square that contains everything."""
    return round(fingerprint.short_side * fingerprint.content_extent)


def _has_small_stem(chosen: Mapping[str, Any]) -> bool:
    return (chosen.get("stem") or get_architecture(chosen["model"]).stem) == "small"


def _steps_per_epoch(fingerprint: Fingerprint, chosen: dict[str, Any]) -> int:
    """Return the steps of an epoch. batch_size=auto is resolved only in training, so assume the largest."""
    return math.ceil(fingerprint.n_images / (chosen["batch_size"] or _MAX_BATCH_SIZE[fingerprint.device]))


@lru_cache
@torch.no_grad()
def _activations_per_pixel(model: str, stem: Stem | None) -> float:
    """Count the activations that a network keeps for its backward pass, for each pixel of an image."""
    total = 0

    def count(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    with torch.device("meta"):
        network = build_resnet(model, n_classes=2, stem=stem)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.register_forward_hook(count)
        network.eval()(torch.empty(1, 3, _DEFAULT_SIDE, _DEFAULT_SIDE))
    return total / _DEFAULT_SIDE**2
