"""The training loop, read from top to bottom: prepare the stage, then for each epoch train, validate, keep."""

import copy
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from parfocal.data.batches import Batches
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.data.views import looks
from parfocal.errors import ParfocalError, listing
from parfocal.evaluation.inference import ahead, batches_of, fabric_for, predict_split, ready
from parfocal.evaluation.metrics import judge
from parfocal.evaluation.watch import alarms, prevalence, shares_said
from parfocal.files import write_json
from parfocal.model.classifier import Classifier, new_classifier
from parfocal.model.links import Grades
from parfocal.model.starts import start
from parfocal.progress import progress, say
from parfocal.recipe import Recipe
from parfocal.run import Run
from parfocal.training import checkpoint
from parfocal.training.losses import LINKS, Loss, blended, cross_entropy, loss_of, shown_counts
from parfocal.training.mixing import Blend, mixed
from parfocal.training.optimise import follow, learning_rate, optimiser
from parfocal.training.patience import better, falls, given_up
from parfocal.training.scale import measured_scale
from parfocal.training.stages import hold
from parfocal.training.thresholds import tune

_FIGURES = ("loss", "accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")
# How often, in steps, a loss that is no number is looked for: looking waits for the device.
_LOOKED_AT_EVERY = 50


def fit(run: Run, table: Table, store: Store) -> None:
    """Train the run's network to the end of its recipe, going on from its checkpoint where there is one.

    Leaves `model.safetensors` (the best epoch's weights), `last.ckpt` and `history.csv` in the run folder, each whole
    at any moment, so that a run killed anywhere and gone on with ends with the same weights as one that was not.
    """
    recipe = run.recipe
    part, link = recipe.training, LINKS.get(recipe.training.loss, "none")
    fabric = fabric_for(part.precision)
    torch.manual_seed(recipe.seed)
    train = batches_of("train", table, store, recipe)
    classifier = ready(new_classifier(recipe.network, table.classes, measured_scale(recipe.network, train), link))
    kept = ready(copy.deepcopy(classifier)) if part.ema else classifier
    average = kept if part.ema else None
    network, optimise = fabric.setup(classifier, optimiser(classifier, part))
    judged = fabric.setup_module(kept) if part.ema else network
    reached = checkpoint.Progress()
    if run.checkpoint.exists():
        reached = checkpoint.load(run.checkpoint, classifier, optimise, average)
        say(f"{run.name}: going on after epoch {reached.epoch}.")
    elif fit := start(classifier, recipe.network):
        write_json(run.start, asdict(fit))
        say(f"{run.name}: {fit.line()}")
        kept.load_state_dict(classifier.state_dict())
    for epoch in range(reached.epoch, part.epochs):
        if given_up(reached.epoch, reached.best_epoch, part):
            say(f"{run.name}: ended early; epoch {reached.best_epoch} was the best of {reached.epoch}.")
            break
        started = time.perf_counter()
        row: dict[str, Any] = {"epoch": epoch + 1}
        counts = shown_counts(train.labels, len(table.classes), part, epoch)
        loss = loss_of(part, counts, classifier.link, fabric.device)
        lowered = falls([past[f"valid_{part.select}"] for past in reached.history], part)
        label = f"{run.name} epoch {epoch + 1}"
        row |= train_epoch(fabric, network, optimise, train, recipe, epoch, label, loss, lowered, average)
        row |= measure(fabric, judged, table, store, recipe)
        row["seconds"] = round(time.perf_counter() - started, 3)
        _keep_if_best(run, kept, reached, row)
        checkpoint.save(run.checkpoint, classifier, optimise, reached, average)
        run.write_history(reached.history)
        say(_line(row, recipe))
        for alarm in alarms(reached.history, prevalence(table), recipe):
            if alarm.until == epoch + 1:
                say(f"Warning: {alarm.text}")


def _keep_if_best(run: Run, classifier: Classifier, reached: checkpoint.Progress, row: dict[str, Any]) -> None:
    """Note a finished epoch, and write its weights if its selected figure is the best so far."""
    reached.history.append(row)
    select = run.recipe.training.select
    value = row[f"valid_{select}"]
    if reached.epoch == 1 or better(value, reached.best_value, select):
        reached.best_epoch, reached.best_value = reached.epoch, value
        classifier.save(run.weights, {"recipe": run.recipe.model_dump(mode="json"), "epoch": reached.epoch})


def train_epoch(
    fabric: Fabric,
    network: nn.Module,
    optimise: torch.optim.Optimizer,
    batches: Batches,
    recipe: Recipe,
    epoch: int,
    label: str = "Training",
    loss: Loss = cross_entropy,
    lowered: int = 0,
    average: nn.Module | None = None,
) -> dict[str, float]:
    """Take one pass over the training split and return its row of figures; nothing waits for the device in a step.

    `lowered` is how often the plateau schedule has fallen; an `average` of the weights follows them.
    """
    # All that is random in an epoch hangs on (seed, epoch) alone, so that resuming needs no stored generators.
    torch.manual_seed(int(np.random.default_rng([recipe.seed, epoch, 2]).integers(2**63)))
    network.train()
    hold(network, recipe.training, epoch)
    count, steps = batches.shown, batches.steps
    total_loss = torch.zeros((), device=fabric.device)
    right = torch.zeros((), device=fabric.device, dtype=torch.long)
    bad = torch.full((), steps, device=fabric.device)
    part, rate = recipe.training, recipe.training.learning_rate
    started = time.perf_counter()
    with progress(label, count) as done:
        for step, (pixels, labels) in enumerate(ahead(batches.epoch(epoch), fabric.device)):
            rate = learning_rate(epoch * steps + step, steps, part, lowered)
            pixels, blend = mixed(pixels, part, seed=(recipe.seed, epoch, step))
            gathered = _gathered(step, steps, part.accumulate)
            value, logits = train_step(
                fabric, network, optimise, pixels, labels, rate, blend, loss, part.clip, gathered
            )
            if average is not None and gathered[0] == gathered[1]:
                follow(average, network, part.ema, epoch * -(-steps // part.accumulate) + step // part.accumulate)
            total_loss += value.detach() * len(labels)
            bad = torch.where(value.detach().isfinite(), bad, bad.clamp(max=step))
            if step % _LOOKED_AT_EVERY == _LOOKED_AT_EVERY - 1 and bad.item() < steps:
                break
            right += (logits.argmax(1) == labels).sum()
            done(len(labels))
    _refuse_no_number(int(bad.item()), batches, recipe, epoch, lowered)
    mean_loss, accuracy = total_loss.item() / count, right.item() / count
    elapsed = time.perf_counter() - started
    return {
        "train_loss": mean_loss,
        "train_accuracy": accuracy,
        "learning_rate": rate,
        "images_per_second": round(count / elapsed, 2),
        "waiting": round(batches.waited / elapsed, 4),
    }


def _refuse_no_number(step: int, batches: Batches, recipe: Recipe, epoch: int, lowered: int) -> None:
    """Stop where the loss of a step was no number, and say what it was made of."""
    if step >= batches.steps:
        return
    rate = learning_rate(epoch * batches.steps + step, batches.steps, recipe.training, lowered)
    rows = batches.rows(epoch, step)
    names = listing([batches.names[row] for row in rows] if batches.names else rows.tolist())
    raise ParfocalError(
        f"The loss was no number in epoch {epoch + 1}, step {step + 1}, at learning rate {rate:g}; the batch held "
        f"{names}. The last whole epoch is kept. Train with a lower learning_rate, a warmup, or precision=float32."
    )


def train_step(
    fabric: Fabric,
    network: nn.Module,
    optimise: torch.optim.Optimizer,
    pixels: Tensor,
    labels: Tensor,
    rate: float,
    blend: Blend | None = None,
    loss: Loss = cross_entropy,
    clip: float = 0,
    gathered: tuple[int, int] = (1, 1),
) -> tuple[Tensor, Tensor]:
    """Gather a batch's gradients; return the loss and the logits.

    `gathered` says that it is which batch of how many; with the last one the weights move once, at learning rate
    `rate`, by gradients whose norm is at most `clip`, if that is not 0.
    """
    number, several = gathered
    if number == 1:
        optimise.zero_grad(set_to_none=True)
    with fabric.no_backward_sync(network, enabled=number < several):  # pyright: ignore[reportArgumentType]
        logits = network(pixels)
        value = blended(loss, logits.float(), labels, blend)
        fabric.backward(value / several)
    if number == several:
        for group in optimise.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        if clip:
            fabric.clip_gradients(network, optimise, max_norm=clip, error_if_nonfinite=False)
        optimise.step()
    return value, logits


def measure(fabric: Fabric, network: nn.Module, table: Table, store: Store, recipe: Recipe) -> dict[str, float | None]:
    """Judge the network on valid, and on test where the recipe asks for its curve; test chooses nothing.

    A network that answers by thresholds between grades has them tuned on valid first.
    """
    said = predict_split(fabric, network, table, store, recipe, "valid")
    if isinstance(network.link, Grades):
        said = replace(said, probabilities=tune(network.link, said.probabilities, said.truth))
        # The mean of several looks is not that of their grades; a single look need not be taken again.
        if len(looks(recipe.views)) > 1:
            said = predict_split(fabric, network, table, store, recipe, "valid")
    figures = judge(said)
    row = {f"valid_{name}": figures[name] for name in _FIGURES}
    row |= shares_said(figures)
    if recipe.training.test_curve and table.labelled("test"):
        row["test_accuracy"] = judge(predict_split(fabric, network, table, store, recipe, "test"))["accuracy"]
    return row


def _gathered(step: int, steps: int, several: int) -> tuple[int, int]:
    """Return which batch of how many a step of an epoch is; the last ones of an epoch may be fewer."""
    first = step - step % several
    return step - first + 1, min(several, steps - first)


def _line(row: dict[str, Any], recipe: Recipe) -> str:
    test = f"  test {row['test_accuracy']:.3f}" if "test_accuracy" in row else ""
    return (
        f"epoch {row['epoch']:>3}/{recipe.training.epochs}  loss {row['train_loss']:.4f}  "
        f"train {row['train_accuracy']:.3f}  valid {row['valid_accuracy']:.3f}{test}  "
        f"{row['images_per_second']:,.0f} images/s  waiting {row['waiting']:.1%}"
    )
