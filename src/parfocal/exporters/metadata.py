"""What travels with an exported network: all that is needed to feed it and to read its answers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import parfocal
from parfocal.engine.compiled import Precision
from parfocal.evaluation.decision import Decision
from parfocal.recipe import Recipe
from parfocal.run import Run

INTENDED_USE = "For research and teaching. Not a medical device."


def build_metadata(run: Run, recipe: Recipe, decision: Decision, precision: Precision, int8: bool) -> dict[str, Any]:
    """Return plain data about an export; `recipe` is that of the run, with the looks that were decided."""
    data, size = run.read_environment()["data"], recipe.images.size
    return {
        "parfocal": parfocal.__version__,
        "run": run.name,
        "model": recipe.network.model,
        "use": INTENDED_USE,
        "classes": data["classes"],
        "codes": data["codes"],
        "input": {"name": "pixels", "type": "uint8", "shape": ["images", size, size, 3], "channels": "RGB"},
        "output": {"name": "probabilities", "type": "float32", "shape": ["images", len(data["classes"])]},
        "size": size,
        "crop_size": recipe.views.crop_size,
        "looks": recipe.views.tta,
        "framing": recipe.images.model_dump(mode="json", exclude={"store", "jpeg_quality"}),
        "temperature": decision.temperature,
        "ordered": recipe.evaluation.ordered,
        "referable": recipe.evaluation.referable,
        "answer": describe_decision_rule(data["classes"], recipe, decision),
        "operating": _as_dict(decision.operating_point),
        "referral": _as_dict(decision.referral),
        "ordinary": _as_dict(decision.ood),
        "precision": precision,
        "int8": int8,
    }


def describe_decision_rule(classes: Sequence[str], recipe: Recipe, decision: Decision) -> str:
    """Say in words how a class follows from the probabilities."""
    operating, likeliest = decision.operating_point, "the most probable class"
    if operating is None:
        return likeliest
    if operating.criterion == "kappa":
        return "the mean grade (each grade times its probability, summed), cut by the operating point's thresholds"
    least = f"{operating.thresholds[0]:.6g}"
    if len(classes) == 2:
        return f"{classes[1]} where its probability is at least {least}, else {classes[0]}"
    above = classes[recipe.evaluation.referable]
    return f"{likeliest}; positive where the probabilities of {above} and above add up to at least {least}"


def _as_dict(value: Any) -> dict[str, Any] | None:
    return None if value is None else asdict(value)
