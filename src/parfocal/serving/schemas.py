"""What the server says, as JSON: the shapes that its description promises, and how they are filled."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field

from parfocal.errors import UnreadableImageError
from parfocal.evaluation.ensemble import MEMBERS_FILE, open_members
from parfocal.run import Run
from parfocal.serving.engine import ImagePredictions, NetworkPrediction, ServedNetwork
from parfocal.serving.uploads import Upload

METRICS = ("accuracy", "balanced_accuracy", "auc")


class Prediction(BaseModel):
    """What one network says of one image."""

    network: str
    label: str = Field(description="the class that the image is answered with")
    code: str = Field(description="the class as the labels write it")
    probability: float = Field(description="of that class")
    probabilities: dict[str, float] = Field(description="of every class, calibrated on validation")
    positive: bool | None = Field(description="at the operating point; null where there is no such question")
    referred: bool | None = Field(description="for a human, being unsure; null where that was not decided")
    unusual: list[str] = Field(description="in what the image is out of the ordinary")


class ImageResult(BaseModel):
    """One image of a request: what each network says, or why it cannot be read."""

    name: str
    answers: list[Prediction]
    unreadable: str | None = None


class PredictResponse(BaseModel):
    """The images of a request, in their order."""

    images: list[ImageResult]


class Explanation(BaseModel):
    """What every place of one image says for and against each class."""

    network: str
    label: str = Field(description="the class that the map was asked for, or that the image is answered with")
    scale: float = Field(description="the strongest value of all maps of the image")
    values: dict[str, list[list[float]]] = Field(
        description="rows of values by class; `score` for networks with one score for all grades"
    )
    peak: dict[str, float] = Field(description="the largest value by class")
    image: str = Field(description="what the network saw: a PNG as a data address")
    heat: dict[str, str] = Field(description="maps by class, clear where nothing speaks: PNG of the same size")


class OperatingPointInfo(BaseModel):
    """Where a network answers positive."""

    wish: str = Field(description="what was wanted on validation")
    positive: str = Field(description="what a positive answer says")
    threshold: float = Field(description="the least probability of a positive answer")


class NetworkInfo(BaseModel):
    """A network that answers here."""

    name: str
    classes: list[str]
    codes: list[str]
    members: list[str] = Field(description="the runs whose answers are averaged; one, if it is no ensemble")
    model: str
    size: int = Field(description="side of the prepared image in pixels")
    validated: int = Field(
        description="images of validation on which probabilities were calibrated; 0 if they were not"
    )
    operating: OperatingPointInfo | None
    coverage: float | None = Field(description="how often the truth is among the classes that are probable enough")
    ordinary: bool = Field(description="whether unusual images are marked")
    figures: dict[str, dict[str, float | None]] = Field(description="accuracy, balanced accuracy and AUC by split")
    report: str = Field(description="where its report is")


class ErrorResponse(BaseModel):
    """Why a request was not answered."""

    detail: str


class Health(BaseModel):
    """That the server is there, and how many images wait."""

    status: str
    networks: list[str]
    waiting: int


def build_response(
    uploads: Sequence[Upload],
    predictions: Sequence[ImagePredictions | BaseException],
    networks: Sequence[ServedNetwork],
) -> Any:
    """Return what is said of uploads as plain data, in the shape of `Grades`."""
    return {
        "images": [_build_image_result(upload, one, networks) for upload, one in zip(uploads, predictions, strict=True)]
    }


def describe_unreadable(uploads: Sequence[Upload], errors: Sequence[ImagePredictions | BaseException]) -> str:
    """Say why none of the uploads could be read."""
    if len(errors) == 1:
        return f"The image cannot be read: {errors[0]}."
    names = [upload.name or f"image {number}" for number, upload in enumerate(uploads, 1)]
    each = [f"{name}: {one}" for name, one in zip(names, errors, strict=True)]
    return f"None of the {len(errors)} images can be read. {'; '.join(each[:5])}."


def describe_network(network: ServedNetwork) -> dict[str, Any]:
    """Return what is to be known about a network, in the shape of `Loaded`."""
    answering, decision = network.predictor, network.predictor.decision
    first = open_members(network.folder)[0] if (network.folder / MEMBERS_FILE).is_file() else Run(network.folder)
    return {
        "name": network.name,
        "classes": list(answering.classes),
        "codes": list(answering.codes),
        "members": list(answering.run_names),
        "model": first.recipe.network.model,
        "size": first.recipe.images.size,
        "validated": decision.n_images,
        "operating": _describe_operating_point(network),
        "coverage": decision.referral.coverage if decision.referral else None,
        "ordinary": decision.ood is not None,
        "figures": _read_metrics(Run(network.folder)),
        "report": f"/runs/{quote(network.name, safe='')}",
    }


def _build_image_result(
    upload: Upload, predictions: ImagePredictions | BaseException, networks: Sequence[ServedNetwork]
) -> dict[str, Any]:
    if isinstance(predictions, UnreadableImageError):
        return {"name": upload.name, "answers": [], "unreadable": str(predictions)}
    assert isinstance(predictions, Mapping)
    answers = [_build_prediction(predictions[network.name], network) for network in networks]
    return {"name": upload.name, "answers": answers, "unreadable": None}


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


def _describe_operating_point(network: ServedNetwork) -> dict[str, Any] | None:
    answering, operating = network.predictor, network.predictor.decision.operating_point
    if not answering.has_positive_class:
        return None
    classes, referable = answering.classes, answering.config.referable
    positive = f"{classes[referable]} or above" if referable else classes[1]
    if operating is None:
        return {"wish": "the likelier answer", "positive": positive, "threshold": 0.5}
    return {"wish": operating.goal, "positive": positive, "threshold": operating.thresholds[0]}


def _read_metrics(run: Run) -> dict[str, dict[str, float | None]]:
    """Return the main figures of the splits whose truth is known."""
    if not run.is_finished:
        return {}
    judged = {name: one for name, one in run.read_metrics().items() if name in ("valid", "test") and one["labelled"]}
    return {name: {key: one[key] for key in METRICS} for name, one in judged.items()}
