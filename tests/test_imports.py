"""What is imported by default reports nothing to anybody, and no bad version of a package can be installed."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from parfocal.recipe import Recipe

# Packages that ask for a newer version or report their use when they are imported or used: measured for each package of
# all extras. Those that are huge and not needed at import come with them.
REPORTING = {"albumentations", "mlflow", "nncf", "openvino", "openvino_telemetry", "sentry_sdk", "wandb"}
UNNEEDED = {"lightning", "onnx", "onnxruntime", "onnxscript", "pytorch_lightning", "tensorboard", "torchvision"}

# Forbids sockets and other processes, and prints each attempt.
_FORBID = """
import importlib, pkgutil, sys, threading
from pathlib import Path

FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
PROCESSES = ("os.fork", "os.posix_spawn", "subprocess.Popen")
attempts = []

def forbid(event, args):
    if event in FORBIDDEN or event in PROCESSES and "uname" not in str(args):
        attempts.append((event, str(args)[:200]))
        raise OSError("no connections in this test")

sys.addaudithook(forbid)
"""
_REPORT = """
for thread in threading.enumerate():
    if thread is not threading.current_thread() and not thread.daemon:
        thread.join()
print(attempts)
"""


def _run(code: str, folder: Path) -> list[str]:
    """Run code in a new process that may not connect; return the lines that it prints."""
    # MLflow reports nothing in a test, and Albumentations nothing where a variable says so.
    hidden = ("CI", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", "NO_ALBUMENTATIONS_UPDATE", "DO_NOT_TRACK")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"MLFLOW_TRACKING_URI": f"file:{folder / 'mlruns'}", "MLFLOW_ALLOW_FILE_STORE": "true"}
    command = [sys.executable, "-c", _FORBID + code + _REPORT]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_every_module_connects_nowhere_and_loads_no_package_that_reports(tmp_path: Path) -> None:
    code = f"""
import parfocal
for module in pkgutil.walk_packages(parfocal.__path__, "parfocal."):
    if module.name != "parfocal.__main__":
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("parfocal.")]) > 100)
print(sorted({REPORTING | UNNEEDED} & set(sys.modules)))
"""
    assert _run(code, tmp_path) == ["True", "[]", "[]"]


_USES = {
    "nncf": "from parfocal.engine.compiled import import_openvino; import_openvino(); import nncf",
    "mlflow": "from parfocal.run import Run; from parfocal.training.loggers import _open_logger; "
    "logger = _open_logger('mlflow', Run(Path.cwd())); logger.log_metrics({'a': 1.0}, 1); logger.finalize('success')",
    "albumentations": "from parfocal.data.custom_transform import AllowedCode, load_custom_transform; "
    "load_custom_transform('albumentations:HorizontalFlip', AllowedCode(('albumentations',)))",
}
"""Code that uses each package that reports, as Parfocal uses it."""


def test_packages_that_report_are_silent_when_they_are_asked_for(small_recipe: Recipe, tmp_path: Path) -> None:
    for package in _USES:
        pytest.importorskip(package)
    small_recipe.save(tmp_path / "recipe.yaml")
    code = "\n".join(_USES.values())
    lines = _run(f"{code}\nprint({set(_USES)} <= set(sys.modules))\n", tmp_path)
    assert lines[-2:] == ["True", "[]"]


def test_bad_versions_of_lightning_are_excluded() -> None:
    path = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    requirements = [Requirement(line) for line in lines if "lightning" in line]
    assert {requirement.name for requirement in requirements} == {"lightning-fabric", "pytorch-lightning"}
    for requirement in requirements:
        assert not any(requirement.specifier.contains(bad) for bad in ("2.6.2", "2.6.3"))
        assert requirement.specifier.contains("2.6.4")
