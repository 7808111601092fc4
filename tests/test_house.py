"""The house itself: imports go down its floors, the verbs are all there, and help comes at once."""

import ast
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import parfocal

SOURCE = Path(str(files("parfocal")))
FLOORS = {
    name: height
    for height, names in enumerate(
        (
            ("errors", "memory", "notebook"),
            ("files", "progress", "parts"),
            ("recipe_file",),
            ("recipe", "download"),
            ("run", "documented"),
            ("data", "model"),
            ("evaluation",),
            ("training",),
            ("explaining",),
            ("report",),
            ("exporting", "serving"),
            ("commands",),
            ("__main__",),
        )
    )
    for name in names
}


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Name the floors, and the files of the same floor, that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("parfocal"):
            found |= {node.module} if node.module.count(".") else {f"parfocal.{one.name}" for one in node.names}
    return {".".join(name.split(".")[1:]) for name in found if "." in name}


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_the_floors(path: Path) -> None:
    own = path.relative_to(SOURCE).with_suffix("").parts
    if own == ("__init__",):
        return
    for name in _imports(path):
        floor = name.split(".")[0]
        assert floor in FLOORS, f"{name} has no floor"
        assert floor == own[0] or FLOORS[floor] < FLOORS[own[0]], f"{'.'.join(own)} imports {name}, which is not below"


def test_no_wing_imports_itself_in_a_circle() -> None:
    graph = {".".join(p.relative_to(SOURCE).with_suffix("").parts): _imports(p) for p in _modules()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"circle: {' → '.join([*above, name])}"
        if name in graph and name not in done:
            for other in graph[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        if name != "__init__":
            visit(name, ())


def test_every_verb_is_a_function_of_the_package() -> None:
    for name in parfocal.__all__:
        assert callable(getattr(parfocal, name))
        assert name in dir(parfocal)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        parfocal.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("parfocal.commands", {"torch", "cv2", "pandas", "matplotlib"}),
        ("parfocal.data.store", {"torch", "sklearn", "scipy", "matplotlib"}),
        ("parfocal.report.report", {"lightning_fabric", "openvino", "sklearn"}),
        ("parfocal.evaluation.predict", {"lightning_fabric", "openvino", "matplotlib"}),
    ],
)
def test_nothing_heavy_is_imported_that_is_not_needed(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
