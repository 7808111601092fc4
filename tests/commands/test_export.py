"""`parfocal export`: what it prints, and how it ends."""

from pathlib import Path

import pytest

from tests.commands.run_command import parfocal
from tests.evaluation.trained_run import trained as trained


def test_it_says_how_far_apart_and_where_the_file_is(trained: Path, tmp_path: Path) -> None:
    done = parfocal("export", trained / "runs" / "resnet20", "--to", "torchscript", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on 24 images of valid" in done.stdout
    assert "Largest difference of a probability from the run: 0.00000" in done.stdout
    assert f"Exported: {tmp_path / 'resnet20.pt'}\nCard: {tmp_path / 'resnet20.pt.md'}" in done.stdout
    assert (tmp_path / "resnet20.pt").is_file()


def test_images_that_cannot_be_compared_on_end_in_one_message(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.png").write_text("no image")
    done = parfocal(
        "export", trained / "runs" / "resnet20", "--to", "torchscript", "-o", tmp_path, "--images", tmp_path / "odd.png"
    )
    assert done.returncode == 1
    assert "odd.png (text, not an image)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "resnet20.pt").exists()


def test_a_disagreement_is_measured_said_and_ends_with_1(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parfocal.exporters import export as exporting

    monkeypatch.setitem(exporting.TOLERANCES, "float32", -1.0)
    done = parfocal("export", trained / "runs" / "resnet20", "--to", "torchscript", "-o", tmp_path)
    assert done.returncode == 1
    assert "Largest difference" in done.stdout
    assert "Exported:" not in done.stdout
    assert f"It is kept as {tmp_path / 'resnet20.refused.pt'}" in done.stderr
