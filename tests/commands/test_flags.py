"""Messages of the library name parameters; those of the command line name flags."""

from pathlib import Path

import pytest

import parfocal as library
from parfocal.errors import UsageError
from tests.commands.run_command import expect_error, parfocal


def test_predict_names_its_flag(tmp_path: Path) -> None:
    table = tmp_path / "cells.csv"
    table.write_text("Path\n", encoding="utf-8")
    assert f"--out {table} is also an input" in expect_error(parfocal("predict", "run", table, "-o", table), 2)
    with pytest.raises(UsageError, match=r"^out=.* is also an input"):
        library.predict("run", table, table)


def test_serve_names_its_flags(tmp_path: Path) -> None:
    message = expect_error(parfocal("serve", tmp_path, "--host", "0.0.0.0"), 2)
    assert "Use --host 127.0.0.1, or pass --token TOKEN." in message
    assert message.endswith("export PARFOCAL_TOKEN=$(openssl rand -hex 16); echo $PARFOCAL_TOKEN")
    assert "--token … needs at least 16" in expect_error(parfocal("serve", tmp_path, "--token", "short"), 2)
    busy = expect_error(parfocal("serve", tmp_path, "--host", "no.such.name.invalid", "--token", 16 * "x"), 1)
    assert busy.endswith("Choose another --host HOST or --port PORT.")


def test_keys_of_the_recipe_are_named_as_they_are_typed(tmp_path: Path) -> None:
    message = expect_error(parfocal("train", tmp_path, "epochs=-1"), 2)
    assert "epochs=-1" in message or "epochs: -1" in message or "training.epochs" in message
    assert "--epochs" not in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "3"], "--epochs is a key of the recipe, not an option. Write epochs=VALUE."),
        (["--batch-size=8"], "--batch-size is a key of the recipe, not an option. Write batch_size=8."),
        (["--lr=0.1"], "--lr is a key of the recipe, not an option. Write lr=0.1."),
    ],
)
def test_a_recipe_key_that_is_written_as_an_option_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in expect_error(parfocal("train", tmp_path, *arguments), 2)
    assert "No such option" in parfocal("train", tmp_path, "--epoch-count").stderr
