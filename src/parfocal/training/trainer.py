"""The training loop, read from top to bottom: prepare the stage, then for each epoch train, validate, keep."""

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from parfocal.data.batches import Batches
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, listing
from parfocal.evaluation.inference import ahead, batches_of, fabric_for, predict_split, ready
from parfocal.evaluation.metrics import judge
from parfocal.evaluation.watch import alarms, prevalence, shares_said
from parfocal.files import write_json
from parfocal.model.classifier import new_classifier
from parfocal.model.starts import start
from parfocal.progress import progress, say
from parfocal.recipe import Recipe
from parfocal.run import Run
from parfocal.training import checkpoint
from parfocal.training.mixing import Blend, mixed
from parfocal.training.optimise import learning_rate, optimiser
from parfocal.training.scale import measured_scale
from parfocal.training.stages import hold

# How often, in steps, a loss that is no number is looked for: looking waits for the device.
_LOOKED_AT_EVERY = 50


def fit(run: Run, table: Table, store: Store) -> None:
    """Train the run's network to the end of its recipe, going on from its checkpoint where there is one.

    Leaves `model.safetensors` (the best epoch's weights), `last.ckpt` and `history.csv` in the run folder, each whole
    at any moment, so that a run killed anywhere and gone on with ends with the same weights as one that was not.
    """
    recipe = run.recipe
    fabric = fabric_for(recipe.training.precision)
    torch.manual_seed(recipe.seed)
    train = batches_of("train", table, store, recipe)
    classifier = ready(new_classifier(recipe.network, table.classes, measured_scale(recipe.network, train)))
    network, optimise = fabric.setup(classifier, optimiser(classifier, recipe.training))
    reached = checkpoint.Progress()
    if run.checkpoint.exists():
        reached = checkpoint.load(run.checkpoint, classifier, optimise)
        say(f"{run.name}: going on after epoch {reached.epoch}.")
    elif fit := start(classifier, recipe.network):
        write_json(run.start, asdict(fit))
        say(f"{run.name}: {fit.line()}")
    for epoch in range(reached.epoch, recipe.training.epochs):
        started = time.perf_counter()
        row: dict[str, Any] = {"epoch": epoch + 1}
        row |= train_epoch(fabric, network, optimise, train, recipe, epoch, label=f"{run.name} epoch {epoch + 1}")
        row |= measure(fabric, network, table, store, recipe)
        row["seconds"] = round(time.perf_counter() - started, 3)
        reached.history.append(row)
        value = row[f"valid_{recipe.training.select}"]
        if epoch == 0 or better(value, reached.best_value, recipe.training.select):
            reached.best_epoch, reached.best_value = epoch + 1, value
            classifier.save(run.weights, {"recipe": recipe.model_dump(mode="json"), "epoch": epoch + 1})
        checkpoint.save(run.checkpoint, classifier, optimise, reached)
        run.write_history(reached.history)
        say(_line(row, recipe))
        for alarm in alarms(reached.history, prevalence(table), recipe):
            if alarm.until == epoch + 1:
                say(f"Warning: {alarm.text}")


def train_epoch(
    fabric: Fabric,
    network: nn.Module,
    optimise: torch.optim.Optimizer,
    batches: Batches,
    recipe: Recipe,
    epoch: int,
    label: str = "Training",
) -> dict[str, float]:
    """Take one pass over the training split and return its row of figures; nothing waits for the device in a step."""
    # All that is random in an epoch hangs on (seed, epoch) alone, so that resuming needs no stored generators.
    torch.manual_seed(int(np.random.default_rng([recipe.seed, epoch, 2]).integers(2**63)))
    network.train()
    hold(network, recipe.training, epoch)
    count, steps = batches.shown, batches.steps
    total_loss = torch.zeros((), device=fabric.device)
    right = torch.zeros((), device=fabric.device, dtype=torch.long)
    bad = torch.full((), steps, device=fabric.device)
    rate = recipe.training.learning_rate
    started = time.perf_counter()
    with progress(label, count) as done:
        for step, (pixels, labels) in enumerate(ahead(batches.epoch(epoch), fabric.device)):
            rate = learning_rate(epoch * steps + step, steps, recipe.training)
            pixels, blend = mixed(pixels, recipe.training, seed=(recipe.seed, epoch, step))
            loss, logits = train_step(fabric, network, optimise, pixels, labels, rate, blend)
            total_loss += loss.detach() * len(labels)
            bad = torch.where(loss.detach().isfinite(), bad, bad.clamp(max=step))
            if step % _LOOKED_AT_EVERY == _LOOKED_AT_EVERY - 1 and bad.item() < steps:
                break
            right += (logits.argmax(1) == labels).sum()
            done(len(labels))
    _refuse_no_number(int(bad.item()), batches, recipe, epoch)
    loss, accuracy = total_loss.item() / count, right.item() / count
    elapsed = time.perf_counter() - started
    return {
        "train_loss": loss,
        "train_accuracy": accuracy,
        "learning_rate": rate,
        "images_per_second": round(count / elapsed, 2),
        "waiting": round(batches.waited / elapsed, 4),
    }


def _refuse_no_number(step: int, batches: Batches, recipe: Recipe, epoch: int) -> None:
    """Stop where the loss of a step was no number, and say what it was made of."""
    if step >= batches.steps:
        return
    rate = learning_rate(epoch * batches.steps + step, batches.steps, recipe.training)
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
) -> tuple[Tensor, Tensor]:
    """Move the weights once, at learning rate `rate`; return the loss and the logits."""
    for group in optimise.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimise.zero_grad(set_to_none=True)
    logits = network(pixels)
    loss = nn.functional.cross_entropy(logits.float(), labels)
    if blend is not None:
        other = nn.functional.cross_entropy(logits.float(), labels[blend.partners])
        loss = blend.share * loss + (1 - blend.share) * other
    fabric.backward(loss)
    optimise.step()
    return loss, logits


def measure(fabric: Fabric, network: nn.Module, table: Table, store: Store, recipe: Recipe) -> dict[str, float | None]:
    """Judge the network on valid, and on test where the recipe asks for its curve; test chooses nothing."""
    figures = judge(predict_split(fabric, network, table, store, recipe, "valid"))
    row = {f"valid_{name}": figures[name] for name in ("loss", "accuracy", "balanced_accuracy", "kappa", "auc")}
    row |= shares_said(figures)
    if recipe.training.test_curve and table.labelled("test"):
        row["test_accuracy"] = judge(predict_split(fabric, network, table, store, recipe, "test"))["accuracy"]
    return row


def better(value: float | None, best: float | None, select: str) -> bool:
    """Say whether a value beats the best so far; the earlier epoch keeps a tie, and an unknown value never wins."""
    if value is None or best is None:
        return value is not None
    return value < best if select == "loss" else value > best


def _line(row: dict[str, Any], recipe: Recipe) -> str:
    test = f"  test {row['test_accuracy']:.3f}" if "test_accuracy" in row else ""
    return (
        f"epoch {row['epoch']:>3}/{recipe.training.epochs}  loss {row['train_loss']:.4f}  "
        f"train {row['train_accuracy']:.3f}  valid {row['valid_accuracy']:.3f}{test}  "
        f"{row['images_per_second']:,.0f} images/s  waiting {row['waiting']:.1%}"
    )
