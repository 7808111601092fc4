"""Train networks on labeled images: resolve the recipe of each run, validate, prepare the data, create and fit."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from parfocal.data.bit_depth import resolve_bit_depth
from parfocal.data.checks import PreparedData, check_and_prepare
from parfocal.data.custom_transform import (
    AllowedCode,
    CustomTransform,
    load_custom_transform,
    separate_functions,
)
from parfocal.data.grouping import describe_groups
from parfocal.data.loader import (
    check_batch_covers_processes,
    check_batch_size,
    compute_samples_per_class,
    find_kept_class,
)
from parfocal.data.pixel_digests import check_same_pixels, list_pixel_digests
from parfocal.data.preview import write_preview
from parfocal.data.split import read_and_split
from parfocal.data.table import Table
from parfocal.engine.device import build_fabric, resolve_devices
from parfocal.engine.distributed import is_rank_zero, launch, rank_zero_first, rank_zero_guard
from parfocal.errors import ParfocalError, UsageError, join_limited
from parfocal.evaluation.decision_rule import DecisionRule
from parfocal.evaluation.evaluate import evaluate_run, predict_table
from parfocal.evaluation.metrics import get_metric
from parfocal.evaluation.operating_point import validate_referable_grade
from parfocal.evaluation.positive_class import resolve_positive_class
from parfocal.io import explain_write_errors, write_text
from parfocal.manifest import create_manifest, file_exists
from parfocal.models.architectures import resolve_architecture
from parfocal.models.classifier import Classifier
from parfocal.models.pretrained import validate_initial_weights
from parfocal.progress import print_line, print_warning
from parfocal.recipe import Recipe, expand_recipes, find_differences, load_recipe
from parfocal.recipe_file import AUTO
from parfocal.recipe_schema import MachineConfig
from parfocal.reported import find_prerequisites
from parfocal.run import Run, find_runs
from parfocal.training.auto_start import resolve_auto_init
from parfocal.training.autoconfig import Plan, plan_variants
from parfocal.training.batch_size import resolve_batch_size
from parfocal.training.environment import describe_changes, describe_environment
from parfocal.training.loggers import validate_loggers
from parfocal.training.optim import validate_freeze
from parfocal.training.run_lock import lock_runs
from parfocal.training.test_curve import explain_missing_test_curve
from parfocal.training.trainer import fit


@dataclass(frozen=True)
class RunPlan:
    """A run that is ready to be trained: its folder, its recipe with every value resolved, and its prepared data."""

    run: Run
    plan: Plan
    prepared: PreparedData
    custom_transform: CustomTransform | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.plan.recipe


def train(
    data: Path | str,
    recipe: str | Path | Recipe | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    experiment: str = "",
    after_epoch: Callable[[Run], object] | None = None,
    allow_code: Sequence[str] = (),
    show_line: Callable[[str], object] = print_line,
    started_at: float | None = None,
    **changes: Any,
) -> list[Run]:
    """Train a run for each combination of the values in `changes`, evaluate the runs, and return them.

    `data` is a folder, sheet or `.npz` file in a known layout. Each run has a folder below `out`.
    An `experiment` of the recipe brings values that `changes` override. With the recipe `auto` each run is planned from
    the data, and its folder holds the reasons. With `resume`, unfinished runs continue and finished ones stay as they
    are; without a recipe they keep theirs, and only its `machine` section may change. `init=auto` is resolved once for
    all runs, and a run keeps what it was resolved to. `after_epoch` is called with the run after each epoch, and
    `show_line` with the initial weights, what was read and what its groups are; both in the first process only.
    Warnings are printed on standard error.

    The clock of `minutes` starts with this call, or at `started_at` on the clock of `time.perf_counter`; it covers
    everything up to the report.

    `custom_transform` may be a function; the run records its name. Code that a recipe or a resumed run names by itself
    runs only if `allow_code` lists its module.
    """
    started_at = time.perf_counter() if started_at is None else started_at
    folder = Path(out) if out is not None else default_folder(data, recipe, experiment)
    changes, allowed = separate_functions(changes, allow_code, recipe)
    plans = _resolve_plans(data, folder, recipe, resume, experiment, changes, allowed)
    # The devices are those of the first unfinished run, or of the first run if all are finished.
    unfinished = [plan for name, plan in plans.items() if not Run(folder / name).is_finished]
    fabric = build_fabric("float32", [*unfinished, *plans.values()][0].recipe.machine)
    launch(fabric)
    show = show_line if is_rank_zero() else print_line
    with ExitStack() as locks:
        # The other processes find the runs that rank 0 has created, so they resume.
        with rank_zero_first(fabric):
            run_plans = plan_runs(data, folder, plans, resume or not is_rank_zero(), allowed, locks, show)
        _fit_runs(run_plans, after_epoch, started_at)
    return [run_plan.run for run_plan in run_plans]


def _fit_runs(run_plans: Sequence[RunPlan], after_epoch: Callable[[Run], object] | None, started_at: float) -> None:
    """Train and evaluate the runs that are not finished; the clock of the first has been running since `started_at`."""
    for run_plan in run_plans:
        run = run_plan.run
        if run.is_finished:
            continue
        table = run_plan.prepared.table
        store = run_plan.prepared.store
        fabric = build_fabric(run_plan.recipe.training.precision, run_plan.recipe.machine)
        launch(fabric)
        fit(run, table, store, fabric, after_epoch, run_plan.custom_transform, time.perf_counter() - started_at)
        classifier = Classifier.load(run.weights_path)
        predictions = predict_table(classifier, table, store, run_plan.recipe, fabric)
        with rank_zero_guard(fabric):
            if is_rank_zero():
                evaluate_run(run, classifier, table, store, predictions)
        started_at = time.perf_counter()


def default_folder(data: Path | str, recipe: str | Path | Recipe | None, experiment: str = "") -> Path:
    """Return the default folder of the runs: `runs/<data>-<recipe>`, followed by `-<experiment>` if that is set."""
    name = recipe.name if isinstance(recipe, Recipe) else Path(recipe).stem if recipe else "custom"
    return Path("runs") / "-".join(filter(None, [Path(data).resolve().name, name, experiment]))


def prepare_data(data: Path | str, recipe: Recipe, show_line: Callable[[str], object] = print_line) -> PreparedData:
    """Read, split, check and prepare a data set; reject faults that the recipe does not waive.

    The config of its Store has the bit depth of the training images.
    """
    table = read_and_split(data, recipe)
    validate_referable_grade(recipe.evaluation, table.classes)
    resolve_positive_class(recipe.data.positive, recipe.evaluation, table.classes, table.codes)
    DecisionRule.check(recipe.decision_rule, recipe.evaluation, len(table.classes))
    show_line(f"{len(table)} rows from {table.source}.")
    show_line(describe_groups(table))
    table, images = resolve_bit_depth(table, recipe.images)
    if images.bit_depth != recipe.images.bit_depth:
        show_line(table.findings[-1].message)
    return check_and_prepare(table, recipe.model_copy(update={"images": images}))


def plan_runs(
    data: Path | str,
    folder: Path,
    plans: dict[str, Plan],
    resume: bool,
    allowed: AllowedCode,
    locks: ExitStack,
    show_line: Callable[[str], object] = print_line,
) -> list[RunPlan]:
    """Resolve, validate, prepare and create all runs, so that a mistake in any of them stops all of them early.

    Rank 0 locks the unfinished runs until `locks` is closed.
    """
    stored = _read_stored_recipes(folder, plans, resume)
    plans = resolve_auto_init(plans, stored, show_line)
    resolved = {
        name: _resume_plan(Run(folder / name), plan, stored[name]) if name in stored else plan
        for name, plan in plans.items()
    }
    custom_transforms: dict[str, CustomTransform | None] = {}
    for name, plan in resolved.items():
        run = Run(folder / name)
        _validate_without_data(run, plan.recipe)
        if not run.is_finished:
            custom_transforms[name] = _load_custom_transform(run, plan.recipe, allowed)
    # Runs that agree in these sections share their rows and pixels.
    prepared_by_key: dict[tuple[Any, ...], PreparedData] = {}
    run_plans: list[RunPlan] = []
    for name, plan in resolved.items():
        recipe = plan.recipe
        key = (recipe.data, recipe.columns, recipe.split, recipe.images, recipe.seed)
        if key not in prepared_by_key:
            prepared_by_key[key] = prepare_data(data, recipe, show_line)
        prepared = prepared_by_key[key]
        recipe = recipe.model_copy(update={"images": prepared.store.config})
        fabric = build_fabric(recipe.training.precision, recipe.machine)
        plan = replace(plan, recipe=resolve_batch_size(recipe, fabric, prepared.table))
        run_plans.append(RunPlan(Run(folder / name), plan, prepared, custom_transforms.get(name)))
    for run_plan in run_plans:
        if not run_plan.run.is_finished:
            validate_select(run_plan.recipe.training.select, run_plan.prepared.table.count_classes("valid"))
            validate_feasible(run_plan.recipe, run_plan.prepared.table)
    for line in dict.fromkeys(map(_explain_missing_test_curve, run_plans)):
        if line:
            show_line(line)
    if is_rank_zero():
        locks.enter_context(lock_runs(run_plan.run for run_plan in run_plans if not run_plan.run.is_finished))
        for run_plan in run_plans:
            _create_run(run_plan, data)
    return run_plans


def _explain_missing_test_curve(run_plan: RunPlan) -> str:
    """Return why a run that asks for a test curve gets none; empty if it gets one, or is finished."""
    if run_plan.run.is_finished or not run_plan.recipe.training.test_curve:
        return ""
    table = run_plan.prepared.table
    return explain_missing_test_curve(table.splits, [split for split in table.splits if table.is_labeled(split)])


def validate_select(select: str, class_counts: Mapping[str, int]) -> None:
    """Reject a selection metric that is undefined on the validation split, given its images per class."""
    missing = [name for name, count in class_counts.items() if not count]
    if len(class_counts) - len(missing) < get_metric(select).needs_classes:
        raise UsageError(
            f"select={select} needs two classes on the validation split, which has no image of "
            f"{join_limited(missing)}. Use select=accuracy or select=loss, or change the split."
        )


def validate_feasible(recipe: Recipe, table: Table) -> None:
    """Reject sampling factors that select no image, and a batch size too small for the processes or for batch norm."""
    config = recipe.training
    kept_class = find_kept_class(config, table.codes, table.classes)
    n_images = int(compute_samples_per_class(np.bincount(table.get_labels("train")), config, 0, kept_class).sum())
    if not n_images:
        factors = ", ".join(map(str, config.factors))
        raise UsageError(f"factors={factors} select no image of the training split. Choose larger factors.")
    n_processes = math.prod(resolve_devices(recipe.machine))
    check_batch_covers_processes(n_images, config.batch_size, n_processes)
    # Batch norm cannot train on a single value for each channel: on an image whose last feature map is 1×1.
    architecture = resolve_architecture(recipe.network.model, stem=recipe.network.stem)
    final_map_is_1x1 = recipe.views.crop_size <= architecture.output_stride
    batch_norm_trains = config.head != "probe" and (config.freeze != "head" or config.unfreeze_every)
    statistics_are_shared = config.sync_batchnorm and n_processes > 1
    if final_map_is_1x1 and batch_norm_trains and not statistics_are_shared:
        reason = (
            f"with crop_size={recipe.views.crop_size} the last feature map is 1×1, "
            "and batch norm then needs two images on each device"
        )
        check_batch_size(n_images, config.batch_size, 2 * n_processes, reason, "choose a larger crop_size")


def _resolve_plans(
    data: Path | str,
    folder: Path,
    recipe: str | Path | Recipe | None,
    resume: bool,
    experiment: str,
    changes: dict[str, Any],
    allowed: AllowedCode,
) -> dict[str, Plan]:
    """Return the recipe of each run by name, with reasons where it was planned from the data."""
    # A function that is passed to resume a run does not change its recipe, which names it.
    keeps_recipes = all(
        _short_key(key) in MachineConfig.model_fields or (isinstance(value, str) and value in allowed.functions)
        for key, value in changes.items()
    )
    if resume and recipe in (None, AUTO) and keeps_recipes and not experiment:
        existing = {run.name: Plan(load_recipe(run.recipe, **changes)) for run in find_runs(folder)}
        if existing:
            return existing
        if recipe is None:
            raise ParfocalError(f"{folder} contains no run to resume. Start one without resume.")
    if recipe == AUTO:
        models = {run.recipe.network.model for run in find_runs(folder)} if resume else set[str]()
        if len(models) == 1 and "model" not in map(_short_key, changes):
            # Runs are named after their networks, and on another device another network may be planned.
            changes = {**changes, "model": models.pop()}
        return plan_variants(data, experiment, **changes)
    recipes = expand_recipes(recipe, experiment=experiment, **changes)
    return {name: Plan(variant) for name, variant in recipes.items()}


def _read_stored_recipes(folder: Path, names: Iterable[str], resume: bool) -> dict[str, Recipe]:
    """Return the recipes of the runs that exist already, by name; without `resume` there must be none."""
    existing = [run for run in map(Run, map(folder.joinpath, names)) if file_exists(run.folder / "recipe.yaml")]
    if existing and not resume:
        raise ParfocalError(
            f"{existing[0].folder} already contains a run. Continue it with resume, or choose another out folder."
        )
    return {run.name: run.recipe for run in existing}


def _resume_plan(run: Run, plan: Plan, stored: Recipe) -> Plan:
    """Return the plan with the stored recipe of a run, after checking that the plan agrees with it."""
    recipe = plan.recipe
    if not recipe.training.batch_size:
        recipe = load_recipe(recipe, batch_size=stored.training.batch_size)
    if recipe.images.bit_depth is None:
        images = recipe.images.model_copy(update={"bit_depth": stored.images.bit_depth})
        recipe = recipe.model_copy(update={"images": images})
    # The machine may change, and values that were planned may differ.
    changes = ", ".join(
        f"{key} was {old}, now {new}"
        for key, (old, new) in find_differences(stored, recipe).items()
        if key not in ("name", "about") and not key.startswith("machine.")
        if not plan.reasons or _short_key(key) in plan.user_keys
    )
    if changes:
        raise UsageError(f"{run.folder} was started with another recipe: {changes}. Choose another out folder.")
    return replace(plan, recipe=stored.model_copy(update={"machine": recipe.machine}))


def _short_key(key: str) -> str:
    return key.rpartition(".")[2]


def _load_custom_transform(run: Run, recipe: Recipe, allowed: AllowedCode) -> CustomTransform | None:
    """Load the custom transform of a run; the recipe of a resumed run is that in its folder."""
    saved = run.folder / "recipe.yaml"
    if saved.exists():
        allowed = replace(allowed, recipe_file=str(saved))
    return load_custom_transform(recipe.views.custom_transform, allowed)


def _validate_without_data(run: Run, recipe: Recipe) -> None:
    """Reject frozen stages that do not exist, loggers that are not installed, and missing weights."""
    validate_freeze(recipe)
    validate_loggers(recipe.machine.loggers)
    if run.has_checkpoint:
        return
    try:
        validate_initial_weights(recipe.network)
    except UsageError as error:
        steps = find_prerequisites(recipe)
        first = f" Before {recipe.name}, run: {'; '.join(steps)}." if steps else ""
        raise UsageError(f"{error}{first}") from None


def _create_run(run_plan: RunPlan, data: Path | str) -> None:
    """Write the files that describe a run; if it has a checkpoint, only update its environment and recipe.

    A finished run stays as it is.
    """
    run = run_plan.run
    recipe = run_plan.recipe
    table = run_plan.prepared.table
    with explain_write_errors(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
    has_checkpoint = run.has_checkpoint
    pixel_digests = list_pixel_digests(table, run_plan.prepared.store)
    if has_checkpoint:
        if not Table.load(run).rows.equals(table.rows):
            raise ParfocalError(
                f"The rows of {data} differ from those that {run.folder} was started with. Start a new run."
            )
        check_same_pixels(run, pixel_digests)
    if run.is_finished:
        return
    create_manifest(run.folder)
    if has_checkpoint:
        environment = run.read_environment()
        earlier = environment.get("resumed", [])
        now = describe_environment(recipe)
        if changes := describe_changes([environment, *earlier][-1], now):
            print_warning(f"{run.name}: {changes}")
        resumed = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), **now}
        run.write_environment({**environment, "resumed": [*earlier, resumed]})
    else:
        table.save(run.table_path, pixel_digests)
        write_preview(run.views_path, table, run_plan.prepared.store, recipe, run_plan.custom_transform)
        facts = {
            "folder": str(Path(data).resolve()),
            "source": table.source,
            "classes": list(table.classes),
            "codes": list(table.codes),
            "counts": {split: table.count_classes(split) for split in table.splits if table.is_labeled(split)},
            "rows": {split: len(table.get_positions(split)) for split in table.splits},
            "groups": {split: table.get_rows(split)["group"].nunique() for split in table.splits},
            "groups_are": table.groups_are,
            "findings": [finding.as_dict() for finding in run_plan.prepared.findings],
        }
        run.write_environment({**describe_environment(recipe), "data": facts})
        # A run that is resumed before its first checkpoint keeps its recipe, and so its reasons.
        if run_plan.plan.reasons and not run.plan_path.exists():
            write_text(run.plan_path, run_plan.plan.to_markdown())
    recipe.save(run.folder / "recipe.yaml")
