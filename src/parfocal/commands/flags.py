"""Name parameters as flags: the library writes `out=FILE` in its messages, and the command line `--out FILE`."""

import re
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand

from parfocal.errors import ParfocalError, UsageError


class FlagCommand(TyperCommand):
    """A command whose error messages name its options as they are typed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; say how a recipe key that is written as an option is written."""
        options = {option for parameter in self.params for option in parameter.opts}
        if any(parameter.name == "changes" for parameter in self.params):
            for argument in args:
                flag, _, value = argument.partition("=")
                if flag.startswith("--") and flag not in options and is_recipe_key(name := flag[2:].replace("-", "_")):
                    raise UsageError(f"{flag} is a key of the recipe, not an option. Write {name}={value or 'VALUE'}.")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ParfocalError as error:
            flags = {str(option.name): flag for option in self.params for flag in option.opts if flag.startswith("--")}
            error.args = (name_flags(str(error), flags), *error.args[1:])
            raise


def is_recipe_key(name: str) -> bool:
    """Return whether a name is that of a recipe key, here or in other tools."""
    # The schema is not needed for a command line without such a mistake.
    from parfocal.key_aliases import ALIASES
    from parfocal.recipe import list_keys

    return name in ALIASES or name in list_keys()


def name_flags(message: str, flags: Mapping[str, str]) -> str:
    """Replace `name=value` by `--name value` for each parameter that has a flag; recipe keys stay as they are."""
    for name, flag in flags.items():
        message = re.sub(rf"(?<![\w.=]){name}=(?=\S)", f"{flag} ", message)
    return message
