"""The files of a run folder as data: their shapes, and errors that name the file where one is damaged.

A run may have been copied badly, edited, or written by somebody else. Types are checked when a file is read; a key that
is not there is an error when it is needed, so that a run of an older version can be read as far as it goes.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from parfocal.errors import ParfocalError
from parfocal.groups import GroupKind

Number = float | None


class DamagedFileError(ParfocalError):
    """A file of a run cannot be read, or is not what Parfocal wrote."""

    def __init__(self, path: Path, reason: str, remedy: str = "") -> None:
        remedy = remedy or "Restore it from a copy of the run, or train again."
        super().__init__(f"{path} is damaged: {reason}. {remedy}")


class StoredDict(dict[str, Any]):
    """A JSON object of a file; a key that is not there is an error that names the file."""

    def __init__(self, path: Path, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise DamagedFileError(self._path, f"it has no {key!r}")


class _Shape(BaseModel):
    """The types of a JSON object. Other keys are allowed, and no key is required unless every reader needs it."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Finding(_Shape):
    severity: str
    code: str
    message: str


class _DataFacts(_Shape):
    folder: str = ""
    source: str = ""
    classes: Annotated[list[str], Field(min_length=1)]
    codes: list[str] = []
    counts: dict[str, Annotated[dict[str, int], Field(min_length=1)]] = {}
    rows: dict[str, int] = {}
    groups: dict[str, int] = {}
    groups_are: GroupKind = "images"
    findings: list[_Finding] = []


class Environment(_Shape):
    """The content of environment.json."""

    python: str = ""
    device: str = ""
    precision: str = ""
    recipe_hash: str = ""
    packages: dict[str, str] = {}
    data: _DataFacts
    resumed: list[dict[str, Any]] = []


class _Intervals(_Shape):
    __pydantic_extra__: dict[str, Number | Annotated[list[float], Field(min_length=2, max_length=2)]]  # pyright: ignore
    groups: int
    per_class: dict[str, dict[str, Annotated[list[float], Field(min_length=2, max_length=2)] | None]] = {}


class _Metrics(_Shape):
    __pydantic_extra__: dict[str, Number]  # pyright: ignore
    count: int
    groups: int = 0
    labeled: bool
    classes: list[str] = []
    confusion: list[list[int]] = []
    per_class: dict[str, dict[str, Number]] = {}
    intervals: _Intervals | None = None
    reliability: list[dict[str, Number]] = []
    # Of an operating point.
    goal: str = ""
    positive: str = ""
    threshold: float = 0

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if self.labeled and (not self.classes or list(self.per_class) != self.classes):
            raise ValueError("per_class does not have the names in classes")
        if self.labeled and {len(self.classes)} != {len(self.confusion), *map(len, self.confusion)}:
            raise ValueError("confusion does not have a row and a column for each class")
        return self


class _Patients(_Shape):
    __pydantic_extra__: dict[str, _Metrics]  # pyright: ignore
    excluded: int


class _Calibration(_Shape):
    __pydantic_extra__: dict[str, Number]  # pyright: ignore
    reliability: list[dict[str, Number]] = []


class _Share(_Shape):
    value: Number
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None


class _Referral(_Shape):
    __pydantic_extra__: dict[str, Number | _Share]  # pyright: ignore


class _Decisions(_Shape):
    rule: str
    thresholds: list[float] = []
    by_rule: dict[Literal["likeliest", "mean", "thresholds", "cost"], dict[str, float]]


class _SplitMetrics(_Metrics):
    # A decision may have a section of any content, but a metric is a number.
    __pydantic_extra__: dict[str, Number | dict[str, Any]]  # pyright: ignore
    patients: _Patients | None = None
    referable: _Metrics | None = None
    calibration: _Calibration | None = None
    decisions: _Decisions | None = None
    operating_point: _Metrics | None = None
    referral: _Referral | None = None
    fellow_eyes: _Metrics | None = None

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        names = set(self.intervals.model_extra or {}) if self.intervals else set[str]()
        for name in names | {"majority_accuracy", "ece"}:
            if isinstance((self.model_extra or {}).get(name), dict):
                raise ValueError(f"{name} is not a number")
        return self


class _Alarm(_Shape):
    code: str = ""
    since: int
    until: int
    text: str


class _ChosenOnTest(_Shape):
    accuracy: float
    epoch: int


class RunMetrics(_Shape):
    """The content of metrics.json."""

    valid: _SplitMetrics | None = None
    test: _SplitMetrics | None = None
    best_epoch: int = 0
    epochs: int = 0
    selected_by: str = ""
    parameters: int = 0
    train_accuracy: float = 0
    images_per_second: float = 0
    waiting: float = 0
    seconds: float = 0
    alarms: list[_Alarm] = []
    chosen_on_test: _ChosenOnTest | None = None
    unreadable_images: list[str] = []


class InitialWeights(_Shape):
    """The content of initial_weights.json."""

    text: str
    init: str = ""
    file: str = ""
    loaded: list[str] = []
    adapted: list[str] = []
    newly_initialized: list[str] = []
    unused: list[str] = []


class Members(_Shape):
    """The content of ensemble.json."""

    members: Annotated[list[str], Field(min_length=1)]


class ExternalMetrics(_Shape):
    """The content of metrics.json of another data set, as far as it is read again."""

    data: str


class _MistakenImage(_Shape):
    # A page embeds these files, so they lie in the folder of the page's images.
    image: Annotated[str, Field(pattern=r"^[\w-]+\.\w+$")] | None = None
    heatmap: Annotated[str, Field(pattern=r"^[\w-]+\.\w+$")] | None = None


class _Pair(_Shape):
    images: list[_MistakenImage]


class Mistakes(_Shape):
    """The content of mistakes.json."""

    predictions_sha256: str
    split: Literal["valid", "test"]
    mistakes: list[_MistakenImage]
    pairs: list[_Pair]


def read_json_file(path: Path, shape: type[BaseModel], remedy: str = "") -> dict[str, Any]:
    """Read a JSON file of a run and check its types; a damaged file is an error that names it, with the remedy."""

    def reject_constant(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        content = json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=lambda pairs: StoredDict(path, pairs),
            parse_constant=reject_constant,
        )
        shape.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise DamagedFileError(path, f"{place}: {fault['msg']}".removeprefix(": "), remedy) from None
    except RecursionError:
        raise DamagedFileError(path, "it is nested too deeply", remedy) from None
    except ValueError as error:
        raise DamagedFileError(path, f"it is not JSON ({error})", remedy) from None
    return content


def read_csv_file(path: Path, text_columns: tuple[str, ...], number_columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a CSV file of a run that has these columns and at least one row; the others are as pandas reads them."""
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(text_columns, str), keep_default_na=not text_columns)
    except pd.errors.EmptyDataError:
        raise DamagedFileError(path, "it is empty") from None
    except (ValueError, pd.errors.ParserError) as error:
        raise DamagedFileError(path, f"it is not a CSV file ({' '.join(str(error).split())})") from None
    if missing := [name for name in (*text_columns, *number_columns) if name not in rows.columns]:
        raise DamagedFileError(path, f"it has no column {', '.join(missing)}")
    if not len(rows):
        raise DamagedFileError(path, "it has no rows")
    for name in number_columns:
        if not pd.api.types.is_numeric_dtype(rows[name]):
            raise DamagedFileError(path, f"the column {name} does not only have numbers")
    return rows
