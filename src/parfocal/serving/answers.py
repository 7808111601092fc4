"""What the server says, as JSON: the shapes that its description promises, and how they are filled."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field

from parfocal.data.decode import Unreadable
from parfocal.evaluation.ensemble import MEMBERS, members
from parfocal.run import Run
from parfocal.serving.engine import Graded, Network, Said
from parfocal.serving.uploads import Upload

FIGURES = ("accuracy", "balanced_accuracy", "auc")


class Answer(BaseModel):
    """What one network says of one image."""

    network: str
    label: str = Field(description="the class that the image is answered with")
    code: str = Field(description="the class as the labels write it")
    probability: float = Field(description="of that class")
    probabilities: dict[str, float] = Field(description="of every class, calibrated on validation")
    positive: bool | None = Field(description="at the operating point; null where there is no such question")
    referred: bool | None = Field(description="for a human, being unsure; null where that was not decided")
    unusual: list[str] = Field(description="in what the image is out of the ordinary")


class Image(BaseModel):
    """One image of a request: what each network says, or why it cannot be read."""

    name: str
    answers: list[Answer]
    unreadable: str | None = None


class Grades(BaseModel):
    """The images of a request, in their order."""

    images: list[Image]


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


class Operating(BaseModel):
    """Where a network answers positive."""

    wish: str = Field(description="what was wanted on validation")
    positive: str = Field(description="what a positive answer says")
    threshold: float = Field(description="the least probability of a positive answer")


class Loaded(BaseModel):
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
    operating: Operating | None
    coverage: float | None = Field(description="how often the truth is among the classes that are probable enough")
    ordinary: bool = Field(description="whether unusual images are marked")
    figures: dict[str, dict[str, float | None]] = Field(description="accuracy, balanced accuracy and AUC by split")
    report: str = Field(description="where its report is")


class Refusal(BaseModel):
    """Why a request was not answered."""

    detail: str


class Health(BaseModel):
    """That the server is there, and how many images wait."""

    status: str
    networks: list[str]
    waiting: int


def images_said(uploads: Sequence[Upload], said: Sequence[Graded | BaseException], networks: Sequence[Network]) -> Any:
    """Return what is said of uploads as plain data, in the shape of `Grades`."""
    return {"images": [_image(upload, one, networks) for upload, one in zip(uploads, said, strict=True)]}


def reasons(uploads: Sequence[Upload], said: Sequence[Graded | BaseException]) -> str:
    """Say why none of the uploads could be read."""
    if len(said) == 1:
        return f"The image cannot be read: {said[0]}."
    names = [upload.name or f"image {number}" for number, upload in enumerate(uploads, 1)]
    each = [f"{name}: {one}" for name, one in zip(names, said, strict=True)]
    return f"None of the {len(said)} images can be read. {'; '.join(each[:5])}."


def loaded(network: Network) -> dict[str, Any]:
    """Return what is to be known about a network, in the shape of `Loaded`."""
    answering, decision = network.answering, network.answering.decision
    first = members(network.folder)[0] if (network.folder / MEMBERS).is_file() else Run(network.folder)
    return {
        "name": network.name,
        "classes": list(answering.classes),
        "codes": list(answering.codes),
        "members": list(answering.names),
        "model": first.recipe.network.model,
        "size": first.recipe.images.size,
        "validated": decision.images,
        "operating": _operating(network),
        "coverage": decision.referral.coverage if decision.referral else None,
        "ordinary": decision.ordinary is not None,
        "figures": _figures(Run(network.folder)),
        "report": f"/runs/{quote(network.name, safe='')}",
    }


def _image(upload: Upload, said: Graded | BaseException, networks: Sequence[Network]) -> dict[str, Any]:
    if isinstance(said, Unreadable):
        return {"name": upload.name, "answers": [], "unreadable": str(said)}
    assert isinstance(said, Mapping)
    answers = [_answer(said[network.name], network) for network in networks]
    return {"name": upload.name, "answers": answers, "unreadable": None}


def _answer(said: Said, network: Network) -> dict[str, Any]:
    classes = network.answering.classes
    probabilities = dict(zip(classes, said.probabilities.tolist(), strict=True))
    label = classes[said.label]
    return {
        "network": network.name,
        "label": label,
        "code": network.answering.codes[said.label],
        "probability": probabilities[label],
        "probabilities": probabilities,
        "positive": said.positive,
        "referred": said.referred,
        "unusual": list(said.unusual),
    }


def _operating(network: Network) -> dict[str, Any] | None:
    answering, operating = network.answering, network.answering.decision.operating
    if not answering.asks:
        return None
    classes, referable = answering.classes, answering.part.referable
    positive = f"{classes[referable]} or above" if referable else classes[1]
    if operating is None:
        return {"wish": "the likelier answer", "positive": positive, "threshold": 0.5}
    return {"wish": operating.wish, "positive": positive, "threshold": operating.thresholds[0]}


def _figures(run: Run) -> dict[str, dict[str, float | None]]:
    """Return the main figures of the splits whose truth is known."""
    if not run.finished:
        return {}
    judged = {name: one for name, one in run.metrics().items() if name in ("valid", "test") and one["labelled"]}
    return {name: {key: one[key] for key in FIGURES} for name, one in judged.items()}
