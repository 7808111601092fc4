"""Name parameters as flags: the library writes `out=FILE` in its messages, and the command line `--out FILE`."""

import re
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand

from parfocal.errors import ParfocalError


class FlagCommand(TyperCommand):
    """A command whose error messages name its options as they are typed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ParfocalError as error:
            flags = {str(option.name): flag for option in self.params for flag in option.opts if flag.startswith("--")}
            error.args = (name_flags(str(error), flags), *error.args[1:])
            raise


def name_flags(message: str, flags: Mapping[str, str]) -> str:
    """Replace `name=value` by `--name value` for each parameter that has a flag; recipe keys stay as they are."""
    for name, flag in flags.items():
        message = re.sub(rf"(?<![\w.=]){name}=(?=\S)", f"{flag} ", message)
    return message
