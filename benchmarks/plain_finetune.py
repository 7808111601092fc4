"""A plain PyTorch script that trains ResNet-18 on a folder of images, as a practitioner would write it in an afternoon.

Images are decoded and resized once, and held in memory. AdamW with weight decay, a one-cycle schedule, cross-entropy;
flips, any rotation, a little scale, brightness and contrast, drawn on the batch; the last epoch; eight views averaged
at the end. Nothing of Parfocal but the definition of the network is used.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from parfocal.models.resnet import build_resnet

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
LONG_TRAINING = 20
"""Number of epochs from which the batch size is 64 instead of 32."""


def load_images(paths: Sequence[Path], side: int) -> Tensor:
    """Return the images as bytes (N, 3, side, side)."""
    pixels = np.empty((len(paths), side, side, 3), np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        with Image.open(path) as file:
            file.draft("RGB", (side, side))  # A large JPEG is decoded at a fraction of its size.
            row[:] = np.asarray(file.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def augment(images: Tensor) -> Tensor:
    """Rotate, flip and scale images (N, 3, H, W) from 0 to 1, and change their brightness and contrast."""
    n = len(images)
    angle = torch.rand(n) * 2 * math.pi
    zoom = torch.empty(n).uniform_(0.85, 1.1)
    flip = torch.randint(0, 2, (n,)) * 2 - 1  # With any rotation, a flip of one axis gives those of both.
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    zero = torch.zeros(n)
    matrices = torch.stack([cosine * flip, -sine, zero, sine * flip, cosine, zero], 1).view(n, 2, 3)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    views = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    contrast = torch.empty(n, 1, 1, 1).uniform_(0.8, 1.2)
    brightness = torch.empty(n, 1, 1, 1).uniform_(-0.1, 0.1)
    center = views.mean((1, 2, 3), keepdim=True)
    return (views - center).mul_(contrast).add_(center + brightness).clamp_(0, 1)


def normalize(images: Tensor) -> Tensor:
    """Normalize images from 0 to 1 by the mean and standard deviation of ImageNet, channels last."""
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def build_network(n_classes: int, weights: Path | None, seed: int) -> nn.Module:
    """Build ResNet-18, with random weights or with those of a file except for the head."""
    torch.manual_seed(seed)
    network = build_resnet("resnet18", n_classes)
    if weights is not None:
        loaded = {name: tensor.float() for name, tensor in load_file(weights).items() if not name.startswith("fc.")}
        missing = network.load_state_dict(loaded, strict=False).missing_keys
        if any("fc." not in name and "num_batches_tracked" not in name for name in missing):
            raise ValueError(f"{weights} does not contain {missing[0]}: it is not a file of ResNet-18 weights.")
    return network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def finetune(
    images: Tensor, labels: Tensor, n_classes: int, epochs: int, weights: Path | None, seed: int, bf16: bool = False
) -> nn.Module:
    """Train all layers of ResNet-18 on images (bytes), from a file of weights or from scratch."""
    network = build_network(n_classes, weights, seed)
    batch_size = 64 if epochs >= LONG_TRAINING else 32
    steps = epochs * math.ceil(len(images) / batch_size)
    peak = 1e-3 if weights is None else 3e-4
    optimizer = torch.optim.AdamW(network.parameters(), peak, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(batch_size):
            pixels = normalize(augment(images[batch].float() / 255))
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = network(pixels)
            optimizer.zero_grad()
            functional.cross_entropy(logits.float(), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def predict(network: nn.Module, images: Tensor, bf16: bool = False, n_views: int = 8) -> Tensor:
    """Return the class probabilities of images (bytes), averaged over four rotations and their mirror images."""
    batches = []
    for batch in images.split(64):
        pixels = normalize(batch.float() / 255)
        views = [view.rot90(turns, (2, 3)) for view in (pixels, pixels.flip(3)) for turns in range(4)][:n_views]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = [network(view.contiguous(memory_format=torch.channels_last)) for view in views]
        batches.append(torch.stack([each.float().softmax(1) for each in logits]).mean(0))
    return torch.cat(batches)


def main() -> None:
    """Train on the rows of split `train`, and write the probabilities of the other rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path, help="CSV with path, label (a number from 0) and split")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--weights", type=Path, help=".safetensors file of ResNet-18; random weights without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="compute in bf16, for processors that do")
    parser.add_argument("--output", type=Path, default=Path("predictions.csv"))
    arguments = parser.parse_args()
    rows = pd.read_csv(arguments.labels)
    images = load_images([arguments.labels.parent / path for path in rows["path"]], arguments.side)
    labels = torch.tensor(rows["label"].to_numpy())
    train = torch.tensor((rows["split"] == "train").to_numpy())
    network = finetune(
        images[train],
        labels[train],
        int(labels.max()) + 1,
        arguments.epochs,
        arguments.weights,
        arguments.seed,
        arguments.bf16,
    )
    probabilities = predict(network, images[~train], arguments.bf16).numpy()
    columns = {f"probability:{number}": values.round(5) for number, values in enumerate(probabilities.T)}
    rows[~train.numpy()].assign(**columns).to_csv(arguments.output, index=False)


if __name__ == "__main__":
    main()
