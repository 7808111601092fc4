"""A run folder, opened again."""

from pathlib import Path

import pytest

from parfocal.errors import ParfocalError
from parfocal.recipe import recipe
from parfocal.run import Run


def test_a_recipe_of_another_version_is_one_message_that_names_the_file(tmp_path: Path) -> None:
    recipe("leukemia").save(tmp_path / "recipe.yaml")
    assert Run(tmp_path).recipe == recipe("leukemia")
    (tmp_path / "recipe.yaml").write_text("training: {of_tomorrow: 3}")
    with pytest.raises(ParfocalError, match=r"recipe\.yaml is not a recipe of this version: A recipe has no key"):
        _ = Run(tmp_path).recipe
