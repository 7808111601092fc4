"""From a folder of labelled images to trained and judged runs: read, check, prepare, then fit each recipe."""

import platform
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import parfocal
from parfocal.data.mosaic import write_mosaic
from parfocal.data.prepared import Prepared, made_ready
from parfocal.data.split import read_with_splits
from parfocal.data.table import Table
from parfocal.documented import before
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.evaluate import judge_run, predict_table
from parfocal.evaluation.inference import fabric_for
from parfocal.evaluation.referable import require_grade
from parfocal.files import explained, write_text
from parfocal.model.classifier import Classifier
from parfocal.model.starts import require_start
from parfocal.parts import MachinePart
from parfocal.recipe import Recipe, differences, variants
from parfocal.recipe import recipe as find_recipe
from parfocal.recipe_file import AUTO
from parfocal.run import Run, runs_in
from parfocal.training.batch_size import with_batch
from parfocal.training.patience import require_known
from parfocal.training.plan import Plan, plans
from parfocal.training.possible import require_possible
from parfocal.training.processes import first, is_first, launch, led_by_first
from parfocal.training.stages import require_stage
from parfocal.training.trackers import require_trackers
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
    wanted = _wanted(data, folder, recipe, resume, experiment, changes)
    fabric = fabric_for("float32", _machine(folder, wanted))
    launch(fabric)
    ready: dict[tuple[Any, ...], Prepared] = {}
    runs = first(fabric, lambda: _opened(folder, wanted, data, resume or not is_first(), ready))
    for run in runs:
        if not run.finished:
            prepared = ready[_data_key(run.recipe)]
            fabric = fabric_for(run.recipe.training.precision, run.recipe.machine)
            launch(fabric)
            fit(run, prepared.table, prepared.store, fabric, after_epoch)
            classifier = Classifier.load(run.weights)
            said = predict_table(classifier, prepared.table, prepared.store, run.recipe, fabric)
            with led_by_first(fabric):
                if is_first():
                    judge_run(run, classifier, prepared.table, prepared.store, said)
    return runs


def _opened(
    folder: Path, wanted: dict[str, Plan], data: Path | str, resume: bool, ready: dict[tuple[Any, ...], Prepared]
) -> list[Run]:
    """Make the runs' folders, or find them begun; put what each trains on in `ready`. Refuse before any long work."""
    for plan in wanted.values():
        require_stage(plan.recipe)
        require_trackers(plan.recipe.machine.track)
    runs = [Run(folder / name) for name in wanted]
    settled = [_settled(run, plan, resume) for run, plan in zip(runs, wanted.values(), strict=True)]
    for run, one in zip(runs, settled, strict=True):
        if not run.checkpoint.exists():
            _require_start(one)
    for one in settled:
        if _data_key(one) not in ready:
            ready[_data_key(one)] = prepare_data(data, one)
    settled = [_with_batch(one, ready[_data_key(one)].table) for one in settled]
    for run, one in zip(runs, settled, strict=True):
        if not run.finished:
            table = ready[_data_key(one)].table
            require_known(one.training.select, table.counts("valid"))
            require_possible(one, table)
    for run, one in zip(runs, settled, strict=True):
        if is_first():
            _begin(run, Plan(one, wanted[run.name].reasons), ready[_data_key(one)], data)
    # A run knows its recipe from when it was first asked, which may have been before its machine changed.
    return [Run(run.folder) for run in runs]


def _machine(folder: Path, wanted: dict[str, Plan]) -> MachinePart:
    """Return where the runs are trained: as the first says that is not finished, for finished ones keep their own."""
    left = [plan.recipe.machine for name, plan in wanted.items() if not Run(folder / name).finished]
    return left[0] if left else next(iter(wanted.values())).recipe.machine


def _require_start(recipe: Recipe) -> None:
    """Refuse a start that is not there; where the recipe says how to come by it, say that too."""
    try:
        require_start(recipe.network)
    except UsageError as error:
        steps = before(recipe)
        raise UsageError(f"{error} {recipe.name} needs before: {'; '.join(steps)}." if steps else str(error)) from None


def default_folder(data: Path | str, recipe: str | Path | Recipe | None, experiment: str = "") -> Path:
    """Return where runs go when nothing is said: `runs/<data>-<recipe>`, and `-<experiment>` where there is one."""
    name = recipe.name if isinstance(recipe, Recipe) else Path(recipe).stem if recipe else "custom"
    return Path("runs") / "-".join(filter(None, [Path(data).resolve().name, name, experiment]))


def prepare_data(data: Path | str, recipe: Recipe) -> Prepared:
    """Read, split, check and prepare a data folder; refuse one with faults that the recipe does not waive."""
    table = read_with_splits(data, recipe)
    require_grade(recipe.judgement, table.classes)
    return made_ready(table, recipe)


def _data_key(recipe: Recipe) -> tuple[Any, ...]:
    """Return what decides a run's rows and pixels; runs that agree in it share them."""
    return (recipe.data, recipe.columns, recipe.split, recipe.images, recipe.seed)


def _wanted(
    data: Path | str,
    folder: Path,
    recipe: str | Path | Recipe | None,
    resume: bool,
    experiment: str,
    changes: dict[str, Any],
) -> dict[str, Plan]:
    """Return the recipe of each run, by name, with reasons where it was planned."""
    of_the_machine = all(_short(key) in MachinePart.model_fields for key in changes)
    if resume and recipe in (None, AUTO) and of_the_machine and not experiment:
        begun = {run.name: Plan(find_recipe(run.recipe, **changes)) for run in runs_in(folder)}
        if begun:
            return begun
        if recipe is None:
            raise ParfocalError(f"{folder} holds no run to go on with. Start one without --resume.")
    if recipe == AUTO:
        models = {run.recipe.network.model for run in runs_in(folder)} if resume else set[str]()
        if len(models) == 1 and "model" not in map(_short, changes):
            # Runs are called after their networks, and another device may plan another network.
            changes = {**changes, "model": models.pop()}
        return plans(data, experiment, **changes)
    return {name: Plan(one) for name, one in variants(recipe, experiment=experiment, **changes).items()}


def _with_batch(recipe: Recipe, table: Table) -> Recipe:
    return with_batch(recipe, fabric_for(recipe.training.precision, recipe.machine), table)


def _settled(run: Run, plan: Plan, resume: bool) -> Recipe:
    """Return a run's recipe, if its folder is free or holds a run of the same that is gone on with."""
    recipe = plan.recipe
    if not (run.folder / "recipe.yaml").exists():
        return recipe
    if not recipe.training.batch:
        recipe = find_recipe(recipe, batch=run.recipe.training.batch)
    if not resume:
        raise ParfocalError(f"{run.folder} holds a run already. Go on with --resume, or choose another --out.")
    changed = {key: values for key, values in differences(run.recipe, recipe).items() if _decides(key, plan)}
    if changed:
        lines = ", ".join(f"{key} was {old}, now {new}" for key, (old, new) in changed.items())
        raise UsageError(f"{run.folder} was begun with another recipe: {lines}. Choose another --out.")
    return run.recipe.model_copy(update={"machine": recipe.machine})


def _decides(key: str, plan: Plan) -> bool:
    """Say whether a run cannot go on where this key is another; what a plan chose may be, for it was measured anew."""
    described = key in ("name", "about") or key.startswith("machine.")
    return not described and (not plan.reasons or _short(key) in plan.said)


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _begin(run: Run, plan: Plan, prepared: Prepared, data: Path | str) -> None:
    """Write what the run is made of; of one that has saved something, only where it goes on, if its rows are the same.

    A finished run stays as it is.
    """
    with explained(run.folder):
        run.folder.mkdir(parents=True, exist_ok=True)
    begun = run.checkpoint.exists()
    if begun and not Table.load(run).rows.equals(prepared.table.rows):
        raise ParfocalError(f"The rows of {data} are not those that {run.folder} was begun with. Start a new run.")
    if run.finished:
        return
    if begun:
        environment = run.environment()
        here = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), **_surroundings(plan.recipe)}
        run.write_environment({**environment, "gone_on": [*environment.get("gone_on", []), here]})
    else:
        prepared.table.save(run.table)
        write_mosaic(run.folder / "views.png", prepared.table, prepared.store, plan.recipe)
        run.write_environment({**_surroundings(plan.recipe), "data": _about(prepared, data)})
        # Going on before anything was saved keeps the recipe, and so its reasons.
        if plan.reasons and not run.plan.exists():
            write_text(run.plan, plan.markdown())
    plan.recipe.save(run.folder / "recipe.yaml")


def _surroundings(recipe: Recipe) -> dict[str, Any]:
    """Return where and with what a recipe is trained here."""
    fabric = fabric_for(recipe.training.precision)
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
        "recipe_digest": recipe.digest(),
    }


def _about(prepared: Prepared, data: Path | str) -> dict[str, Any]:
    """Return what is known about the data that a run is made of."""
    table = prepared.table
    return {
        "folder": str(Path(data).resolve()),
        "source": table.source,
        "classes": list(table.classes),
        "codes": list(table.codes),
        "counts": {split: table.counts(split) for split in table.splits if table.labelled(split)},
        "rows": {split: len(table.positions(split)) for split in table.splits},
        "groups": {split: table.of(split)["group"].nunique() for split in table.splits},
        "findings": [one.as_dict() for one in prepared.findings],
    }
