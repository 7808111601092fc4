"""Resolve `init=auto` once for all runs of a command: from what they began with, or from the best weights at hand."""

from collections.abc import Callable, Mapping

from parfocal.models.auto_init import Start, describe_download, fetch_start, find_start
from parfocal.recipe import Recipe
from parfocal.recipe_schema import AUTO_INIT
from parfocal.training.autoconfig import Plan


def resolve_auto_init(
    plans: dict[str, Plan], stored: Mapping[str, Recipe], show_line: Callable[[str], object]
) -> dict[str, Plan]:
    """Return the plans with the same initial weights in place of each `init=auto`.

    `stored` holds the recipes of the runs that exist already, by name. Such a run keeps its own initial weights, and
    new runs take those of the first one. `show_line` is called with what is fetched, and why runs start from scratch.
    """
    networks = {name: plan.recipe.network for name, plan in plans.items() if plan.recipe.network.init == AUTO_INIT}
    if not networks:
        return plans
    starts = {name: Start(stored[name].network.init, "as the run was started") for name in networks if name in stored}
    start = next(iter(starts.values()), None)
    if start is None:
        start = find_start(list(networks.values()))
        if start.to_fetch:
            show_line(f"Fetching ImageNet weights, {describe_download(start.to_fetch)}.")
            start = fetch_start(start)
        if start.init == "scratch":
            show_line(f"Training starts from scratch: {start.reason.rstrip('.')}.")
    return {
        name: plan.resolve_init(starts.get(name, start)) if name in networks else plan for name, plan in plans.items()
    }
