"""The training loop, read from top to bottom: prepare the stage, then for each epoch train, validate, keep."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import count
from typing import Any

import torch
from lightning_fabric import Fabric

from parfocal.data.augment import tta_views
from parfocal.data.loader import BatchLoader
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.engine.batches import build_batches
from parfocal.engine.distributed import all_max, broadcast_buffers, rank_zero_guard
from parfocal.evaluation.alarms import alarms, predicted_shares
from parfocal.evaluation.inference import predict_split
from parfocal.evaluation.metrics import compute_metrics
from parfocal.io import write_json
from parfocal.models.classifier import build_classifier
from parfocal.models.ordinal import RegressionHead
from parfocal.models.pretrained import load_initial_weights
from parfocal.progress import print_line
from parfocal.recipe import Recipe
from parfocal.run import Run
from parfocal.training import checkpoint
from parfocal.training.early_stopping import early_stop, is_better, plateau_reductions
from parfocal.training.loggers import open_loggers
from parfocal.training.losses import LOSS_HEADS, build_loss, epoch_class_counts
from parfocal.training.normalization import compute_normalization
from parfocal.training.optim import compute_learning_rate
from parfocal.training.ordinal_thresholds import fit_thresholds
from parfocal.training.signals import Interruption, catch_signals, interrupted
from parfocal.training.step import (
    EpochState,
    Learner,
    build_learner,
    check_finite,
    epoch_row,
    reduce_epoch_state,
    run_epoch,
)
from parfocal.training.time_budget import TimeBudget

_METRICS = ("loss", "accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc")
# How often, in steps, several processes ask each other whether to stop: asking makes them wait for each other.
_SYNC_EVERY = 10


def fit(
    run: Run, table: Table, store: Store, fabric: Fabric, after_epoch: Callable[[Run], object] | None = None
) -> None:
    """Train the run's network to the end of its recipe, going on from its checkpoint where there is one.

    Leaves `model.safetensors` (the best epoch's weights), `last.ckpt` and `history.csv` in the run folder, each whole
    at any moment, so that a run killed anywhere and gone on with ends with the same weights as one that was not.
    """
    recipe = run.recipe
    part, link = recipe.training, LOSS_HEADS.get(recipe.training.loss, "none")
    torch.manual_seed(recipe.seed)
    batches = {
        split: build_batches(split, table, store, recipe, fabric)
        for split in ("train", *_evaluated_splits(table, recipe))
    }
    train = batches["train"]
    classifier = build_classifier(recipe.network, table.classes, compute_normalization(recipe.network, train), link)
    learner = build_learner(fabric, classifier, recipe)
    reached, tally = _start(run, learner)
    clock = TimeBudget(fabric, part.minutes, reached.elapsed_seconds)
    clock.reserve = reached.validation_seconds
    with catch_signals() as asked, open_loggers(run, fabric) as tell:
        for epoch in count(reached.epoch):
            clock.sync()
            if clock.exhausted() or (not part.minutes and epoch >= part.epochs):
                break
            if early_stop(reached.epoch, reached.best_epoch, part):
                print_line(f"{run.name}: ended early; epoch {reached.best_epoch} was the best of {reached.epoch}.")
                break
            started = time.perf_counter() - (tally.seconds if tally else 0)
            tally = _train_epoch(run, learner, train, reached, tally, clock, asked)
            broadcast_buffers(fabric, learner.classifier, learner.ema_model)
            row, judging = {"epoch": epoch + 1, **epoch_row(learner, tally)}, time.perf_counter()
            row |= validate(learner, table, batches, recipe)
            clock.reserve = reached.validation_seconds = all_max(fabric, time.perf_counter() - judging)
            clock.sync()
            reached.elapsed_seconds = clock.elapsed_seconds
            row["seconds"], tally = round(time.perf_counter() - started, 3), None
            with rank_zero_guard(fabric):
                _save_epoch(run, learner, reached, row)
                tell(row)
                _report_epoch(run, reached, table, clock)
                if after_epoch and fabric.is_global_zero:
                    after_epoch(run)
            if stop := all_max(fabric, asked.signal_number):
                raise interrupted(run, int(stop), f"after epoch {epoch + 1}")
    fabric.barrier()


def _evaluated_splits(table: Table, recipe: Recipe) -> list[str]:
    """Return the splits that are looked at after each epoch: valid, and test where its curve is asked for."""
    return ["valid", "test"] if recipe.training.test_curve and table.is_labeled("test") else ["valid"]


def _start(run: Run, learner: Learner) -> tuple[checkpoint.Progress, EpochState | None]:
    """Put a learner where its run's checkpoint is, or give it the first weights that the recipe wants."""
    if run.checkpoint_path.exists():
        reached, tally = checkpoint.load_checkpoint(run.checkpoint_path, learner)
        with rank_zero_guard(learner.fabric):
            if learner.fabric.is_global_zero and reached.history:
                run.write_history(reached.history)
        begun = f", {tally.n_images:,} images into the next" if tally else ""
        print_line(f"{run.name}: going on after epoch {reached.epoch}{begun}.")
        return reached, tally
    if fit := load_initial_weights(learner.classifier, run.recipe.network):
        with rank_zero_guard(learner.fabric):
            if learner.fabric.is_global_zero:
                write_json(run.initial_weights_path, {**asdict(fit), "text": fit.describe()})
        print_line(f"{run.name}: {fit.describe()}")
        if learner.ema_model is not None:
            learner.ema_model.load_state_dict(learner.classifier.state_dict())
    return checkpoint.Progress(), None


def _train_epoch(
    run: Run,
    learner: Learner,
    train: BatchLoader,
    progress: checkpoint.Progress,
    epoch_state: EpochState | None,
    time_budget: TimeBudget,
    interruption: Interruption,
) -> EpochState:
    """Take one pass over train, or what is left of it; save on the way every so often, and when asked to stop."""
    recipe, epoch, fabric = run.recipe, progress.epoch, learner.fabric
    part, steps = recipe.training, train.steps_per_epoch
    counts = epoch_class_counts(train.labels, len(learner.classifier.classes), part, epoch)
    loss = build_loss(part, counts, learner.classifier.ordinal_head, fabric.device)
    lowered = plateau_reductions([past[f"valid_{part.select}"] for past in progress.history], part)
    saved = time.perf_counter()

    def rate_at(step: int) -> float:
        time_budget.sync(step // part.accumulate)
        taken = epoch * steps + step
        return compute_learning_rate(taken, steps, part, lowered, time_budget.estimate_total_steps(taken + 1))

    label = f"{run.name} epoch {epoch + 1}"
    epoch_state = epoch_state or EpochState.create(fabric.device, steps)
    for _ in run_epoch(learner, train, recipe, epoch, rate_at, epoch_state, loss, label):
        if time_budget.exhausted():
            break
        if fabric.world_size > 1 and epoch_state.n_batches // part.accumulate % _SYNC_EVERY:
            continue
        late = time.perf_counter() - saved > recipe.machine.save_every * 60
        stop = all_max(fabric, interruption.signal_number)
        if stop or all_max(fabric, late):
            check_finite(learner, epoch_state, train, recipe, epoch)
            broadcast_buffers(fabric, learner.classifier, learner.ema_model)
            whole = reduce_epoch_state(fabric, epoch_state)
            progress.elapsed_seconds = time_budget.elapsed_seconds
            with rank_zero_guard(fabric):
                if fabric.is_global_zero:
                    checkpoint.save_checkpoint(run.checkpoint_path, learner, progress, whole)
            saved = time.perf_counter()
        if stop:
            raise interrupted(run, int(stop), f"in epoch {epoch + 1}, after step {epoch_state.n_batches} of {steps}")
    check_finite(learner, epoch_state, train, recipe, epoch)
    return epoch_state


def validate(
    learner: Learner, table: Table, batches: dict[str, BatchLoader], recipe: Recipe
) -> dict[str, float | None]:
    """Judge the network on valid, and on test where the recipe asks for its curve; test chooses nothing.

    A network that answers by thresholds between grades has them tuned on valid first.
    """
    fabric, network = learner.fabric, learner.eval_model
    said = predict_split(fabric, network, table, "valid", batches["valid"])
    if isinstance(network.ordinal_head, RegressionHead):
        said = replace(said, probabilities=fit_thresholds(network.ordinal_head, said.probabilities, said.truth))
        # The mean of several looks is not that of their grades; a single look need not be taken again.
        if len(tta_views(recipe.views)) > 1:
            said = predict_split(fabric, network, table, "valid", batches["valid"])
    figures = compute_metrics(said)
    row = {f"valid_{name}": figures[name] for name in _METRICS}
    row |= predicted_shares(figures)
    if "test" in batches:
        row["test_accuracy"] = compute_metrics(predict_split(fabric, network, table, "test", batches["test"]))[
            "accuracy"
        ]
    return row


def _save_epoch(run: Run, learner: Learner, progress: checkpoint.Progress, row: dict[str, Any]) -> None:
    """Note a finished epoch and save it, with its weights as the run's if its selected figure is the best so far."""
    progress.history.append(row)
    select = run.recipe.training.select
    value = row[f"valid_{select}"]
    best = progress.epoch == 1 or is_better(value, progress.best_value, select)
    if best:
        progress.best_epoch, progress.best_value = progress.epoch, value
    if learner.fabric.is_global_zero:
        if best:
            learner.eval_model.save(
                run.weights_path, {"recipe": run.recipe.model_dump(mode="json"), "epoch": progress.epoch}
            )
        checkpoint.save_checkpoint(run.checkpoint_path, learner, progress)
        run.write_history(progress.history)


def _report_epoch(run: Run, progress: checkpoint.Progress, table: Table, time_budget: TimeBudget) -> None:
    """Say what the last epoch came to, and what is wrong with it."""
    row, part = progress.history[-1], run.recipe.training
    of = f" {time_budget.elapsed_seconds / 60:.1f}/{part.minutes:g} min" if part.minutes else f"/{part.epochs}"
    test = f"  test {row['test_accuracy']:.3f}" if "test_accuracy" in row else ""
    print_line(
        f"epoch {row['epoch']:>3}{of}  loss {row['train_loss']:.4f}  "
        f"train {row['train_accuracy']:.3f}  valid {row['valid_accuracy']:.3f}{test}  "
        f"{row['images_per_second']:,.0f} images/s  waiting {row['waiting']:.1%}"
    )
    for alarm in alarms(progress.history, table.count_classes("valid"), run.recipe):
        if alarm.until == progress.epoch:
            print_line(f"Warning: {alarm.text}")
