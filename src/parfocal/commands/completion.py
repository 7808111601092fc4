"""Shell completion of recipe names, network names and recipe keys."""


def complete_recipe(incomplete: str) -> list[str]:
    """Return the packaged recipes, and `auto`, that begin with the typed text."""
    from parfocal.recipe_file import AUTO, find_packaged_recipes

    return [name for name in (*find_packaged_recipes(), AUTO) if name.startswith(incomplete)]


def complete_change(incomplete: str) -> list[str]:
    """Return `key=` for the typed beginning of a recipe key, or `key=value` for the choices of a typed key.

    The value may be a list: the last item after a comma is completed.
    """
    from parfocal.models.architectures import ARCHITECTURES
    from parfocal.recipe import list_choices, list_keys

    keys = {**list_keys(), **{".".join(key): key for key in list_keys().values()}}
    name, equals, text = incomplete.partition("=")
    if not equals:
        matches = [f"{key}=" for key in keys if key.startswith(name)]
        return [match for match in matches if "." not in match] or matches
    if name not in keys:
        return []
    choices = list(ARCHITECTURES) if keys[name][-1] == "model" else list_choices(keys[name])
    earlier, comma, last = text.rpartition(",")
    return [f"{name}={earlier}{comma}{choice}" for choice in choices if choice.startswith(last)]
