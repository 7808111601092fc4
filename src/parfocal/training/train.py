"""From a folder of labelled images to trained and judged runs: read, check, prepare, then fit each recipe."""

import platform
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import parfocal
from parfocal.data.checks import PreparedData, check_and_prepare
from parfocal.data.preview import write_preview
from parfocal.data.split import read_and_split
from parfocal.data.table import Table
from parfocal.engine.device import build_fabric
from parfocal.engine.distributed import is_rank_zero, launch, rank_zero_first, rank_zero_guard
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.evaluate import evaluate_run, predict_table
from parfocal.evaluation.operating_point import validate_referable_grade
from parfocal.io import explain_write_errors, write_text
from parfocal.models.classifier import Classifier
from parfocal.models.pretrained import validate_initial_weights
from parfocal.recipe import Recipe, expand_recipes, find_differences
from parfocal.recipe import load_recipe as find_recipe
from parfocal.recipe_file import AUTO
from parfocal.reported import find_prerequisites
from parfocal.run import Run, find_runs
from parfocal.schema import MachineConfig
from parfocal.training.autoconfig import Plan, plan_variants
from parfocal.training.batch_size import resolve_batch_size
from parfocal.training.early_stopping import validate_select
from parfocal.training.feasibility import validate_feasible
from parfocal.training.loggers import validate_loggers
from parfocal.training.optim import validate_freeze
from parfocal.training.trainer import fit


def train(
    data: Path | str,
    recipe: str | Path | Recipe | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    experiment: str = "",
    after_epoch: Callable[[Run], object] | None = None,
    **changes: Any,
) -> list[Run]:
    """Train one run for each combination of the values in `changes`, judge them, and return them.

    `data` is a folder, sheet or `.npz` file in one of the known layouts. The runs lie below `out`, one folder each.
    An `experiment` of the recipe brings values of its own, which `changes` override. With the recipe `auto` each run
    is planned from the data, and its folder holds the reasons. With `resume`, runs that were begun there are gone on
    with and finished ones are left as they are; without a recipe, theirs is taken, of which only the `machine` may
    change. `after_epoch` is called with the run after each epoch, by one process.
    """
    folder = Path(out) if out is not None else default_folder(data, recipe, experiment)
    wanted = _resolve_plans(data, folder, recipe, resume, experiment, changes)
    fabric = build_fabric("float32", _machine_config(folder, wanted))
    launch(fabric)
    ready: dict[tuple[Any, ...], PreparedData] = {}
    runs = rank_zero_first(fabric, lambda: _open_runs(folder, wanted, data, resume or not is_rank_zero(), ready))
    for run in runs:
        if not run.is_finished:
            prepared = ready[_data_key(run.recipe)]
            fabric = build_fabric(run.recipe.training.precision, run.recipe.machine)
            launch(fabric)
            fit(run, prepared.table, prepared.store, fabric, after_epoch)
            classifier = Classifier.load(run.weights_path)
            said = predict_table(classifier, prepared.table, prepared.store, run.recipe, fabric)
            with rank_zero_guard(fabric):
                if is_rank_zero():
                    evaluate_run(run, classifier, prepared.table, prepared.store, said)
    return runs


def _open_runs(
    folder: Path,
    plans_by_run: dict[str, Plan],
    data: Path | str,
    resume: bool,
    prepared_by_key: dict[tuple[Any, ...], PreparedData],
) -> list[Run]:
    """Make the runs' folders, or find them begun; put what each trains on in `ready`. Refuse before any long work."""
    for plan in plans_by_run.values():
        validate_freeze(plan.recipe)
        validate_loggers(plan.recipe.machine.loggers)
    runs = [Run(folder / name) for name in plans_by_run]
    settled = [_resolve_recipe(run, plan, resume) for run, plan in zip(runs, plans_by_run.values(), strict=True)]
    for run, one in zip(runs, settled, strict=True):
        if not run.checkpoint_path.exists():
            _validate_initial_weights(one)
    for one in settled:
        if _data_key(one) not in prepared_by_key:
            prepared_by_key[_data_key(one)] = prepare_data(data, one)
    settled = [_resolve_batch_size(one, prepared_by_key[_data_key(one)].table) for one in settled]
    for run, one in zip(runs, settled, strict=True):
        if not run.is_finished:
            table = prepared_by_key[_data_key(one)].table
            validate_select(one.training.select, table.count_classes("valid"))
            validate_feasible(one, table)
    for run, one in zip(runs, settled, strict=True):
        if is_rank_zero():
            _create_run(run, Plan(one, plans_by_run[run.name].reasons), prepared_by_key[_data_key(one)], data)
    # A run knows its recipe from when it was first asked, which may have been before its machine changed.
    return [Run(run.folder) for run in runs]


def _machine_config(folder: Path, plans_by_run: dict[str, Plan]) -> MachineConfig:
    """Return where the runs are trained: as the first says that is not finished, for finished ones keep their own."""
    left = [plan.recipe.machine for name, plan in plans_by_run.items() if not Run(folder / name).is_finished]
    return left[0] if left else next(iter(plans_by_run.values())).recipe.machine


def _validate_initial_weights(recipe: Recipe) -> None:
    """Refuse a start that is not there; where the recipe says how to come by it, say that too."""
    try:
        validate_initial_weights(recipe.network)
    except UsageError as error:
        steps = find_prerequisites(recipe)
        raise UsageError(f"{error} {recipe.name} needs before: {'; '.join(steps)}." if steps else str(error)) from None


def default_folder(data: Path | str, recipe: str | Path | Recipe | None, experiment: str = "") -> Path:
    """Return where runs go when nothing is said: `runs/<data>-<recipe>`, and `-<experiment>` where there is one."""
    name = recipe.name if isinstance(recipe, Recipe) else Path(recipe).stem if recipe else "custom"
    return Path("runs") / "-".join(filter(None, [Path(data).resolve().name, name, experiment]))


def prepare_data(data: Path | str, recipe: Recipe) -> PreparedData:
    """Read, split, check and prepare a data folder; refuse one with faults that the recipe does not waive."""
    table = read_and_split(data, recipe)
    validate_referable_grade(recipe.evaluation, table.classes)
    return check_and_prepare(table, recipe)


def _data_key(recipe: Recipe) -> tuple[Any, ...]:
    """Return what decides a run's rows and pixels; runs that agree in it share them."""
    return (recipe.data, recipe.columns, recipe.split, recipe.images, recipe.seed)


def _resolve_plans(
    data: Path | str,
    folder: Path,
    recipe: str | Path | Recipe | None,
    resume: bool,
    experiment: str,
    changes: dict[str, Any],
) -> dict[str, Plan]:
    """Return the recipe of each run, by name, with reasons where it was planned."""
    of_the_machine = all(_short_key(key) in MachineConfig.model_fields for key in changes)
    if resume and recipe in (None, AUTO) and of_the_machine and not experiment:
        begun = {run.name: Plan(find_recipe(run.recipe, **changes)) for run in find_runs(folder)}
        if begun:
            return begun
        if recipe is None:
            raise ParfocalError(f"{folder} holds no run to go on with. Start one without --resume.")
    if recipe == AUTO:
        models = {run.recipe.network.model for run in find_runs(folder)} if resume else set[str]()
        if len(models) == 1 and "model" not in map(_short_key, changes):
            # Runs are called after their networks, and another device may plan another network.
            changes = {**changes, "model": models.pop()}
        return plan_variants(data, experiment, **changes)
    return {name: Plan(one) for name, one in expand_recipes(recipe, experiment=experiment, **changes).items()}


def _resolve_batch_size(recipe: Recipe, table: Table) -> Recipe:
    return resolve_batch_size(recipe, build_fabric(recipe.training.precision, recipe.machine), table)


def _resolve_recipe(run: Run, plan: Plan, resume: bool) -> Recipe:
    """Return a run's recipe, if its folder is free or holds a run of the same that is gone on with."""
    recipe = plan.recipe
    if not (run.folder / "recipe.yaml").exists():
        return recipe
    if not recipe.training.batch_size:
        recipe = find_recipe(recipe, batch=run.recipe.training.batch_size)
    if not resume:
        raise ParfocalError(f"{run.folder} holds a run already. Go on with --resume, or choose another --out.")
    changed = {key: values for key, values in find_differences(run.recipe, recipe).items() if _must_match(key, plan)}
    if changed:
        lines = ", ".join(f"{key} was {old}, now {new}" for key, (old, new) in changed.items())
        raise UsageError(f"{run.folder} was begun with another recipe: {lines}. Choose another --out.")
    return run.recipe.model_copy(update={"machine": recipe.machine})


def _must_match(key: str, plan: Plan) -> bool:
    """Say whether a run cannot go on where this key is another; what a plan chose may be, for it was measured anew."""
    described = key in ("name", "about") or key.startswith("machine.")
    return not described and (not plan.reasons or _short_key(key) in plan.user_keys)


def _short_key(key: str) -> str:
    return key.rpartition(".")[2]


def _create_run(run: Run, plan: Plan, prepared: PreparedData, data: Path | str) -> None:
    """Write what the run is made of; of one that has saved something, only where it goes on, if its rows are the same.

    A finished run stays as it is.
    """
    with explain_write_errors(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
    begun = run.checkpoint_path.exists()
    if begun and not Table.load(run).rows.equals(prepared.table.rows):
        raise ParfocalError(f"The rows of {data} are not those that {run.folder} was begun with. Start a new run.")
    if run.is_finished:
        return
    if begun:
        environment = run.read_environment()
        here = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), **_describe_environment(plan.recipe)}
        run.write_environment({**environment, "gone_on": [*environment.get("gone_on", []), here]})
    else:
        prepared.table.save(run.table_path)
        write_preview(run.folder / "views.png", prepared.table, prepared.store, plan.recipe)
        run.write_environment({**_describe_environment(plan.recipe), "data": _describe_data(prepared, data)})
        # Going on before anything was saved keeps the recipe, and so its reasons.
        if plan.reasons and not run.plan_path.exists():
            write_text(run.plan_path, plan.to_markdown())
    plan.recipe.save(run.folder / "recipe.yaml")


def _describe_environment(recipe: Recipe) -> dict[str, Any]:
    """Return where and with what a recipe is trained here."""
    fabric = build_fabric(recipe.training.precision)
    device = (
        torch.cuda.get_device_name() if fabric.device.type == "cuda" else platform.processor() or platform.machine()
    )
    packages = ("torch", "lightning-fabric", "opencv-python-headless", "numpy", "scikit-learn")
    return {
        "parfocal": parfocal.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "precision": "bf16" if "bf16" in fabric._precision.precision else "float32",
        "packages": {name: version(name) for name in packages},
        "seed": recipe.seed,
        "recipe_digest": recipe.compute_hash(),
    }


def _describe_data(prepared: PreparedData, data: Path | str) -> dict[str, Any]:
    """Return what is known about the data that a run is made of."""
    table = prepared.table
    return {
        "folder": str(Path(data).resolve()),
        "source": table.source,
        "classes": list(table.classes),
        "codes": list(table.codes),
        "counts": {split: table.count_classes(split) for split in table.splits if table.is_labeled(split)},
        "rows": {split: len(table.get_positions(split)) for split in table.splits},
        "groups": {split: table.get_rows(split)["group"].nunique() for split in table.splits},
        "findings": [one.as_dict() for one in prepared.findings],
    }
