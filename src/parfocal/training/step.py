"""What learns: the network as the engine runs it, its optimiser, and the moving average of its weights."""
# MERGED: """One pass over the training split: batches go in, weights move, a tally is kept; no step waits for the device."""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from parfocal.data.loader import BatchLoader
from parfocal.engine.batches import prefetch
from parfocal.engine.device import build_memory_error, is_out_of_memory, to_channels_last
from parfocal.engine.distributed import all_reduce, convert_sync_batchnorm
from parfocal.errors import ParfocalError, join_limited
from parfocal.models.classifier import Classifier
from parfocal.progress import print_line, show_progress
from parfocal.recipe import Recipe
from parfocal.training.losses import LossFunction, MixedTargets, cross_entropy, mix_batch, mixed_loss
from parfocal.training.optim import build_optimizer, freeze_stages, update_ema


@dataclass
class Learner:
    """A classifier in training: bare, and as the engine has it; `pieces` is in how many a batch goes through it."""

    fabric: Fabric
    classifier: Classifier
    network: nn.Module
    optimizer: torch.optim.Optimizer
    ema_model: Classifier | None = None
    n_micro_batches: int = 1

    @property
    def eval_model(self) -> Classifier:
        """The network that is judged and kept: the average where there is one."""
        return self.ema_model or self.classifier


def build_learner(fabric: Fabric, classifier: Classifier, recipe: Recipe) -> Learner:
    """Set a classifier up for training as the recipe has it."""
    part = recipe.training
    average = to_channels_last(copy.deepcopy(classifier)).to(fabric.device) if part.ema else None
    if part.sync_batchnorm and fabric.world_size > 1:
        convert_sync_batchnorm(classifier, fabric.device)
    to_channels_last(classifier).to(fabric.device)
    if recipe.machine.compile:
        classifier.compile()
    classifier.train()
    freeze_stages(classifier, part, 0)
    network, optimise = fabric.setup(classifier, build_optimizer(classifier, part))
    return Learner(fabric, classifier, network, optimise, average)  # pyright: ignore[reportArgumentType]


def start_epoch(learner: Learner, recipe: Recipe, epoch: int) -> None:
    """Put the network in training mode, with those stages held that the recipe holds in this epoch."""
    before = _trainable_flags(learner.classifier)
    learner.network.train()
    freeze_stages(learner.classifier, recipe.training, epoch)
    if learner.fabric.world_size > 1 and _trainable_flags(learner.classifier) != before:
        # The wrapper that averages gradients knows only the weights that were free when it was made.
        learner.network = learner.fabric.setup_module(learner.classifier)


def _trainable_flags(network: nn.Module) -> list[bool]:
    return [weight.requires_grad for weight in network.parameters()]


# A mean loss above this is one that has exploded: no network that learns is so far off.
_EXPLODED_LOSS = 1e4
# How often, in steps, a loss that blew up is looked for: looking waits for the device.
_CHECK_EVERY = 50


@dataclass
class EpochState:
    """What an epoch has come to after so many batches; the sums lie on the device and are read at its end."""

    loss_sum: Tensor
    n_correct: Tensor
    first_bad_batch: Tensor
    n_batches: int = 0
    n_images: int = 0
    learning_rate: float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    @classmethod
    def create(cls, device: torch.device, n_batches: int) -> "EpochState":
        """Return the tally of an epoch that has not begun; `bad` is the first batch whose loss blew up."""
        # In float64 the sums do not hang on their order, so neither on the number of processes.
        none = torch.zeros((), device=device, dtype=torch.float64)
        return cls(none, none.long(), torch.full((), n_batches, device=device))


@dataclass(frozen=True)
class Batch:
    """Pixels with their labels, and what they were blended with, if anything."""

    pixels: Tensor
    labels: Tensor
    mixed_targets: MixedTargets | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, n_micro_batches: int) -> list["Batch"]:
        """Cut the batch into so many pieces, or into single images."""
        if n_micro_batches == 1:
            return [self]
        parts = torch.arange(len(self), device=self.labels.device).tensor_split(min(n_micro_batches, len(self)))
        blend = self.mixed_targets
        return [
            Batch(
                self.pixels[part],
                self.labels[part],
                MixedTargets(blend.partner_labels[part], blend.lam) if blend else None,
            )
            for part in parts
        ]


def run_epoch(
    learner: Learner,
    batches: BatchLoader,
    recipe: Recipe,
    epoch: int,
    learning_rate_at: Callable[[int], float],
    state: EpochState,
    loss_fn: LossFunction = cross_entropy,
    progress_label: str = "Training",
) -> Iterator[EpochState]:
    """Take an epoch from where its tally stands to its end; give the tally after each step of the weights.

    `rate_at` tells the learning rate of a batch, counted from 0 within the epoch.
    """
    fabric, part = learner.fabric, recipe.training
    # Parting an epoch takes as long as it has images: once, not at each step.
    sizes = batches.batch_sizes
    steps = len(sizes)
    start_epoch(learner, recipe, epoch)
    started, waited = time.perf_counter() - state.seconds, state.wait_seconds
    coming = prefetch(batches.train_batches(epoch, state.n_batches), fabric.device)
    with show_progress(progress_label, batches.epoch_size) as done:
        done(state.n_images)
        while state.n_batches < steps:
            taken, moves = state.n_batches, epoch * -(-steps // part.accumulate) + state.n_batches // part.accumulate
            group = [
                Batch(pixels, labels, blend)
                for step, (own, labels) in enumerate(islice(coming, part.accumulate), start=taken)
                for pixels, blend in [mix_batch(own, labels, part, seed=(recipe.seed, epoch, step))]
            ]
            # All that is random hangs on (seed, epoch, step) alone, so that going on needs no stored generators.
            _seed_step(recipe.seed, epoch, taken, fabric.global_rank)
            state.n_batches += len(group)
            state.learning_rate = learning_rate_at(state.n_batches - 1)
            images = int(sizes[taken : state.n_batches].sum())
            outcomes = train_step(learner, group, state.learning_rate, loss_fn, part.clip_grad, images)
            if learner.ema_model is not None:
                update_ema(learner.ema_model, learner.classifier, part.ema, moves)
            _update_state(state, group, outcomes, taken)
            state.n_images += images
            state.seconds, state.wait_seconds = time.perf_counter() - started, waited + batches.wait_seconds
            if taken // _CHECK_EVERY != state.n_batches // _CHECK_EVERY:
                check_finite(learner, state, batches, recipe, epoch)
            done(images)
            yield state


def train_step(
    learner: Learner,
    batches: list[Batch],
    learning_rate: float,
    loss_fn: LossFunction = cross_entropy,
    clip: float = 0,
    n_images: int | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Move the weights once, by the mean loss of all images of a group of batches; return each batch's loss and logits.

    `images` is how many that is over all processes. The norm of the gradients is at most `clip`, if that is not 0.
    Where memory runs out, the batches go through the network in smaller pieces, from then on.
    """
    fabric, optimise = learner.fabric, learner.optimizer
    share = fabric.world_size / (n_images or sum(map(len, batches)))
    while True:
        optimise.zero_grad(set_to_none=True)
        try:
            outcomes = _accumulate_gradients(learner, batches, loss_fn, share)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the `except`, so that the failed pass and all it holds is gone.
        _halve_micro_batch(learner, batches)
    for group_of_weights in optimise.param_groups:
        group_of_weights["lr"] = learning_rate * group_of_weights.get("factor", 1.0)
    if clip:
        fabric.clip_gradients(learner.network, optimise, max_norm=clip, error_if_nonfinite=False)  # pyright: ignore[reportArgumentType]
    optimise.step()
    return outcomes


def _accumulate_gradients(
    learner: Learner, batches: list[Batch], loss_fn: LossFunction, image_weight: float
) -> list[tuple[Tensor, Tensor]]:
    """Gather the gradients of a group; each image counts by `share`. The processes exchange them once, at the end."""
    fabric, network = learner.fabric, learner.network
    cut = [batch.split(learner.n_micro_batches) for batch in batches]
    left = sum(map(len, cut))
    outcomes: list[tuple[Tensor, Tensor]] = []
    for pieces in cut:
        answers: list[tuple[Tensor, Tensor]] = []
        for piece in pieces:
            left -= 1
            with fabric.no_backward_sync(network, enabled=left > 0):  # pyright: ignore[reportArgumentType]
                logits = network(piece.pixels)
                value = mixed_loss(loss_fn, logits.float(), piece.labels, piece.mixed_targets)
                fabric.backward(value * (len(piece) * image_weight))
            answers.append((value.detach() * len(piece), logits.detach()))
        outcomes.append((torch.stack([one for one, _ in answers]).sum(), torch.cat([one for _, one in answers])))
    return outcomes


def _update_state(
    state: EpochState, batches: list[Batch], outcomes: list[tuple[Tensor, Tensor]], first_batch: int
) -> None:
    for step, (batch, (loss, logits)) in enumerate(zip(batches, outcomes, strict=True), start=first_batch):
        state.loss_sum = state.loss_sum + loss
        sane = loss / len(batch) < _EXPLODED_LOSS
        state.first_bad_batch = torch.where(sane, state.first_bad_batch, state.first_bad_batch.clamp(max=step))
        state.n_correct = state.n_correct + (logits.argmax(1) == batch.labels).sum()


def epoch_row(learner: Learner, state: EpochState) -> dict[str, float]:
    """Return a tally as figures of the history, over all processes."""
    total = reduce_epoch_state(learner.fabric, state)
    row = {
        "train_loss": total.loss_sum.item() / state.n_images,
        "train_accuracy": total.n_correct.item() / state.n_images,
        "learning_rate": state.learning_rate,
        "images_per_second": round(state.n_images / state.seconds, 2),
        "waiting": round(state.wait_seconds / state.seconds, 4),
    }
    return row if learner.n_micro_batches == 1 else {**row, "pieces": learner.n_micro_batches}


def reduce_epoch_state(fabric: Fabric, state: EpochState) -> EpochState:
    """Return a tally with the sums of all processes."""
    loss, right = (all_reduce(fabric, total) for total in (state.loss_sum, state.n_correct))
    return replace(
        state, loss_sum=loss, n_correct=right, first_bad_batch=all_reduce(fabric, state.first_bad_batch, "min")
    )


def check_finite(learner: Learner, state: EpochState, batches: BatchLoader, recipe: Recipe, epoch: int) -> None:
    """Stop where the loss of a batch blew up, or was no number, and say what the batch was made of."""
    step = int(all_reduce(learner.fabric, state.first_bad_batch, "min").item())
    if step >= batches.steps_per_epoch:
        return
    rows = batches.batch_rows(epoch, step)
    names = join_limited([batches.ids[row] for row in rows] if batches.ids else rows.tolist())
    raise ParfocalError(
        f"The loss blew up in epoch {epoch + 1}, step {step + 1}, at a learning rate of about {state.learning_rate:g}; "
        f"the batch held {names}. What was saved last is kept. Train with a lower learning_rate, a warmup, clip_grad=1, or "
        "precision=float32."
    )


def _seed_step(*keys: int) -> None:
    torch.manual_seed(int(np.random.default_rng([*keys, 2]).integers(2**63)))


def _halve_micro_batch(learner: Learner, batches: list[Batch]) -> None:
    """Have batches go through the network in twice as many pieces, where that can help."""
    largest = max(map(len, batches))
    if learner.n_micro_batches >= largest:
        raise build_memory_error()
    if learner.fabric.world_size > 1:
        raise ParfocalError(
            f"Memory ran out with {largest} images on one device. Choose a smaller batch, and accumulate=2 or more."
        )
    learner.n_micro_batches *= 2
    if learner.fabric.device.type == "cuda":
        torch.cuda.empty_cache()
    print_line(
        f"Memory ran out: batches now go through the network in {learner.n_micro_batches} pieces. Each step still counts "
        f"{largest} images, but batch norm sees those of a piece."
    )
