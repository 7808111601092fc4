"""The layout of the package: imports go downward, every public function exists, and help is fast."""

import ast
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import parfocal

SOURCE = Path(str(files("parfocal")))
# From the lowest floor to the highest. A module imports only from lower floors and from its own package.
FLOORS = (
    ("errors", "version", "key_aliases", "markdown", "notebook", "groups"),
    ("io", "progress", "recipe_schema", "run_files"),
    ("manifest", "recipe_file", "download"),
    ("recipe",),
    ("run", "reported"),
    ("data", "models"),
    ("engine", "synthetic"),
    ("evaluation",),
    ("training", "explainability"),
    ("report",),
    ("serving", "exporters"),
    ("commands",),
    ("__main__",),
)
HEIGHTS = {name: height for height, names in enumerate(FLOORS) for name in names}


def _find_modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _get_module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


def _find_imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, without the leading `parfocal.`."""
    imports: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from parfocal.data import store` imports a module, and `from parfocal import plan` a function.
            modules = {alias.name for alias in node.names if _is_module(node.module, alias.name)}
            imports |= {f"{node.module}.{name}" for name in modules}
            if len(modules) < len(node.names):
                imports.add(node.module)
    names = {name for name in imports if name == "parfocal" or name.startswith("parfocal.")}
    return {name.removeprefix("parfocal").removeprefix(".") for name in names}


def _is_module(package: str, name: str) -> bool:
    folder = SOURCE.parent.joinpath(*package.split("."))
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


@pytest.mark.parametrize("path", _find_modules(), ids=_get_module_name)
def test_imports_go_downward(path: Path) -> None:
    module = _get_module_name(path)
    if module == "__init__":
        return
    floor = module.split(".")[0]
    for name in _find_imports(path):
        assert name, f"{module} imports the package parfocal itself, which is above it"
        imported_floor = name.split(".")[0]
        assert imported_floor in HEIGHTS, f"{name} has no floor"
        is_lower = HEIGHTS[imported_floor] < HEIGHTS[floor]
        assert imported_floor == floor or is_lower, f"{module} imports {name}, which is not below it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {_get_module_name(path): _find_imports(path) for path in _find_modules()}
    finished: set[str] = set()

    def visit(name: str, importers: tuple[str, ...]) -> None:
        assert name not in importers, f"circle: {' → '.join([*importers, name])}"
        if name in graph and name not in finished:
            for imported in graph[name]:
                visit(imported, (*importers, name))
            finished.add(name)

    for name in graph:
        if name != "__init__":
            visit(name, ())


def test_every_public_function_can_be_imported() -> None:
    for name in parfocal.__all__:
        assert callable(getattr(parfocal, name))
        assert name in dir(parfocal)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        parfocal.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("parfocal.commands", {"torch", "cv2", "pandas", "matplotlib"}),
        ("parfocal.commands.options", {"torch", "cv2", "pandas", "matplotlib"}),
        ("parfocal.data.store", {"torch", "sklearn", "scipy", "matplotlib"}),
        ("parfocal.report.report", {"lightning_fabric", "openvino", "sklearn"}),
        ("parfocal.evaluation.predict", {"lightning_fabric", "openvino", "matplotlib"}),
    ],
)
def test_a_module_imports_no_heavy_package_that_it_does_not_need(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
