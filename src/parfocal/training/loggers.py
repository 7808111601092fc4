"""Telling TensorBoard, MLflow or Weights & Biases of a run's recipe and of each epoch's figures."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from lightning_fabric.utilities.rank_zero import rank_zero_only

from parfocal.engine.distributed import rank_zero_guard
from parfocal.errors import ParfocalError, UsageError
from parfocal.progress import print_line
from parfocal.recipe import hash_content
from parfocal.run import Run
from parfocal.schema import LoggerName

_PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb"}


@contextmanager
def open_loggers(run: Run, fabric: Fabric) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open the recipe's trackers; yield what tells them of an epoch's row of the history.

    One that cannot be opened is an error; one that is lost on the way is named, and training goes on without it.
    """
    with rank_zero_guard(fabric):
        loggers = (
            {name: _open_logger(name, run) for name in run.recipe.machine.loggers} if fabric.is_global_zero else {}
        )

    def tell(row: Mapping[str, Any]) -> None:
        figures = {
            _format_metric_name(key): float(value) for key, value in row.items() if value is not None and key != "epoch"
        }
        for name, logger in list(loggers.items()):
            try:
                logger.log_metrics(figures, step=row["epoch"])
            # Whatever a tracker's package raises, a network that is being trained is worth more.
            except Exception as error:
                del loggers[name]
                print_line(f"Warning: {name} is told no more of {run.name}: {_first_line(error)}")

    try:
        yield tell
    except BaseException:
        for logger in loggers.values():
            logger.finalize("failed")
        raise
    for logger in loggers.values():
        logger.finalize("success")


def _open_logger(name: LoggerName, run: Run) -> Logger:
    try:
        logger = _build_logger(name, run)
        logger.log_hyperparams(run.recipe.model_dump(mode="json"))
    except Exception as error:
        raise ParfocalError(f"loggers={name} cannot be opened: {_first_line(error)}") from error
    return logger


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def validate_loggers(names: tuple[LoggerName, ...]) -> None:
    """Refuse trackers whose packages are not installed, before any work."""
    from importlib.util import find_spec

    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"loggers={name} needs the package {_PACKAGES[name]}: pip install 'parfocal[track]'.")


def _build_logger(name: LoggerName, run: Run) -> Logger:
    if name == "tensorboard":
        return TensorBoardLogger(run.folder, name="tensorboard", version="")
    return MlflowLogger(run) if name == "mlflow" else WandbLogger(run)


def _format_metric_name(key: str) -> str:
    """Write a column's name with the letters that every tracker takes."""
    return key.replace(":", "/").replace("_", "/", 1) if key.startswith(("train_", "valid_", "test_")) else key


class MlflowLogger(Logger):
    """An MLflow run beside ours, in the experiment called after the folder of runs; going on goes on with it."""

    def __init__(self, run: Run) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        name = run.folder.resolve().parent.name
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        known = self._client.search_runs([number], f"tags.parfocal = '{_run_id(run)}'", max_results=1)
        found = (
            known[0] if known else self._client.create_run(number, run_name=run.name, tags={"parfocal": _run_id(run)})
        )
        self._run, self._name = found.info.run_id, run.name
        self._client.update_run(self._run, "RUNNING")

    @property
    def name(self) -> str:
        """The run's name."""
        return self._name

    @property
    def version(self) -> str:
        """MLflow's own identifier."""
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Tell an epoch's figures."""
        for key, value in metrics.items():
            self._client.log_metric(self._run, key, value, step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Tell the recipe, one parameter a key; those of a run that is gone on with stay as they were."""
        # MLflow refuses another value, and keys of the machine may have one.
        known = self._client.get_run(self._run).data.params
        for part, value in params.items():
            for key, one in value.items() if isinstance(value, Mapping) else [("", value)]:
                if (name := f"{part}.{key}".rstrip(".")) not in known:
                    self._client.log_param(self._run, name, one)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the run."""
        self._client.set_terminated(self._run, "FINISHED" if status == "success" else "FAILED")


class WandbLogger(Logger):
    """A Weights & Biases run beside ours, in the project called after the folder of runs; going on goes on with it."""

    def __init__(self, run: Run) -> None:
        import wandb

        self._run = wandb.init(
            project=run.folder.resolve().parent.name,
            name=run.name,
            id=_run_id(run),
            dir=run.folder,
            resume="allow",
        )
        self._name = run.name

    @property
    def name(self) -> str:
        """The run's name."""
        return self._name

    @property
    def version(self) -> str:
        """Weights & Biases' own identifier."""
        return self._run.id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Tell an epoch's figures."""
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Tell the recipe."""
        self._run.config.update(dict(params), allow_val_change=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the run."""
        self._run.finish(exit_code=0 if status == "success" else 1)


def _run_id(run: Run) -> str:
    """Return what a tracker knows the run by: the same when it is gone on with, anywhere, another for another run."""
    choices = run.recipe.model_dump(mode="json", exclude={"machine"})
    return f"{hash_content(choices)}-{run.folder.resolve().parent.name}-{run.name}"
