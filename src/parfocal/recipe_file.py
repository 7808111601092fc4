"""Recipe files: the settings in YAML, values for single networks, experiments, and what a source document reports.

Packaged recipes reproduce the experiments of the source documents: one assignment and four reports of students.
"""

from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from parfocal.errors import UsageError, did_you_mean
from parfocal.recipe_schema import Config

AUTO = "auto"
"""The recipe without a file: it is configured automatically from the data."""

# A hundred times what the recipe of a run needs; more would take seconds to parse.
_MAX_CHARACTERS = 250_000
_MAX_VALUES = 20_000
_MAX_DEPTH = 30


class ReportedAccuracy(Config):
    """An accuracy, in percent, that a source document reports for the recipe keys in `when`.

    Without `init` among them, it holds for the initial weights of the recipe. With `about`, the document rounds it.
    """

    split: Literal["train", "valid", "test"]
    percent: float = Field(ge=0, le=100)
    about: bool = False
    when: dict[str, Any] = Field(default={})

    def __str__(self) -> str:
        """Format the accuracy, 0 to 1, for a table."""
        return f"about {self.percent / 100:.2f}" if self.about else f"{self.percent / 100:.3f}"


class RecipeFile(Config):
    """The content of a recipe file: `choices` are the settings of the recipe, and the other fields do not change it.

    `networks` holds changes for single networks, `by_start` changes for training from scratch and from pretrained
    weights, `experiments` lists of values by name, and `document` names the source document (empty for the recipes of
    Parfocal). `run_before` lists commands to run first, `assumptions` gives the reason for each key that the document
    does not state, and `notes` says what the document did differently.
    """

    choices: dict[str, Any]
    networks: dict[str, dict[str, Any]] = Field(default={})
    by_start: dict[Literal["scratch", "pretrained"], dict[str, Any]] = Field(default={})
    experiments: dict[str, dict[str, Any]] = Field(default={})
    document: str = ""
    run_before: tuple[str, ...] = ()
    reported: tuple[ReportedAccuracy, ...] = ()
    assumptions: dict[str, str] = Field(default={})
    notes: tuple[str, ...] = ()


class _PlainLoader(yaml.SafeLoader):
    """YAML without dates and base-60 numbers: `1:30` and `2020-13-45` are text.

    A few lines of aliases can stand for billions of values, so values are counted as if aliases were written out.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        # The number of values in each node, and the depth of its deepest value.
        self._extents: dict[yaml.Node, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node; reject a node that is nested too deeply, holds too many values, or contains itself."""
        event = self.peek_event()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nested more than {_MAX_DEPTH} levels deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if node not in self._extents:
                raise yaml.MarkedYAMLError(None, None, "an alias stands for a value that contains it", event.start_mark)
            return node
        children = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        extents = [self._extents[child] for child in children]
        n_values = 1 + sum(count for count, _ in extents)
        depth = 1 + max((depth for _, depth in extents), default=0)
        if n_values > _MAX_VALUES or depth > _MAX_DEPTH:
            limits = f"more than {_MAX_VALUES:,} values or {_MAX_DEPTH} levels"
            raise yaml.MarkedYAMLError(None, None, f"{limits}, with aliases written out", event.start_mark)
        self._extents[node] = (n_values, depth)
        return node

    def construct_number(self, node: yaml.ScalarNode) -> object:
        """Return a number, or the text if it contains a colon."""
        if ":" in node.value:
            return node.value
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:timestamp", _PlainLoader.construct_yaml_str)


def read_yaml(text: str) -> Any:
    """Parse YAML; raise `YAMLError` if it is invalid or too large, or `ValueError` for a malformed number."""
    if len(text) > _MAX_CHARACTERS:
        raise yaml.YAMLError(f"it is longer than {_MAX_CHARACTERS:,} characters")
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except (IndexError, KeyError):
        # PyYAML raises these for a value such as `!!bool maybe`.
        raise yaml.YAMLError("a value does not have the type of its tag") from None


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
        with path.open(encoding="utf-8") as file:
            content = read_yaml(file.read(_MAX_CHARACTERS + 1))
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
