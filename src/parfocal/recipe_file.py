"""A recipe's file: the choices, and beside them what is true of the file and decides no run.

Beside the choices stand values by network, experiments of several runs, and, of the packaged recipes, what their
document reports and which values were chosen because it is silent.
"""

from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from parfocal.errors import UsageError, did_you_mean
from parfocal.schema import Config

AUTO = "auto"
"""The recipe that has no file: it is planned from the data."""


class ReportedAccuracy(Config):
    """An accuracy that a document reports, in per cent; `when` is which recipe keys must be so for it to be meant."""

    split: Literal["train", "valid", "test"]
    percent: float = Field(ge=0, le=100)
    when: dict[str, Any] = Field(default={})


class RecipeFile(Config):
    """What a recipe's file holds: `choices` are the parts of the recipe, the rest stands beside them.

    `networks` are changes for single networks, `experiments` lists of values by name, `document` is where the recipe is
    from (empty for our own), `first` are commands to run before, `chosen` says why of each key that the document is
    silent about, and `notes` what the document did otherwise.
    """

    choices: dict[str, Any]
    networks: dict[str, dict[str, Any]] = Field(default={})
    experiments: dict[str, dict[str, Any]] = Field(default={})
    document: str = ""
    first: tuple[str, ...] = ()
    reported: tuple[ReportedAccuracy, ...] = ()
    chosen: dict[str, str] = Field(default={})
    notes: tuple[str, ...] = ()


class _PlainLoader(yaml.SafeLoader):
    """YAML without its dates and its numbers to the base of 60: `1:30` is not 90 but text, as `2020-13-45` is."""

    def construct_number(self, node: yaml.ScalarNode) -> object:
        """Return what a number is, or its text where it is written with colons."""
        if ":" in node.value:
            return node.value
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", _PlainLoader.construct_yaml_str)


def read_yaml(text: str) -> Any:
    """Return what YAML says; raise `YAMLError`, or `ValueError` of a number that is none, where it says nothing."""
    return yaml.load(text, Loader=_PlainLoader)


def find_packaged_recipes() -> dict[str, Path]:
    """Return the recipes that come with Parfocal, by name."""
    folder = Path(str(resources.files("parfocal"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def read_recipe_file(source: str | Path) -> RecipeFile:
    """Read the packaged recipe of this name, or a YAML file."""
    known = find_packaged_recipes()
    path = known.get(str(source), Path(source))
    if str(source) == AUTO:
        raise UsageError(
            "The recipe auto is planned from the data, by train; `parfocal plan DATA` writes it to a file."
        )
    if not path.is_file():
        raise UsageError(
            f"There is no recipe {str(source)!r}, neither packaged nor a file. {did_you_mean(str(source), [*known, AUTO])}"
        )
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no recipe: it should be `key: value` lines in the parts of a recipe.")
    beside = {key: content.pop(key) for key in RecipeFile.model_fields if key != "choices" and key in content}
    try:
        return RecipeFile(choices={"name": path.stem, **content}, **beside)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}.") from None
