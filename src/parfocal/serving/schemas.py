"""The JSON responses of the server: their schemas, as in the OpenAPI description, and how they are built."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field

from parfocal.evaluation.ensemble import MEMBERS_FILE, open_members
from parfocal.run import Run
from parfocal.serving.engine import ImagePredictions, NetworkPrediction, ServedNetwork
from parfocal.serving.uploads import Upload

METRICS = ("accuracy", "balanced_accuracy", "auc")


class Prediction(BaseModel):
    """The prediction of a network for an image."""

    network: str
    label: str = Field(description="the predicted class")
    code: str = Field(description="the predicted class as it is written in the labels")
    probability: float = Field(description="probability of the predicted class")
    probabilities: dict[str, float] = Field(description="probability of each class, calibrated on validation")
    positive: bool | None = Field(description="positive at the operating point; null if there is no positive class")
    referred: bool | None = Field(description="referred to a human; null if the run has no referral")
    unusual: list[str] = Field(description="features in which the image is unusual (out-of-distribution)")


class ImageResult(BaseModel):
    """An image of a request: the prediction of each network, or the reason why the image cannot be read."""

    name: str
    predictions: list[Prediction]
    unreadable: str | None = None


class PredictResponse(BaseModel):
    """The images of a request, in the order in which they were sent."""

    images: list[ImageResult]


class Explanation(BaseModel):
    """The class activation map of an image for each class."""

    network: str
    label: str = Field(description="the requested class, or the predicted class if none was requested")
    scale: float = Field(description="largest absolute value of all maps of the image")
    values: dict[str, list[list[float]]] = Field(
        description="the map of each class, row by row; `score` for networks with a single score for all grades"
    )
    peak: dict[str, float] = Field(description="largest value of each map")
    image: str = Field(description="the image as the network sees it: a PNG as a data URI")
    heatmaps: dict[str, str] = Field(
        description="the map of each class as a PNG of the same size, transparent where the value is near zero"
    )


class OperatingPointInfo(BaseModel):
    """The operating point: where a network predicts positive."""

    goal: str = Field(description="the goal that the threshold was chosen for on validation")
    positive: str = Field(description="meaning of a positive prediction")
    threshold: float = Field(description="lowest probability of a positive prediction")


class NetworkInfo(BaseModel):
    """A loaded network."""

    name: str
    classes: list[str]
    codes: list[str]
    members: list[str] = Field(description="the runs whose probabilities are averaged; one run if it is no ensemble")
    model: str
    size: int = Field(description="side of the prepared image, in pixels")
    n_calibration_images: int = Field(description="validation images used for calibration; 0 if not calibrated")
    decide: str = Field(description="the decision rule for the predicted class, such as likeliest or mean")
    operating_point: OperatingPointInfo | None
    coverage: float | None = Field(description="target coverage of the prediction sets that decide on referral")
    detects_unusual: bool = Field(description="whether unusual (out-of-distribution) images are marked")
    metrics: dict[str, dict[str, float | None]] = Field(description="accuracy, balanced accuracy and AUC by split")
    report: str = Field(description="path of the run's report")


class ErrorResponse(BaseModel):
    """The reason why a request was rejected."""

    detail: str


class Health(BaseModel):
    """The status of the server, its networks, and how many images wait."""

    status: str
    networks: list[str] = []
    waiting: int = 0


def build_response(
    uploads: Sequence[Upload],
    predictions: Sequence[ImagePredictions | BaseException],
    networks: Sequence[ServedNetwork],
) -> Any:
    """Return the predictions for all uploads as plain data, in the form of `PredictResponse`."""
    images: list[dict[str, Any]] = []
    for upload, result in zip(uploads, predictions, strict=True):
        if isinstance(result, BaseException):
            images.append({"name": upload.name, "predictions": [], "unreadable": str(result)})
        else:
            by_network = [_build_prediction(result[network.name], network) for network in networks]
            images.append({"name": upload.name, "predictions": by_network, "unreadable": None})
    return {"images": images}


def _build_prediction(prediction: NetworkPrediction, network: ServedNetwork) -> dict[str, Any]:
    classes = network.predictor.classes
    probabilities = dict(zip(classes, prediction.probabilities.tolist(), strict=True))
    label = classes[prediction.label]
    return {
        "network": network.name,
        "label": label,
        "code": network.predictor.codes[prediction.label],
        "probability": probabilities[label],
        "probabilities": probabilities,
        "positive": prediction.positive,
        "referred": prediction.referred,
        "unusual": list(prediction.unusual),
    }


def describe_unreadable(uploads: Sequence[Upload], errors: Sequence[ImagePredictions | BaseException]) -> str:
    """Return a message that states why none of the uploads can be read."""
    if len(errors) == 1:
        return f"The image cannot be read: {errors[0]}."
    names = [upload.name or f"image {number}" for number, upload in enumerate(uploads, 1)]
    reasons = [f"{name}: {error}" for name, error in zip(names, errors, strict=True)]
    return f"None of the {len(errors)} images can be read. {'; '.join(reasons[:5])}."


def describe_network(network: ServedNetwork) -> dict[str, Any]:
    """Return the properties of a network as plain data, in the form of `NetworkInfo`."""
    predictor, decision = network.predictor, network.predictor.decision
    run = Run(network.folder)
    recipe = (open_members(run.folder)[0] if (run.folder / MEMBERS_FILE).is_file() else run).recipe
    operating_point: dict[str, Any] | None = None
    if predictor.has_positive_class:
        positive = predictor.positive_name
        operating_point = {"goal": "the more probable class", "positive": positive, "threshold": 0.5}
        if point := decision.operating_point:
            operating_point |= {"goal": point.goal, "threshold": point.threshold}
    splits = run.read_metrics() if run.is_finished else {}
    return {
        "name": network.name,
        "classes": list(predictor.classes),
        "codes": list(predictor.codes),
        "members": list(predictor.run_names),
        "model": recipe.network.model,
        "size": recipe.images.size,
        "n_calibration_images": decision.n_images,
        "decide": decision.rule,
        "operating_point": operating_point,
        "coverage": decision.referral.coverage if decision.referral else None,
        "detects_unusual": decision.ood is not None,
        "metrics": {
            split: {name: metrics[name] for name in METRICS}
            for split, metrics in splits.items()
            if split in ("valid", "test") and metrics["labeled"]
        },
        "report": f"/runs/{quote(network.name, safe='')}",
    }
