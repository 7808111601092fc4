"""The environment of a run is recorded, and a change of it is named when the run resumes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import parfocal
from parfocal.engine.device import to_channels_last
from parfocal.models.classifier import build_classifier
from parfocal.recipe import Recipe
from parfocal.recipe_schema import NetworkConfig
from parfocal.run import Run
from parfocal.training.environment import describe_changes, describe_environment, find_onednn_level
from tests.cells import SMALL_RECIPE
from tests.training.resuming import call_at_step

X86 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Set the number of threads back after the test."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


@pytest.mark.usefixtures("restore_threads")
def test_another_number_of_threads_changes_only_the_rounding() -> None:
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def compute_gradients(n_threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(n_threads)
        torch.manual_seed(0)
        classifier = to_channels_last(build_classifier(NetworkConfig(model="resnet20"), ("a", "b"))).train()
        torch.nn.functional.cross_entropy(classifier(pixels), torch.arange(8) % 2).backward()
        return [parameter.grad for parameter in classifier.parameters() if parameter.grad is not None]

    for one, again, two in zip(*map(compute_gradients, (1, 1, 2)), strict=True):
        assert one.equal(again)
        # Where a value is almost 0, the rounding decides whether ReLU passes its gradient.
        assert (one - two).norm() <= 1e-2 * one.norm()


@pytest.mark.usefixtures("restore_threads")
def test_resuming_in_another_environment_says_so_in_one_line(
    draw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = draw(tmp_path / "cells", train=16, valid=8, test=8)

    def interrupt() -> None:
        raise KeyboardInterrupt

    def train_until(step: int, **options: Any) -> list[str]:
        """Train, interrupt at a step, and return the warnings about the environment."""
        with monkeypatch.context() as patched:
            call_at_step(step, interrupt, patched)
            with pytest.raises(KeyboardInterrupt):
                parfocal.train(cells, out=tmp_path / "runs", **options)
        warnings = capsys.readouterr().err.splitlines()
        return [line for line in warnings if "environment" in line]

    torch.set_num_threads(1)
    # An epoch has two steps, so the checkpoint of the first is there.
    assert train_until(3, **{**SMALL_RECIPE, "epochs": 2}) == []
    assert train_until(1, resume=True) == []
    torch.set_num_threads(2)
    (line,) = train_until(1, resume=True)
    assert line == (
        "Warning: resnet20: the environment has changed: threads was 1, now 2. The weights may differ from those of a "
        "run that was never stopped. To keep the number of threads, set OMP_NUM_THREADS=1."
    )
    run = Run(tmp_path / "runs" / "resnet20")
    environment = run.read_environment()
    resumed = environment["resumed"]
    assert [entry["threads"] for entry in (environment, *resumed)] == [1, 1, 2]
    resumed[-1] |= {"processor": "EPYC", "device": "EPYC", "kernels": {"PyTorch": "AVX512", "oneDNN": "AMX"}}
    run.write_environment(environment)
    (line,) = train_until(1, resume=True)
    now = run.read_environment()["resumed"][-1]
    assert f"device was EPYC, now {now['device']}; " in line
    assert f"PyTorch kernels was AVX512, now {now['kernels']['PyTorch']}; oneDNN kernels was AMX, now " in line


def _describe(**changes: Any) -> dict[str, Any]:
    environment = {
        "parfocal": "1",
        "device": "EPYC",
        "processor": "EPYC",
        "kernels": {"PyTorch": "AVX2", "oneDNN": "AVX2"},
        "threads": 2,
        "processes": 1,
        "precision": "float32",
        "packages": {"torch": "2.6", "numpy": "2.0"},
    }
    return {**environment, **changes}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"device": "Xeon", "processor": "Xeon"}, "device was EPYC, now Xeon."),
        ({"threads": 1, "precision": "bf16"}, "precision was float32, now bf16; threads was 2, now 1."),
        ({"packages": {"torch": "2.7", "numpy": "2.0"}}, "torch was 2.6, now 2.7."),
        ({"parfocal": "2"}, "parfocal was 1, now 2."),
        ({"processes": 4}, "processes was 1, now 4."),
        ({"device": "H100"}, "device was EPYC, now H100."),
    ],
)
def test_a_change_of_the_environment_is_named(changes: dict[str, Any], text: str) -> None:
    assert text in describe_changes(_describe(), _describe(**changes))


def test_what_decides_no_bit_is_not_named() -> None:
    on_gpu = _describe(device="H100")
    assert not describe_changes(on_gpu, {**on_gpu, "threads": 16, "processor": "Xeon", "kernels": {}})
    assert not describe_changes(_describe(), _describe(seed=3, platform="Linux"))


def test_a_run_of_an_earlier_version_is_compared_by_what_it_recorded() -> None:
    earlier = _describe(device="x86_64", threads=4)
    del earlier["processor"], earlier["kernels"], earlier["processes"]
    assert "has changed: threads was 4, now 2. " in describe_changes(earlier, _describe())


def test_the_environment_names_processor_and_kernels(small_recipe: Recipe) -> None:
    environment = describe_environment(small_recipe)
    assert len(environment["processor"]) > 3
    assert environment["device"] == environment["processor"] or torch.cuda.is_available()
    assert environment["kernels"]["PyTorch"] == torch.backends.cpu.get_cpu_capability()


@pytest.mark.skipif(not X86, reason="these are instruction sets of x86")
@pytest.mark.parametrize(
    ("limit", "found"), [("AVX2", "AVX2"), ("sse41", "SSE41"), ("AVX2_VNNI", "AVX2_VNNI"), ("ALL", None)]
)
def test_the_kernels_of_onednn_are_those_of_its_limit(
    monkeypatch: pytest.MonkeyPatch, limit: str, found: str | None
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    unlimited = find_onednn_level()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert find_onednn_level() == (found or unlimited)


@pytest.mark.skipif(not X86, reason="oneDNN has other names elsewhere")
@pytest.mark.parametrize(
    ("variables", "level", "report"),
    [
        ({"PARFOCAL_CPU": "avx2"}, "AVX2 AVX2", "Intel AVX2"),
        ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, "DEFAULT SSE41", "Intel SSE4.1"),
    ],
)
def test_the_kernels_are_those_that_onednn_itself_reports(variables: dict[str, str], level: str, report: str) -> None:
    code = "import parfocal, torch; from parfocal.training.environment import find_onednn_level; "
    code += "torch.nn.functional.conv2d(torch.ones(4, 16, 64, 64), torch.ones(16, 16, 3, 3)); "
    code += "print(torch.backends.cpu.get_cpu_capability(), find_onednn_level())"
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    # Other lines come from oneDNN, in a buffer of its own.
    assert level in done.stdout.splitlines()
    assert f"cpu,isa:{report}" in done.stdout
