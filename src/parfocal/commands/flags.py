"""Name parameters as flags: the library writes `out=FILE` in its messages, and the command line `--out FILE`."""

import re
from collections.abc import Iterable

from click import Context, Parameter
from typer.core import TyperCommand

from parfocal.errors import ParfocalError


class FlagCommand(TyperCommand):
    """A command whose error messages name its options as they are typed."""

    def invoke(self, ctx: Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ParfocalError as error:
            error.args = (name_flags(str(error), self.params), *error.args[1:])
            raise


def name_flags(message: str, parameters: Iterable[Parameter]) -> str:
    """Replace `name=value` by `--name value` for each option of a command."""
    for parameter in parameters:
        if flag := next((option for option in parameter.opts if option.startswith("--")), None):
            # Keys of the recipe have a dot or are other words: they are typed as they are.
            message = re.sub(rf"(?<![\w.=]){parameter.name}=(?=\S)", f"{flag} ", message)
    return message
