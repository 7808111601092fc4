"""Run `parfocal` commands in tests, without the seconds that a new process takes to start."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from parfocal.commands import main


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


def parfocal(*arguments: str | Path, stdin: str = "") -> CommandResult:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["parfocal", *map(str, arguments)]
    with redirect_stdout(out), redirect_stderr(err), patch("sys.argv", argv), patch("sys.stdin", io.StringIO(stdin)):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return CommandResult(code, out.getvalue(), err.getvalue())


def parfocal_subprocess(*arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command line in a new process."""
    command = [sys.executable, "-m", "parfocal", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]


def expect_error(result: CommandResult | subprocess.CompletedProcess[str], code: int) -> str:
    """Assert that a command ended with one error message, and return the message."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]
