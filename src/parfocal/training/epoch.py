"""One pass over the training split: batches go in, weights move, a tally is kept; no step waits for the device."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from parfocal.data.batches import Batches
from parfocal.errors import ParfocalError, listing
from parfocal.evaluation.inference import ahead, not_even_one, out_of_memory
from parfocal.progress import progress, say
from parfocal.recipe import Recipe
from parfocal.training.learner import Learner, begin_epoch
from parfocal.training.losses import Loss, blended, cross_entropy
from parfocal.training.mixing import Blend, mixed
from parfocal.training.optimise import follow
from parfocal.training.processes import reduced

# A mean loss above this is one that has exploded: no network that learns is so far off.
_EXPLODED = 1e4
# How often, in steps, a loss that blew up is looked for: looking waits for the device.
_LOOKED_AT_EVERY = 50


@dataclass
class Tally:
    """What an epoch has come to after so many batches; the sums lie on the device and are read at its end."""

    loss: Tensor
    right: Tensor
    bad: Tensor
    batches: int = 0
    images: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0

    @classmethod
    def fresh(cls, device: torch.device, steps: int) -> "Tally":
        """Return the tally of an epoch that has not begun; `bad` is the first batch whose loss blew up."""
        # In float64 the sums do not hang on their order, so neither on the number of processes.
        none = torch.zeros((), device=device, dtype=torch.float64)
        return cls(none, none.long(), torch.full((), steps, device=device))


@dataclass(frozen=True)
class Batch:
    """Pixels with their labels, and what they were blended with, if anything."""

    pixels: Tensor
    labels: Tensor
    blend: Blend | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def cut(self, pieces: int) -> list["Batch"]:
        """Cut the batch into so many pieces, or into single images."""
        if pieces == 1:
            return [self]
        parts = torch.arange(len(self), device=self.labels.device).tensor_split(min(pieces, len(self)))
        blend = self.blend
        return [
            Batch(self.pixels[part], self.labels[part], Blend(blend.labels[part], blend.share) if blend else None)
            for part in parts
        ]


def run_epoch(
    learner: Learner,
    batches: Batches,
    recipe: Recipe,
    epoch: int,
    rate_at: Callable[[int], float],
    tally: Tally,
    loss: Loss = cross_entropy,
    label: str = "Training",
) -> Iterator[Tally]:
    """Take an epoch from where its tally stands to its end; give the tally after each step of the weights.

    `rate_at` tells the learning rate of a batch, counted from 0 within the epoch.
    """
    fabric, part = learner.fabric, recipe.training
    # Parting an epoch takes as long as it has images: once, not at each step.
    sizes = batches.sizes
    steps = len(sizes)
    begin_epoch(learner, recipe, epoch)
    started, waited = time.perf_counter() - tally.seconds, tally.waited
    coming = ahead(batches.epoch(epoch, tally.batches), fabric.device)
    with progress(label, batches.shown) as done:
        done(tally.images)
        while tally.batches < steps:
            taken, moves = tally.batches, epoch * -(-steps // part.accumulate) + tally.batches // part.accumulate
            group = [
                Batch(pixels, labels, blend)
                for step, (own, labels) in enumerate(islice(coming, part.accumulate), start=taken)
                for pixels, blend in [mixed(own, labels, part, seed=(recipe.seed, epoch, step))]
            ]
            # All that is random hangs on (seed, epoch, step) alone, so that going on needs no stored generators.
            _sow(recipe.seed, epoch, taken, fabric.global_rank)
            tally.batches += len(group)
            tally.rate = rate_at(tally.batches - 1)
            images = int(sizes[taken : tally.batches].sum())
            outcomes = train_step(learner, group, tally.rate, loss, part.clip, images)
            if learner.average is not None:
                follow(learner.average, learner.classifier, part.ema, moves)
            _count(tally, group, outcomes, taken)
            tally.images += images
            tally.seconds, tally.waited = time.perf_counter() - started, waited + batches.waited
            if taken // _LOOKED_AT_EVERY != tally.batches // _LOOKED_AT_EVERY:
                refuse_blown_up(learner, tally, batches, recipe, epoch)
            done(images)
            yield tally


def train_step(
    learner: Learner,
    group: list[Batch],
    rate: float,
    loss: Loss = cross_entropy,
    clip: float = 0,
    images: int | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Move the weights once, by the mean loss of all images of a group of batches; return each batch's loss and logits.

    `images` is how many that is over all processes. The norm of the gradients is at most `clip`, if that is not 0.
    Where memory runs out, the batches go through the network in smaller pieces, from then on.
    """
    fabric, optimise = learner.fabric, learner.optimise
    share = fabric.world_size / (images or sum(map(len, group)))
    while True:
        optimise.zero_grad(set_to_none=True)
        try:
            outcomes = _gradients(learner, group, loss, share)
            break
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Outside the `except`, so that the failed pass and all it holds is gone.
        _halve(learner, group)
    for group_of_weights in optimise.param_groups:
        group_of_weights["lr"] = rate * group_of_weights.get("factor", 1.0)
    if clip:
        fabric.clip_gradients(learner.network, optimise, max_norm=clip, error_if_nonfinite=False)  # pyright: ignore[reportArgumentType]
    optimise.step()
    return outcomes


def _gradients(learner: Learner, group: list[Batch], loss: Loss, share: float) -> list[tuple[Tensor, Tensor]]:
    """Gather the gradients of a group; each image counts by `share`. The processes exchange them once, at the end."""
    fabric, network = learner.fabric, learner.network
    cut = [batch.cut(learner.pieces) for batch in group]
    left = sum(map(len, cut))
    outcomes: list[tuple[Tensor, Tensor]] = []
    for pieces in cut:
        answers: list[tuple[Tensor, Tensor]] = []
        for piece in pieces:
            left -= 1
            with fabric.no_backward_sync(network, enabled=left > 0):  # pyright: ignore[reportArgumentType]
                logits = network(piece.pixels)
                value = blended(loss, logits.float(), piece.labels, piece.blend)
                fabric.backward(value * (len(piece) * share))
            answers.append((value.detach() * len(piece), logits.detach()))
        outcomes.append((torch.stack([one for one, _ in answers]).sum(), torch.cat([one for _, one in answers])))
    return outcomes


def _count(tally: Tally, group: list[Batch], outcomes: list[tuple[Tensor, Tensor]], first: int) -> None:
    for step, (batch, (loss, logits)) in enumerate(zip(group, outcomes, strict=True), start=first):
        tally.loss = tally.loss + loss
        sane = loss / len(batch) < _EXPLODED
        tally.bad = torch.where(sane, tally.bad, tally.bad.clamp(max=step))
        tally.right = tally.right + (logits.argmax(1) == batch.labels).sum()


def row_of(learner: Learner, tally: Tally) -> dict[str, float]:
    """Return a tally as figures of the history, over all processes."""
    total = together(learner.fabric, tally)
    row = {
        "train_loss": total.loss.item() / tally.images,
        "train_accuracy": total.right.item() / tally.images,
        "learning_rate": tally.rate,
        "images_per_second": round(tally.images / tally.seconds, 2),
        "waiting": round(tally.waited / tally.seconds, 4),
    }
    return row if learner.pieces == 1 else {**row, "pieces": learner.pieces}


def together(fabric: Fabric, tally: Tally) -> Tally:
    """Return a tally with the sums of all processes."""
    loss, right = (reduced(fabric, total) for total in (tally.loss, tally.right))
    return replace(tally, loss=loss, right=right, bad=reduced(fabric, tally.bad, "min"))


def refuse_blown_up(learner: Learner, tally: Tally, batches: Batches, recipe: Recipe, epoch: int) -> None:
    """Stop where the loss of a batch blew up, or was no number, and say what the batch was made of."""
    step = int(reduced(learner.fabric, tally.bad, "min").item())
    if step >= batches.steps:
        return
    rows = batches.rows(epoch, step)
    names = listing([batches.names[row] for row in rows] if batches.names else rows.tolist())
    raise ParfocalError(
        f"The loss blew up in epoch {epoch + 1}, step {step + 1}, at a learning rate of about {tally.rate:g}; "
        f"the batch held {names}. What was saved last is kept. Train with a lower learning_rate, a warmup, clip=1, or "
        "precision=float32."
    )


def _sow(*keys: int) -> None:
    torch.manual_seed(int(np.random.default_rng([*keys, 2]).integers(2**63)))


def _halve(learner: Learner, group: list[Batch]) -> None:
    """Have batches go through the network in twice as many pieces, where that can help."""
    largest = max(map(len, group))
    if learner.pieces >= largest:
        raise not_even_one()
    if learner.fabric.world_size > 1:
        raise ParfocalError(
            f"Memory ran out with {largest} images on one device. Choose a smaller batch, and accumulate=2 or more."
        )
    learner.pieces *= 2
    if learner.fabric.device.type == "cuda":
        torch.cuda.empty_cache()
    say(
        f"Memory ran out: batches now go through the network in {learner.pieces} pieces. Each step still counts "
        f"{largest} images, but batch norm sees those of a piece."
    )
