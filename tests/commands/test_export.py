"""`parfocal export` prints the verification and the files, and exits with 1 if the export is rejected."""

from pathlib import Path

import pytest

from tests.commands.run_command import parfocal
from tests.evaluation.trained_run import trained as trained


def test_it_prints_the_verification_and_the_files(trained: Path, tmp_path: Path) -> None:
    result = parfocal("export", trained / "runs" / "resnet20", "--to", "safetensors", "-o", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "on 24 images of valid" in result.stdout
    assert "Largest difference of a probability from the run: 0.00000" in result.stdout
    path = tmp_path / "resnet20.safetensors"
    assert f"Exported: {path}\nModel card: {path}.md" in result.stdout
    assert path.is_file()


def test_unreadable_verification_images_end_in_one_message(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.png").write_text("no image")
    arguments = ("--to", "safetensors", "-o", tmp_path, "--images", tmp_path / "odd.png")
    result = parfocal("export", trained / "runs" / "resnet20", *arguments)
    assert result.returncode == 1
    assert "odd.png (text, not an image)" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "resnet20.safetensors").exists()


def test_a_rejected_export_is_printed_and_exits_with_1(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parfocal.exporters import export as export_module

    monkeypatch.setitem(export_module.TOLERANCES, "float32", -1.0)
    result = parfocal("export", trained / "runs" / "resnet20", "--to", "safetensors", "-o", tmp_path)
    assert result.returncode == 1
    assert "Largest difference" in result.stdout
    assert "Exported:" not in result.stdout
    assert f"The file is kept as {tmp_path / 'resnet20.refused.safetensors'}" in result.stderr


def test_the_help_lists_all_formats() -> None:
    assert "onnx, openvino, safetensors" in " ".join(parfocal("export", "--help").stdout.split())
