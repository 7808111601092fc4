"""Log a run's recipe and the metrics of each epoch to TensorBoard, MLflow or Weights & Biases."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeAlias

from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from parfocal.engine.distributed import rank_zero_guard
from parfocal.errors import ParfocalError, UsageError
from parfocal.io import reject_link
from parfocal.progress import print_warning
from parfocal.recipe import hash_content
from parfocal.recipe_schema import LoggerName
from parfocal.run import Run

_PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb"}


def validate_loggers(names: tuple[LoggerName, ...]) -> None:
    """Reject loggers whose packages are not installed."""
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"loggers={name} needs the package {_PACKAGES[name]}: pip install 'parfocal[track]'.")


@contextmanager
def open_loggers(run: Run, fabric: Fabric) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open the recipe's loggers in the first process; yield a function that logs an epoch's row of the history.

    A logger that cannot be opened raises an error. A logger that fails later is dropped with a warning.
    """
    loggers: dict[str, _Logger] = {}
    with rank_zero_guard(fabric):
        if fabric.is_global_zero:
            for name in run.recipe.machine.loggers:
                loggers[name] = _open_logger(name, run)

    def log_epoch(row: Mapping[str, Any]) -> None:
        metrics = {
            _format_metric_name(key): float(value) for key, value in row.items() if value is not None and key != "epoch"
        }
        for name, logger in list(loggers.items()):
            try:
                logger.log_metrics(metrics, step=row["epoch"])
            # Whatever a logger's package raises must not end the training.
            except Exception as error:
                del loggers[name]
                print_warning(f"{run.name} is no longer logged to {name}: {_first_line(error)}")

    status = "failed"
    try:
        yield log_epoch
        status = "success"
    finally:
        for logger in loggers.values():
            logger.finalize(status)


def _open_logger(name: LoggerName, run: Run) -> "_Logger":
    """Open a logger, and log the recipe."""
    try:
        reject_link(run.folder / name)
        if name == "mlflow":
            return _MlflowLogger(run)
        if name == "wandb":
            return _WandbLogger(run)
        logger = TensorBoardLogger(run.folder, name="tensorboard", version="")
        logger.log_hyperparams(run.recipe.model_dump(mode="json"))
    except Exception as error:
        raise ParfocalError(f"loggers={name} cannot be opened: {_first_line(error)}") from error
    return logger


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _format_metric_name(column: str) -> str:
    """Turn a column of the history into a name that every logger accepts: `valid_loss` into `valid/loss`."""
    if not column.startswith(("train_", "valid_", "test_")):
        return column
    return column.replace(":", "/").replace("_", "/", 1)


def _run_id(run: Run) -> str:
    """Return an identifier that stays the same when the run is resumed, on any machine."""
    choices = run.recipe.model_dump(mode="json", exclude={"machine"})
    return f"{hash_content(choices)}-{run.folder.resolve().parent.name}-{run.name}"


class _MlflowLogger:
    """An MLflow run, in the experiment named after the folder of the runs; a resumed run continues it."""

    def __init__(self, run: Run) -> None:
        # MLflow reports each use to its makers, unless this is set before the import.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        self._client = mlflow.MlflowClient()
        name = run.folder.resolve().parent.name
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        existing = self._client.search_runs([experiment_id], f"tags.parfocal = '{_run_id(run)}'", max_results=1)
        tags = {"parfocal": _run_id(run)}
        mlflow_run = existing[0] if existing else self._client.create_run(experiment_id, run_name=run.name, tags=tags)
        self._id = mlflow_run.info.run_id
        self._client.update_run(self._id, "RUNNING")
        # MLflow rejects a new value for a parameter, and the keys of `machine` may change in a resumed run.
        logged = self._client.get_run(self._id).data.params
        for section, content in run.recipe.model_dump(mode="json").items():
            values = content.items() if isinstance(content, Mapping) else [("", content)]
            for key, value in values:
                name = f"{section}.{key}".rstrip(".")
                if name not in logged:
                    self._client.log_param(self._id, name, value)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for key, value in metrics.items():
            self._client.log_metric(self._id, key, value, step=step)

    def finalize(self, status: str) -> None:
        self._client.set_terminated(self._id, "FINISHED" if status == "success" else "FAILED")


class _WandbLogger:
    """A Weights & Biases run, in the project named after the folder of the runs; a resumed run continues it."""

    def __init__(self, run: Run) -> None:
        import wandb

        project = run.folder.resolve().parent.name
        self._run = wandb.init(project=project, name=run.name, id=_run_id(run), dir=run.folder, resume="allow")
        self._run.config.update(run.recipe.model_dump(mode="json"), allow_val_change=True)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "success" else 1)


_Logger: TypeAlias = TensorBoardLogger | _MlflowLogger | _WandbLogger
