"""Recipe files: the settings in YAML, values for single networks, experiments, and what a source document reports.

Packaged recipes reproduce the experiments of the source documents: one assignment and four reports of students.
"""

from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from parfocal.errors import UsageError, did_you_mean
from parfocal.schema import Config

AUTO = "auto"
"""The recipe without a file: it is configured automatically from the data."""


class ReportedAccuracy(Config):
    """An accuracy, in percent, that a source document reports for the recipe keys in `when`."""

    split: Literal["train", "valid", "test"]
    percent: float = Field(ge=0, le=100)
    when: dict[str, Any] = Field(default={})


class RecipeFile(Config):
    """The content of a recipe file: `choices` are the settings of the recipe, and the other fields do not change it.

    `networks` holds changes for single networks, `experiments` lists of values by name, and `document` names the source
    document (empty for the recipes of Parfocal). `run_before` lists commands to run first, `assumptions` gives the
    reason for each key that the document does not state, and `notes` says what the document did differently.
    """

    choices: dict[str, Any]
    networks: dict[str, dict[str, Any]] = Field(default={})
    experiments: dict[str, dict[str, Any]] = Field(default={})
    document: str = ""
    run_before: tuple[str, ...] = ()
    reported: tuple[ReportedAccuracy, ...] = ()
    assumptions: dict[str, str] = Field(default={})
    notes: tuple[str, ...] = ()


class _PlainLoader(yaml.SafeLoader):
    """YAML without dates and base-60 numbers: `1:30` and `2020-13-45` are text."""

    def construct_number(self, node: yaml.ScalarNode) -> object:
        """Return a number, or the text if it contains a colon."""
        if ":" in node.value:
            return node.value
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", _PlainLoader.construct_yaml_str)


def read_yaml(text: str) -> Any:
    """Parse YAML; raise `YAMLError` if it is invalid, or `ValueError` for a malformed number."""
    return yaml.load(text, Loader=_PlainLoader)


def find_packaged_recipes() -> dict[str, Path]:
    """Return the paths of the recipes that come with Parfocal, by name."""
    folder = Path(str(resources.files("parfocal"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def read_recipe_file(source: str | Path) -> RecipeFile:
    """Read the packaged recipe of this name, or a YAML file."""
    if str(source) == AUTO:
        raise UsageError(
            "The recipe auto has no file: train configures it from the data. `parfocal plan DATA` writes it to a file."
        )
    packaged = find_packaged_recipes()
    path = packaged.get(str(source), Path(source))
    if not path.is_file():
        hint = did_you_mean(str(source), [*packaged, AUTO])
        raise UsageError(f"There is no recipe {str(source)!r}: it is neither a packaged recipe nor a file. {hint}")
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a recipe: it must have `key: value` lines in the sections of a recipe.")
    other_fields = {key: content.pop(key) for key in RecipeFile.model_fields if key != "choices" and key in content}
    try:
        return RecipeFile(choices={"name": path.stem, **content}, **other_fields)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}.") from None
