"""The training step: the learner (network, optimizer, EMA), an epoch of batches, and gradient accumulation."""

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
from parfocal.engine.device import build_memory_error, retry_out_of_memory, to_channels_last
from parfocal.engine.distributed import all_reduce, convert_sync_batchnorm
from parfocal.errors import ParfocalError, join_limited
from parfocal.models.classifier import Classifier
from parfocal.progress import print_warning, show_progress
from parfocal.recipe import Recipe
from parfocal.training.losses import LossFunction, MixedTargets, cross_entropy, mix_batch, mixed_loss
from parfocal.training.optim import build_optimizer, freeze_stages, update_ema

# A mean loss above this has diverged: no network that learns is so far off.
_DIVERGED_LOSS = 1e4
# How often, in batches, the loss is checked for divergence: the check waits for the device.
_CHECK_EVERY = 50


@dataclass
class Learner:
    """A classifier in training: the bare `classifier`, and the `network` that Fabric wraps around it.

    Each batch goes through the network in `n_micro_batches`.
    """

    fabric: Fabric
    classifier: Classifier
    network: nn.Module
    optimizer: torch.optim.Optimizer
    ema_model: Classifier | None = None
    n_micro_batches: int = 1

    @property
    def eval_model(self) -> Classifier:
        """The network that is evaluated and saved: the EMA of the weights if the recipe has it."""
        return self.ema_model or self.classifier


def build_learner(fabric: Fabric, classifier: Classifier, recipe: Recipe) -> Learner:
    """Set a classifier up for training: device, memory format, compilation, optimizer and EMA."""
    config = recipe.training
    ema_model = to_channels_last(copy.deepcopy(classifier)).to(fabric.device) if config.ema else None
    if config.sync_batchnorm and fabric.world_size > 1:
        convert_sync_batchnorm(classifier, fabric.device)
    to_channels_last(classifier).to(fabric.device)
    if recipe.machine.compile:
        classifier.compile()
    classifier.train()
    freeze_stages(classifier, config, 0)
    network, optimizer = fabric.setup(classifier, build_optimizer(classifier, config))
    return Learner(fabric, classifier, network, optimizer, ema_model)  # pyright: ignore[reportArgumentType]


def start_epoch(learner: Learner, recipe: Recipe, epoch: int) -> None:
    """Put the network in training mode, with the stages frozen that the recipe freezes in this epoch."""
    were_trainable = [parameter.requires_grad for parameter in learner.classifier.parameters()]
    learner.network.train()
    freeze_stages(learner.classifier, recipe.training, epoch)
    are_trainable = [parameter.requires_grad for parameter in learner.classifier.parameters()]
    if learner.fabric.world_size > 1 and are_trainable != were_trainable:
        # DDP averages only the gradients of parameters that were trainable when it wrapped the network.
        learner.network = learner.fabric.setup_module(learner.classifier)


@dataclass
class EpochState:
    """How far an epoch has come: sums over its batches so far, kept on the device until they are needed.

    `first_bad_batch` is the first batch whose loss diverged, or the number of batches if none did. `crop_size` is the
    side of the crops of this epoch; 0 before its first batch.
    """

    loss_sum: Tensor
    n_correct: Tensor
    first_bad_batch: Tensor
    n_batches: int = 0
    n_images: int = 0
    learning_rate: float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    crop_size: int = 0

    @classmethod
    def create(cls, device: torch.device, n_batches: int) -> "EpochState":
        """Return the state at the start of an epoch of this many batches."""
        # In float64 the sums do not depend on their order, and so not on the number of processes.
        zero = torch.zeros((), device=device, dtype=torch.float64)
        return cls(zero, zero.long(), torch.full((), n_batches, device=device))


@dataclass(frozen=True)
class Batch:
    """Pixels with their labels, and the targets of MixUp or CutMix, if any."""

    pixels: Tensor
    labels: Tensor
    mixed_targets: MixedTargets | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, n_micro_batches: int) -> list["Batch"]:
        """Split the batch into micro-batches, each with an image at least."""
        if n_micro_batches == 1:
            return [self]
        micro_batches: list[Batch] = []
        for rows in torch.arange(len(self), device=self.labels.device).tensor_split(min(n_micro_batches, len(self))):
            mixed = self.mixed_targets
            mixed_targets = MixedTargets(mixed.partner_labels[rows], mixed.lam) if mixed else None
            micro_batches.append(Batch(self.pixels[rows], self.labels[rows], mixed_targets))
        return micro_batches


def run_epoch(
    learner: Learner,
    loader: BatchLoader,
    recipe: Recipe,
    epoch: int,
    learning_rate_at: Callable[[int], float],
    state: EpochState,
    loss_fn: LossFunction = cross_entropy,
    progress_label: str = "Training",
) -> Iterator[EpochState]:
    """Train from where the state stands to the end of an epoch; yield the state after each step of the optimizer.

    `learning_rate_at` returns the learning rate of a batch, counted from 0 within the epoch.
    """
    fabric = learner.fabric
    config = recipe.training
    # Computed once: it takes time in proportion to the images of an epoch.
    batch_sizes = loader.batch_sizes
    n_batches = len(batch_sizes)
    steps_per_epoch = -(-n_batches // config.accumulate)
    start_epoch(learner, recipe, epoch)
    start_time = time.perf_counter() - state.seconds
    earlier_wait_seconds = state.wait_seconds
    loaded = prefetch(loader.train_batches(epoch, state.n_batches, state.crop_size or None), fabric.device)
    with show_progress(progress_label, loader.epoch_size) as advance:
        advance(state.n_images)
        while state.n_batches < n_batches:
            first_batch = state.n_batches
            batches: list[Batch] = []
            for index, (pixels, labels) in enumerate(islice(loaded, config.accumulate), start=first_batch):
                pixels, mixed_targets = mix_batch(pixels, labels, config, seed=(recipe.seed, epoch, index))
                batches.append(Batch(pixels, labels, mixed_targets))
            # All randomness depends on (seed, epoch, batch) only, so resuming needs no saved generator states.
            rng = np.random.default_rng([recipe.seed, epoch, first_batch, fabric.global_rank, 2])
            torch.manual_seed(int(rng.integers(2**63)))
            state.n_batches += len(batches)
            state.learning_rate = learning_rate_at(state.n_batches - 1)
            n_images = int(batch_sizes[first_batch : state.n_batches].sum())
            outputs = train_step(learner, batches, state.learning_rate, loss_fn, config.clip_grad, n_images)
            if learner.ema_model is not None:
                step = epoch * steps_per_epoch + first_batch // config.accumulate
                update_ema(learner.ema_model, learner.classifier, config.ema, step)
            for index, (batch, (loss, logits)) in enumerate(zip(batches, outputs, strict=True), start=first_batch):
                state.loss_sum = state.loss_sum + loss
                # False for NaN as well.
                is_sane = loss / len(batch) < _DIVERGED_LOSS
                bad_batch = state.first_bad_batch.clamp(max=index)
                state.first_bad_batch = torch.where(is_sane, state.first_bad_batch, bad_batch)
                state.n_correct = state.n_correct + (logits.argmax(1) == batch.labels).sum()
            state.n_images += n_images
            state.seconds = time.perf_counter() - start_time
            state.wait_seconds = earlier_wait_seconds + loader.wait_seconds
            if first_batch // _CHECK_EVERY != state.n_batches // _CHECK_EVERY:
                check_finite(learner, state, loader, recipe, epoch)
            advance(n_images)
            yield state


def train_step(
    learner: Learner,
    batches: list[Batch],
    learning_rate: float,
    loss_fn: LossFunction = cross_entropy,
    clip: float = 0,
    n_images: int | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Take a step of the optimizer on the mean loss of all images; return each batch's loss sum and logits.

    `n_images` is the number of images over all processes. The norm of the gradients is limited to `clip`, unless that
    is 0. Where memory runs out, batches go through the network in more micro-batches from then on.
    """
    fabric = learner.fabric
    optimizer = learner.optimizer
    image_weight = fabric.world_size / (n_images or sum(map(len, batches)))

    def compute_gradients() -> list[tuple[Tensor, Tensor]]:
        optimizer.zero_grad(set_to_none=True)
        split_batches = [batch.split(learner.n_micro_batches) for batch in batches]
        n_left = sum(map(len, split_batches))
        outputs: list[tuple[Tensor, Tensor]] = []
        for micro_batches in split_batches:
            losses: list[Tensor] = []
            logits: list[Tensor] = []
            for micro_batch in micro_batches:
                n_left -= 1
                # Processes exchange their gradients once, with those of the last micro-batch.
                with fabric.no_backward_sync(learner.network, enabled=n_left > 0):  # pyright: ignore[reportArgumentType]
                    micro_logits = learner.network(micro_batch.pixels)
                    loss = mixed_loss(loss_fn, micro_logits.float(), micro_batch.labels, micro_batch.mixed_targets)
                    fabric.backward(loss * (len(micro_batch) * image_weight))
                losses.append(loss.detach() * len(micro_batch))
                logits.append(micro_logits.detach())
            outputs.append((torch.stack(losses).sum(), torch.cat(logits)))
        return outputs

    outputs = retry_out_of_memory(compute_gradients, lambda: _halve_micro_batch(learner, batches), fabric.device)
    for param_group in optimizer.param_groups:
        param_group["lr"] = learning_rate * param_group.get("lr_scale", 1.0)
    if clip:
        fabric.clip_gradients(learner.network, optimizer, max_norm=clip, error_if_nonfinite=False)  # pyright: ignore[reportArgumentType]
    optimizer.step()
    return outputs


def epoch_row(learner: Learner, state: EpochState) -> dict[str, float]:
    """Return the training columns of an epoch's row in the history, over all processes."""
    total = reduce_epoch_state(learner.fabric, state)
    row = {
        "train_loss": total.loss_sum.item() / state.n_images,
        "train_accuracy": total.n_correct.item() / state.n_images,
        "learning_rate": state.learning_rate,
        "images_per_second": round(state.n_images / state.seconds, 2),
        "waiting": round(state.wait_seconds / state.seconds, 4),
    }
    return row if learner.n_micro_batches == 1 else {**row, "micro_batches": learner.n_micro_batches}


def reduce_epoch_state(fabric: Fabric, state: EpochState) -> EpochState:
    """Return the state with its sums over all processes."""
    return replace(
        state,
        loss_sum=all_reduce(fabric, state.loss_sum),
        n_correct=all_reduce(fabric, state.n_correct),
        first_bad_batch=all_reduce(fabric, state.first_bad_batch, "min"),
    )


def check_finite(learner: Learner, state: EpochState, loader: BatchLoader, recipe: Recipe, epoch: int) -> None:
    """Stop training if the loss of a batch diverged or is not a number, and name the images of that batch."""
    index = int(all_reduce(learner.fabric, state.first_bad_batch, "min").item())
    if index >= loader.steps_per_epoch:
        return
    rows = loader.batch_rows(epoch, index)
    images = join_limited([loader.ids[row] for row in rows] if loader.ids else rows.tolist())
    raise ParfocalError(
        f"The loss diverged in epoch {epoch + 1}, step {index + 1}, at a learning rate of about "
        f"{state.learning_rate:g}; the images of that batch are {images}. The last checkpoint is kept. "
        "Train with a lower learning_rate, a warmup, clip_grad=1, or precision=float32."
    )


def _halve_micro_batch(learner: Learner, batches: list[Batch]) -> None:
    """Double the number of micro-batches after memory ran out, where that can help."""
    largest = max(map(len, batches))
    if learner.n_micro_batches >= largest:
        raise build_memory_error()
    if learner.fabric.world_size > 1:
        raise ParfocalError(
            f"Memory ran out with {largest} images on one device. "
            "Choose a smaller batch_size, and accumulate=2 or more."
        )
    learner.n_micro_batches *= 2
    print_warning(
        f"Memory ran out: batches now go through the network in {learner.n_micro_batches} micro-batches. Each step "
        f"still counts {largest} images, but batch norm sees only the images of a micro-batch."
    )
