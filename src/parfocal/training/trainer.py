"""The training loop: start or resume, then for each epoch train, validate, save and report."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from scipy.optimize import minimize_scalar

from parfocal.data.augment import tta_views
from parfocal.data.custom_transform import CustomTransform
from parfocal.data.loader import BatchLoader
from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.engine.batches import build_batches
from parfocal.engine.distributed import all_max, broadcast_buffers, rank_zero_guard
from parfocal.evaluation.alarms import alarms, predicted_shares
from parfocal.evaluation.decision import fit_decision_rule
from parfocal.evaluation.inference import predict_split
from parfocal.evaluation.metrics import SELECTION_METRICS, compute_metrics, get_metric
from parfocal.evaluation.predictions import Predictions
from parfocal.evaluation.thresholds import tune_thresholds
from parfocal.io import write_json
from parfocal.models.classifier import build_classifier
from parfocal.models.ordinal import RegressionHead
from parfocal.models.pretrained import load_initial_weights
from parfocal.progress import print_line, print_warning
from parfocal.run import Run
from parfocal.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from parfocal.training.loggers import open_loggers
from parfocal.training.losses import build_loss, epoch_class_counts
from parfocal.training.normalization import compute_normalization
from parfocal.training.optim import compute_learning_rate
from parfocal.training.pace import FORWARD_SHARE
from parfocal.training.probe import fit_head
from parfocal.training.progressive import choose_crop_size
from parfocal.training.step import (
    EpochState,
    Learner,
    build_learner,
    check_finite,
    epoch_row,
    reduce_epoch_state,
    run_epoch,
)
from parfocal.training.stopping import (
    Interruption,
    TimeBudget,
    TrainingInterruptedError,
    catch_signals,
    early_stop,
    is_better,
    plateau_reductions,
)

# How often, in steps, processes agree on whether to stop or save: they wait for each other then.
_SYNC_EVERY = 10
# Intervals, figures and the report, on two cores.
_REPORT_SECONDS = 10
_SCALE_BOUNDS = (0.05, 20.0)


@dataclass
class TrainState:
    """Everything that changes while a run trains, and the batches that it trains and validates on."""

    run: Run
    table: Table
    loaders: dict[str, BatchLoader]
    learner: Learner
    progress: Progress
    epoch_state: EpochState
    time_budget: TimeBudget
    interruption: Interruption = field(default_factory=Interruption)

    @cached_property
    def n_test(self) -> int:
        """The number of test images, which are evaluated after training."""
        return len(self.table.get_positions("test"))

    @property
    def fabric(self) -> Fabric:
        """The engine that the learner runs on."""
        return self.learner.fabric


def fit(
    run: Run,
    table: Table,
    store: Store,
    fabric: Fabric,
    after_epoch: Callable[[Run], object] | None = None,
    custom_transform: CustomTransform | None = None,
    preparation_seconds: float = 0,
) -> None:
    """Train the run's network to the end of its recipe, from its checkpoint if it has been started before.

    Leave `model.safetensors` (the weights of the best epoch), `last.ckpt` and `history.csv` in the run folder. Each is
    complete at any moment, so a run that is killed anywhere and resumed ends with the same weights as without the kill.
    Of the recipe's minutes, `preparation_seconds` have already passed.
    """
    state = start(run, table, store, fabric, custom_transform, preparation_seconds)
    with catch_signals() as state.interruption, open_loggers(run, fabric) as log_epoch:
        while not is_done(state):
            start_time = time.perf_counter() - state.epoch_state.seconds
            row = {"epoch": state.progress.epoch + 1, **train_epoch(state), **validate(state)}
            row["seconds"] = round(time.perf_counter() - start_time, 3)
            with rank_zero_guard(fabric):
                save_epoch(state, row)
                log_epoch(row)
                report_epoch(state)
                if after_epoch and fabric.is_global_zero:
                    after_epoch(run)
            if signal_number := all_max(fabric, state.interruption.signal_number):
                raise TrainingInterruptedError(run, int(signal_number), f"after epoch {state.progress.epoch}")
    fabric.barrier()


def start(
    run: Run,
    table: Table,
    store: Store,
    fabric: Fabric,
    custom_transform: CustomTransform | None = None,
    preparation_seconds: float = 0,
) -> TrainState:
    """Build the network and the batches of a run, and load its checkpoint or else its initial weights."""
    recipe = run.recipe
    torch.manual_seed(recipe.seed)
    splits = ["train", "valid"]
    if recipe.training.test_curve and table.is_labeled("test"):
        splits.append("test")
    loaders = {split: build_batches(split, table, store, recipe, fabric, custom_transform) for split in splits}
    normalization = compute_normalization(recipe.network, loaders["train"])
    classifier = build_classifier(recipe.network, table.classes, normalization, recipe.training.loss)
    learner = build_learner(fabric, classifier, recipe)
    progress = Progress()
    epoch_state: EpochState | None = None
    if run.has_checkpoint:
        progress, epoch_state = load_checkpoint(run.checkpoint_path, learner)
        with rank_zero_guard(fabric):
            if fabric.is_global_zero and progress.history:
                run.write_history(progress.history)
        within = f", {epoch_state.n_images:,} images into the next" if epoch_state else ""
        print_line(f"{run.name}: resuming after epoch {progress.epoch}{within}.")
    elif load_report := load_initial_weights(classifier, recipe.network):
        text = load_report.describe()
        if recipe.training.head != "random":
            probe, epoch_state = fit_head(learner, table, loaders["train"], recipe.seed)
            progress.elapsed_seconds = epoch_state.seconds
            text = f"{text} {probe.describe(table.groups_are)}"
        with rank_zero_guard(fabric):
            if fabric.is_global_zero:
                write_json(run.initial_weights_path, {**asdict(load_report), "text": text})
        print_line(f"{run.name}: {text}")
        if learner.ema_model is not None:
            learner.ema_model.load_state_dict(classifier.state_dict())
    minutes = recipe.training.minutes
    time_budget = TimeBudget(fabric, minutes, progress.elapsed_seconds, progress.preparation_seconds)
    # The processes take different times to prepare, and must agree on when the time is up.
    time_budget.add_preparation(all_max(fabric, preparation_seconds))
    progress.preparation_seconds = time_budget.preparation_seconds
    time_budget.reserve = progress.reserve_seconds
    epoch_state = epoch_state or EpochState.create(fabric.device, loaders["train"].steps_per_epoch)
    state = TrainState(run, table, loaders, learner, progress, epoch_state, time_budget)
    if recipe.training.head == "warm_start" and not run.has_checkpoint:
        continue_from_probe(state)
    return state


def continue_from_probe(state: TrainState) -> None:
    """Print the results of the head that was just fitted, and leave that epoch for the first one of training.

    If no time is left to train, the fit remains the only epoch of the run.
    """
    seconds = state.time_budget.preparation_seconds + state.epoch_state.seconds
    row = validate(state)
    names = ("accuracy", "quadratic_kappa" if state.run.recipe.evaluation.ordered else "kappa")
    results = [f"{get_metric(name).label} {value:.3f}" for name in names if (value := row[f"valid_{name}"]) is not None]
    print_line(f"{state.run.name}: First result after {seconds:.0f} s: {', '.join(results)} on validation.")
    state.time_budget.begin_training()
    state.progress.preparation_seconds = state.time_budget.preparation_seconds
    if not state.time_budget.exhausted():
        state.epoch_state = EpochState.create(state.fabric.device, state.loaders["train"].steps_per_epoch)


def is_done(state: TrainState) -> bool:
    """Return whether training is over: all epochs or minutes have passed, or early stopping applies."""
    config = state.run.recipe.training
    progress = state.progress
    state.time_budget.sync()
    has_epochs = config.head == "probe" or not config.minutes
    is_over = state.time_budget.exhausted() or (has_epochs and progress.epoch >= config.n_epochs)
    # The weights of a run are those of an epoch, so it has at least one.
    if is_over and progress.epoch:
        return True
    if early_stop(progress.epoch, progress.best_epoch, config):
        print_line(
            f"{state.run.name}: early stopping after epoch {progress.epoch}; epoch {progress.best_epoch} was the best."
        )
        return True
    return False


def train_epoch(state: TrainState) -> dict[str, float]:
    """Train for one epoch, or for what is left of it; return its columns of the history.

    Save a checkpoint every `save_every` minutes and before stopping on a signal.
    """
    recipe = state.run.recipe
    config = recipe.training
    learner = state.learner
    epoch = state.progress.epoch
    loader = state.loaders["train"]
    n_classes = len(learner.classifier.classes)
    class_counts = epoch_class_counts(loader.labels, n_classes, config, epoch, loader.kept_class)
    loss_fn = build_loss(config, class_counts, learner.classifier.ordinal_head, state.fabric.device)
    n_reductions = plateau_reductions([row[f"valid_{config.select}"] for row in state.progress.history], config)
    n_batches = loader.steps_per_epoch

    def learning_rate_at(batch: int) -> float:
        step = epoch * n_batches + batch
        total_steps = state.time_budget.estimate_total_steps(step + 1)
        return compute_learning_rate(step, n_batches, config, n_reductions, total_steps)

    if not state.epoch_state.crop_size:
        n_epochs = (state.time_budget.estimate_total_steps(epoch * n_batches) or config.epochs * n_batches) / n_batches
        state.epoch_state.crop_size = choose_crop_size(recipe.views, epoch, n_epochs)
    saved_at = time.perf_counter()
    label = f"{state.run.name} epoch {epoch + 1}"
    for epoch_state in run_epoch(learner, loader, recipe, epoch, learning_rate_at, state.epoch_state, loss_fn, label):
        n_steps = -(-epoch_state.n_batches // config.accumulate)
        is_synced = state.fabric.world_size == 1 or n_steps % _SYNC_EVERY == 0
        if config.minutes and is_synced:
            state.time_budget.reserve = all_max(state.fabric, estimate_reserve(state))
        state.time_budget.sync(n_steps)
        if state.time_budget.exhausted():
            break
        if not is_synced:
            continue
        signal_number = all_max(state.fabric, state.interruption.signal_number)
        save_is_due = time.perf_counter() - saved_at > recipe.machine.save_every * 60
        if signal_number or all_max(state.fabric, save_is_due):
            save_within_epoch(state)
            saved_at = time.perf_counter()
        if signal_number:
            position = f"in epoch {epoch + 1}, after step {epoch_state.n_batches} of {n_batches}"
            raise TrainingInterruptedError(state.run, int(signal_number), position)
    check_finite(learner, state.epoch_state, loader, recipe, epoch)
    broadcast_buffers(state.fabric, learner.classifier, learner.ema_model)
    return epoch_row(learner, state.epoch_state)


def estimate_reserve(state: TrainState) -> float:
    """Return the seconds that validating this epoch, evaluating the best one, and the report will take."""
    epoch_state = state.epoch_state
    views = state.run.recipe.views
    n_valid = len(state.loaders["valid"].indices)
    n_views = len(tta_views(views)) * (views.crop_size / (epoch_state.crop_size or views.crop_size)) ** 2
    n_forward = n_valid + n_views * (n_valid + state.n_test)
    return _REPORT_SECONDS + FORWARD_SHARE * n_forward * epoch_state.seconds / epoch_state.n_images


def validate(state: TrainState) -> dict[str, float | None]:
    """Compute the validation columns of the history; with `test_curve` also the accuracy on the test split.

    One view of each image is enough to compare epochs, in the size that the epoch was trained with. The thresholds of a
    regression head, and the recipe's decision rule for the predicted class, are fitted on the validation split first.
    The test split decides nothing.
    """
    network = state.learner.eval_model
    predictions = predict_one_view(state, "valid")
    if isinstance(network.ordinal_head, RegressionHead):
        probabilities = fit_thresholds(network.ordinal_head, predictions.probabilities, predictions.truth)
        predictions = replace(predictions, probabilities=probabilities)
    decision = fit_decision_rule(predictions, state.run.recipe)
    metrics = compute_metrics(decision.decide(predictions))
    row = {f"valid_{name}": metrics[name] for name in SELECTION_METRICS}
    row |= predicted_shares(metrics)
    if state.run.recipe.views.start_size:
        row["crop_size"] = state.epoch_state.crop_size
    if "test" in state.loaders:
        test_predictions = decision.decide(predict_one_view(state, "test"))
        row["test_accuracy"] = compute_metrics(test_predictions)["accuracy"]
    state.time_budget.sync()
    state.progress.reserve_seconds = state.time_budget.reserve
    state.progress.elapsed_seconds = state.time_budget.elapsed_seconds
    return row


def predict_one_view(state: TrainState, split: str) -> Predictions:
    """Predict a split with the view that has neither flips nor turns, in the size of the epoch."""
    loader = state.loaders[split]
    crop_size = state.epoch_state.crop_size or None
    return predict_split(state.fabric, state.learner.eval_model, state.table, split, loader, [0], crop_size)


def fit_thresholds(head: RegressionHead, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Set a head's thresholds to maximize quadratic kappa and its scale to minimize cross-entropy.

    `probabilities` are the predictions of the network with this head for images of known truth. Return the
    probabilities that the fitted network predicts for the same images.
    """
    log_probabilities = torch.from_numpy(probabilities).clamp_min(1e-300).log()
    grades = head.compute_grades(log_probabilities.to(head.thresholds.device))
    thresholds = tune_thresholds(grades.cpu().numpy(), truth, head.thresholds.numel() + 1)
    head.thresholds.copy_(torch.from_numpy(thresholds))
    head.scale.fill_(1)
    logits = head.compute_logits(grades[:, None]).cpu()
    labels = torch.from_numpy(truth)

    def compute_loss(log_scale: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / np.exp(log_scale), labels))

    result: Any = minimize_scalar(compute_loss, bounds=tuple(np.log(_SCALE_BOUNDS)), method="bounded")
    head.scale.fill_(float(np.exp(result.x)))
    return torch.softmax(head.compute_logits(grades[:, None]), dim=1).cpu().numpy()


def save_epoch(state: TrainState, row: dict[str, Any]) -> None:
    """Add a finished epoch to the history and save it; if it is the best so far, save its weights as the run's."""
    run = state.run
    progress = state.progress
    progress.history.append(row)
    select = run.recipe.training.select
    value = row[f"valid_{select}"]
    # Epochs of different sizes cannot be compared, and the network is used in the largest.
    has_grown = state.epoch_state.crop_size > progress.best_crop_size
    is_best = has_grown or is_better(value, progress.best_value, select)
    if is_best:
        progress.best_epoch = progress.epoch
        progress.best_value = value
        progress.best_crop_size = state.epoch_state.crop_size
    state.epoch_state = EpochState.create(state.fabric.device, state.loaders["train"].steps_per_epoch)
    if state.fabric.is_global_zero:
        if is_best:
            metadata = {"recipe": run.recipe.model_dump(mode="json"), "epoch": progress.epoch}
            state.learner.eval_model.save(run.weights_path, metadata)
        save_checkpoint(run.checkpoint_path, state.learner, progress)
        run.write_history(progress.history)


def save_within_epoch(state: TrainState) -> None:
    """Save a checkpoint in the middle of an epoch, unless its loss has diverged."""
    learner = state.learner
    check_finite(learner, state.epoch_state, state.loaders["train"], state.run.recipe, state.progress.epoch)
    broadcast_buffers(state.fabric, learner.classifier, learner.ema_model)
    epoch_state = reduce_epoch_state(state.fabric, state.epoch_state)
    state.progress.elapsed_seconds = state.time_budget.elapsed_seconds
    with rank_zero_guard(state.fabric):
        if state.fabric.is_global_zero:
            save_checkpoint(state.run.checkpoint_path, learner, state.progress, epoch_state)


def report_epoch(state: TrainState) -> None:
    """Print the results of the last epoch, and the alarms that it raises."""
    config = state.run.recipe.training
    history = state.progress.history
    row = history[-1]
    minutes = state.time_budget.elapsed_seconds / 60
    limit = f" {minutes:.1f}/{config.minutes:g} min" if config.minutes else f"/{config.n_epochs}"
    test = f"  test {row['test_accuracy']:.3f}" if "test_accuracy" in row else ""
    print_line(
        f"epoch {row['epoch']:>3}{limit}  loss {row['train_loss']:.4f}  "
        f"train {row['train_accuracy']:.3f}  valid {row['valid_accuracy']:.3f}{test}  "
        f"{row['images_per_second']:,.0f} images/s  waiting {row['waiting']:.1%}"
    )
    for alarm in alarms(history, state.table.count_classes("valid"), state.run.recipe):
        if alarm.until == len(history):
            print_warning(f"{state.run.name}: {alarm.text}")
