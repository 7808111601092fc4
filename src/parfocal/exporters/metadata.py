"""The metadata of an exported network: everything that is needed to prepare its input and to interpret its output."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from parfocal.engine.compiled import Precision
from parfocal.evaluation.decision import Decision
from parfocal.recipe import Recipe
from parfocal.run import Run
from parfocal.version import __version__

INTENDED_USE = "For research and teaching. Not a medical device."


def build_metadata(run: Run, recipe: Recipe, decision: Decision, precision: Precision, int8: bool) -> dict[str, Any]:
    """Return the metadata of an export as plain data; `recipe` has the test-time augmentation of the decision."""
    data, size = run.read_environment()["data"], recipe.images.size
    return {
        "parfocal": __version__,
        "run": run.name,
        "model": recipe.network.model,
        "use": INTENDED_USE,
        "classes": data["classes"],
        "codes": data["codes"],
        "input": {"name": "pixels", "type": "uint8", "shape": ["images", size, size, 3], "channels": "RGB"},
        "output": {"name": "probabilities", "type": "float32", "shape": ["images", len(data["classes"])]},
        "size": size,
        "crop_size": recipe.views.crop_size,
        "tta": recipe.views.tta,
        "preprocessing": recipe.images.model_dump(mode="json", exclude={"store", "quality"}),
        "temperature": decision.temperature,
        "ordered": recipe.evaluation.ordered,
        "referable": recipe.evaluation.referable,
        "decision_rule": describe_decision_rule(data["classes"], recipe, decision),
        "operating_point": _as_dict(decision.operating_point),
        "referral": _as_dict(decision.referral),
        "out_of_distribution": _as_dict(decision.ood),
        "precision": precision,
        "int8": int8,
    }


def describe_decision_rule(classes: Sequence[str], recipe: Recipe, decision: Decision) -> str:
    """Describe how the predicted class follows from the probabilities."""
    operating_point = decision.operating_point
    if operating_point is None:
        return "the most probable class"
    if operating_point.criterion == "kappa":
        return "the expected grade (sum of each grade times its probability), cut at the operating point's thresholds"
    threshold = f"{operating_point.thresholds[0]:.6g}"
    if len(classes) == 2:
        return f"{classes[1]} if its probability is at least {threshold}, else {classes[0]}"
    lowest = classes[recipe.evaluation.referable]
    return f"the most probable class; positive if the probabilities of {lowest} and above sum to at least {threshold}"


def _as_dict(value: Any) -> dict[str, Any] | None:
    return None if value is None else asdict(value)
