"""The experiments of the results pages, as data: which recipe trains on which data set, and which page shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from parfocal.synthetic.dataset import synthesize

WEIGHTS = "weights"
"""The initial weights of an experiment that begins from the file of weights."""


@dataclass(frozen=True)
class DataSet:
    """A data set: its path in the folder of data sets, and what reading it needs.

    `carved` means that a test split is carved from its training split. A synthetic set is drawn by `draw`.
    """

    path: str
    carved: bool = False
    changes: tuple[str, ...] = ()
    draw: Callable[[Path], Path] | None = None


@dataclass(frozen=True)
class Experiment:
    """A recipe with changes, trained on a data set with several seeds.

    `init` is `scratch`, `weights` for the file of weights, or the name of an experiment whose run gives the weights.
    """

    name: str
    label: str
    data: str
    recipe: str = "auto"
    changes: tuple[str, ...] = ("model=resnet18",)
    init: str = "scratch"
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Page:
    """A page that compares experiments on the test images of one data set.

    The differences are to `baseline`. Learning curves and confusion matrices are those of the experiments in `plotted`;
    with `explained`, class activation maps of these too, which shows images of the data set.
    """

    name: str
    title: str
    about: str
    experiments: tuple[str, ...]
    baseline: str
    plotted: tuple[str, ...]
    explained: bool = False


@dataclass(frozen=True)
class GapPage:
    """A page that compares a split by patient with a split by image on data sets: pairs of experiments."""

    name: str
    title: str
    about: str
    pairs: dict[str, tuple[str, str]]


_ALLOW = ("allow=identical_across_splits,conflicting_labels",)

DATA_SETS = {
    "aptos": DataSet("aptos-224", carved=True, changes=_ALLOW),
    "eyepacs": DataSet("eyepacs-256", carved=True, changes=_ALLOW),
    "eyepacs-whole": DataSet("eyepacs-256", changes=_ALLOW),
    "retinamnist": DataSet("retinamnist/retinamnist.npz"),
    "cifar10": DataSet("cifar10-subset/cifar10_subset.npz", changes=("data.format=medmnist",)),
    "smears": DataSet("smears", draw=lambda folder: synthesize("smear", folder)),
}

_EPOCHS = 10
"""The source documents state no number of epochs; their recipes have ten, and so have the networks beside them."""


def _list_pretraining(data: str) -> list[Experiment]:
    """List the networks with and without pretraining on a data set, and those of the recipe of the source documents."""
    experiments: list[Experiment] = []
    for side in (96, 224):
        changes = ("model=resnet18", f"size={side}", f"crop_size={side}", f"epochs={_EPOCHS}")
        head = (*changes, "freeze=head")
        experiments += [
            Experiment(f"{data}-scratch-{side}", f"from scratch, {side} px", data, changes=changes),
            Experiment(f"{data}-all-{side}", f"pretrained, all layers, {side} px", data, changes=changes, init=WEIGHTS),
            Experiment(f"{data}-head-{side}", f"pretrained, head only, {side} px", data, changes=head, init=WEIGHTS),
        ]
    recipes = (
        ("documents-scratch", "documents' recipe, from scratch, 224 px", "fundus-finetune-224", "scratch"),
        ("documents-all", "documents' recipe, pretrained, all layers, 224 px", "fundus-finetune-224", WEIGHTS),
        ("documents-head", "documents' recipe, pretrained, head only, 224 px", "fundus-head-224", WEIGHTS),
    )
    for name, label, recipe, init in recipes:
        experiments.append(Experiment(f"{data}-{name}", label, data, recipe, ("test_curve=false",), init))
    return experiments


def _list_all() -> list[Experiment]:
    changes = ("model=resnet18", f"epochs={_EPOCHS}")
    by_patient = (*changes, "split.keep=false", "split.test=0.2")
    by_image = (*by_patient, "split.by=image")
    seeds = (0, 1, 2, 3, 4)
    return [
        *_list_pretraining("aptos"),
        *_list_pretraining("eyepacs"),
        Experiment("retinamnist-scratch", "from scratch", "retinamnist", seeds=seeds),
        Experiment("retinamnist-pretrained", "from ImageNet", "retinamnist", init=WEIGHTS, seeds=seeds),
        Experiment("cifar10", "CIFAR-10", "cifar10", "cifar10", seeds=(0,)),
        Experiment("starts-scratch", "from scratch", "eyepacs", changes=changes),
        Experiment("starts-cifar10", "from CIFAR-10", "eyepacs", changes=changes, init="cifar10"),
        Experiment("starts-imagenet", "from ImageNet", "eyepacs", changes=changes, init=WEIGHTS),
        Experiment("starts-aptos", "from ImageNet, then APTOS", "eyepacs", changes=changes, init="aptos-all-224"),
        Experiment("eyepacs-by-patient", "by patient", "eyepacs-whole", changes=by_patient, init=WEIGHTS),
        Experiment("eyepacs-by-image", "by image", "eyepacs-whole", changes=by_image, init=WEIGHTS),
        Experiment("smears-by-patient", "by patient", "smears", changes=by_patient, seeds=seeds),
        Experiment("smears-by-image", "by image", "smears", changes=by_image, seeds=seeds),
    ]


EXPERIMENTS = {experiment.name: experiment for experiment in _list_all()}


def _build_pretraining_page(data: str, title: str) -> Page:
    names = tuple(experiment.name for experiment in _list_pretraining(data))
    return Page(
        f"pretraining-{data}",
        title,
        "ResNet-18 from random weights and from ImageNet weights, ten epochs each, at 96 and 224 pixels: all layers "
        "trained, or the head only. The recipe of the source documents is trained on the same images.",
        names,
        baseline=f"{data}-documents-all",
        plotted=(f"{data}-scratch-224", f"{data}-all-224"),
    )


PAGES: tuple[Page | GapPage, ...] = (
    _build_pretraining_page("aptos", "With and without pretraining: APTOS"),
    _build_pretraining_page("eyepacs", "With and without pretraining: EyePACS"),
    Page(
        "retinamnist",
        "RetinaMNIST on its official split",
        "The official split; its test images choose nothing. The best published result of a small network is "
        "an accuracy of .531 and an AUC of .750 (MedMNIST v2).",
        ("retinamnist-scratch", "retinamnist-pretrained"),
        baseline="retinamnist-scratch",
        plotted=("retinamnist-scratch", "retinamnist-pretrained"),
        explained=True,
    ),
    Page(
        "initial-weights",
        "EyePACS from four initial weights",
        "The same recipe from random weights, from CIFAR-10, from ImageNet, and from ImageNet by way of APTOS. The "
        "test patients choose nothing.",
        ("starts-scratch", "starts-cifar10", "starts-imagenet", "starts-aptos"),
        baseline="starts-scratch",
        plotted=("starts-scratch", "starts-aptos"),
    ),
    GapPage(
        "patients",
        "What a split that ignores patients would have claimed",
        "The same recipe on splits of the same size. By patient, all images of a patient are in one split; by image, "
        "images of a patient that was trained on are in the test split too.",
        {
            "EyePACS": ("eyepacs-by-patient", "eyepacs-by-image"),
            "synthetic smears": ("smears-by-patient", "smears-by-image"),
        },
    ),
)
