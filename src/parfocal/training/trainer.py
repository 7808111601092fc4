"""The training loop, read from top to bottom: prepare the stage, then for each epoch train, validate, keep."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import count
from typing import Any

import torch
from lightning_fabric import Fabric

from parfocal.data.batches import Batches
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.data.views import looks
from parfocal.evaluation.inference import batches_of, predict_split
from parfocal.evaluation.metrics import judge
from parfocal.evaluation.watch import alarms, shares_said
from parfocal.files import write_json
from parfocal.model.classifier import new_classifier
from parfocal.model.links import Grades
from parfocal.model.starts import start
from parfocal.progress import say
from parfocal.recipe import Recipe
from parfocal.run import Run
from parfocal.training import checkpoint
from parfocal.training.clock import Clock
from parfocal.training.epoch import Tally, refuse_blown_up, row_of, run_epoch, together
from parfocal.training.interruption import Interruption, noted, stopped
from parfocal.training.learner import Learner, new_learner
from parfocal.training.losses import LINKS, loss_of, shown_counts
from parfocal.training.optimise import learning_rate
from parfocal.training.patience import better, falls, given_up
from parfocal.training.processes import agreed, led_by_first, same_buffers
from parfocal.training.scale import measured_scale
from parfocal.training.thresholds import tune
from parfocal.training.trackers import tracked

_FIGURES = ("loss", "accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")
# How often, in steps, several processes ask each other whether to stop: asking makes them wait for each other.
_ASKED_EVERY = 10


def fit(
    run: Run, table: Table, store: Store, fabric: Fabric, after_epoch: Callable[[Run], object] | None = None
) -> None:
    """Train the run's network to the end of its recipe, going on from its checkpoint where there is one.

    Leaves `model.safetensors` (the best epoch's weights), `last.ckpt` and `history.csv` in the run folder, each whole
    at any moment, so that a run killed anywhere and gone on with ends with the same weights as one that was not.
    """
    recipe = run.recipe
    part, link = recipe.training, LINKS.get(recipe.training.loss, "none")
    torch.manual_seed(recipe.seed)
    batches = {split: batches_of(split, table, store, recipe, fabric) for split in ("train", *_judged(table, recipe))}
    train = batches["train"]
    classifier = new_classifier(recipe.network, table.classes, measured_scale(recipe.network, train), link)
    learner = new_learner(fabric, classifier, recipe)
    reached, tally = _begun(run, learner)
    clock = Clock(fabric, part.minutes, reached.spent)
    clock.reserve = reached.judging
    with noted() as asked, tracked(run, fabric) as tell:
        for epoch in count(reached.epoch):
            clock.look()
            if clock.over() or (not part.minutes and epoch >= part.epochs):
                break
            if given_up(reached.epoch, reached.best_epoch, part):
                say(f"{run.name}: ended early; epoch {reached.best_epoch} was the best of {reached.epoch}.")
                break
            started = time.perf_counter() - (tally.seconds if tally else 0)
            tally = _train(run, learner, train, reached, tally, clock, asked)
            same_buffers(fabric, learner.classifier, learner.average)
            row, judging = {"epoch": epoch + 1, **row_of(learner, tally)}, time.perf_counter()
            row |= measure(learner, table, batches, recipe)
            clock.reserve = reached.judging = agreed(fabric, time.perf_counter() - judging)
            clock.look()
            reached.spent = clock.spent
            row["seconds"], tally = round(time.perf_counter() - started, 3), None
            with led_by_first(fabric):
                _keep(run, learner, reached, row)
                tell(row)
                _report(run, reached, table, clock)
                if after_epoch and fabric.is_global_zero:
                    after_epoch(run)
            if stop := agreed(fabric, asked.signal):
                raise stopped(run, int(stop), f"after epoch {epoch + 1}")
    fabric.barrier()


def _judged(table: Table, recipe: Recipe) -> list[str]:
    """Return the splits that are looked at after each epoch: valid, and test where its curve is asked for."""
    return ["valid", "test"] if recipe.training.test_curve and table.labelled("test") else ["valid"]


def _begun(run: Run, learner: Learner) -> tuple[checkpoint.Progress, Tally | None]:
    """Put a learner where its run's checkpoint is, or give it the first weights that the recipe wants."""
    if run.checkpoint.exists():
        reached, tally = checkpoint.load(run.checkpoint, learner)
        with led_by_first(learner.fabric):
            if learner.fabric.is_global_zero and reached.history:
                run.write_history(reached.history)
        begun = f", {tally.images:,} images into the next" if tally else ""
        say(f"{run.name}: going on after epoch {reached.epoch}{begun}.")
        return reached, tally
    if fit := start(learner.classifier, run.recipe.network):
        with led_by_first(learner.fabric):
            if learner.fabric.is_global_zero:
                write_json(run.start, {**asdict(fit), "text": fit.line()})
        say(f"{run.name}: {fit.line()}")
        if learner.average is not None:
            learner.average.load_state_dict(learner.classifier.state_dict())
    return checkpoint.Progress(), None


def _train(
    run: Run,
    learner: Learner,
    train: Batches,
    reached: checkpoint.Progress,
    tally: Tally | None,
    clock: Clock,
    asked: Interruption,
) -> Tally:
    """Take one pass over train, or what is left of it; save on the way every so often, and when asked to stop."""
    recipe, epoch, fabric = run.recipe, reached.epoch, learner.fabric
    part, steps = recipe.training, train.steps
    counts = shown_counts(train.labels, len(learner.classifier.classes), part, epoch)
    loss = loss_of(part, counts, learner.classifier.link, fabric.device)
    lowered = falls([past[f"valid_{part.select}"] for past in reached.history], part)
    saved = time.perf_counter()

    def rate_at(step: int) -> float:
        clock.look(step // part.accumulate)
        taken = epoch * steps + step
        return learning_rate(taken, steps, part, lowered, clock.steps(taken + 1))

    label = f"{run.name} epoch {epoch + 1}"
    tally = tally or Tally.fresh(fabric.device, steps)
    for _ in run_epoch(learner, train, recipe, epoch, rate_at, tally, loss, label):
        if clock.over():
            break
        if fabric.world_size > 1 and tally.batches // part.accumulate % _ASKED_EVERY:
            continue
        late = time.perf_counter() - saved > recipe.machine.save_every * 60
        stop = agreed(fabric, asked.signal)
        if stop or agreed(fabric, late):
            refuse_blown_up(learner, tally, train, recipe, epoch)
            same_buffers(fabric, learner.classifier, learner.average)
            whole = together(fabric, tally)
            reached.spent = clock.spent
            with led_by_first(fabric):
                if fabric.is_global_zero:
                    checkpoint.save(run.checkpoint, learner, reached, whole)
            saved = time.perf_counter()
        if stop:
            raise stopped(run, int(stop), f"in epoch {epoch + 1}, after step {tally.batches} of {steps}")
    refuse_blown_up(learner, tally, train, recipe, epoch)
    return tally


def measure(learner: Learner, table: Table, batches: dict[str, Batches], recipe: Recipe) -> dict[str, float | None]:
    """Judge the network on valid, and on test where the recipe asks for its curve; test chooses nothing.

    A network that answers by thresholds between grades has them tuned on valid first.
    """
    fabric, network = learner.fabric, learner.kept
    said = predict_split(fabric, network, table, "valid", batches["valid"])
    if isinstance(network.link, Grades):
        said = replace(said, probabilities=tune(network.link, said.probabilities, said.truth))
        # The mean of several looks is not that of their grades; a single look need not be taken again.
        if len(looks(recipe.views)) > 1:
            said = predict_split(fabric, network, table, "valid", batches["valid"])
    figures = judge(said)
    row = {f"valid_{name}": figures[name] for name in _FIGURES}
    row |= shares_said(figures)
    if "test" in batches:
        row["test_accuracy"] = judge(predict_split(fabric, network, table, "test", batches["test"]))["accuracy"]
    return row


def _keep(run: Run, learner: Learner, reached: checkpoint.Progress, row: dict[str, Any]) -> None:
    """Note a finished epoch and save it, with its weights as the run's if its selected figure is the best so far."""
    reached.history.append(row)
    select = run.recipe.training.select
    value = row[f"valid_{select}"]
    best = reached.epoch == 1 or better(value, reached.best_value, select)
    if best:
        reached.best_epoch, reached.best_value = reached.epoch, value
    if learner.fabric.is_global_zero:
        if best:
            learner.kept.save(run.weights, {"recipe": run.recipe.model_dump(mode="json"), "epoch": reached.epoch})
        checkpoint.save(run.checkpoint, learner, reached)
        run.write_history(reached.history)


def _report(run: Run, reached: checkpoint.Progress, table: Table, clock: Clock) -> None:
    """Say what the last epoch came to, and what is wrong with it."""
    row, part = reached.history[-1], run.recipe.training
    of = f" {clock.spent / 60:.1f}/{part.minutes:g} min" if part.minutes else f"/{part.epochs}"
    test = f"  test {row['test_accuracy']:.3f}" if "test_accuracy" in row else ""
    say(
        f"epoch {row['epoch']:>3}{of}  loss {row['train_loss']:.4f}  "
        f"train {row['train_accuracy']:.3f}  valid {row['valid_accuracy']:.3f}{test}  "
        f"{row['images_per_second']:,.0f} images/s  waiting {row['waiting']:.1%}"
    )
    for alarm in alarms(reached.history, table.counts("valid"), run.recipe):
        if alarm.until == reached.epoch:
            say(f"Warning: {alarm.text}")
