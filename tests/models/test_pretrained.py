"""Initial weights are loaded from torchvision, the Hub, files and runs, by name, and the rest is reported."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from parfocal.errors import ParfocalError, UsageError
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.models.pretrained import (
    LoadReport,
    load_initial_weights,
    recognize_network,
    validate_initial_weights,
)
from parfocal.models.resnet import build_resnet
from parfocal.models.weight_files import PRETRAINED_HASHES, fetch_initial_weights
from parfocal.recipe import Recipe, load_recipe
from parfocal.recipe_schema import NetworkConfig
from parfocal.run import Run
from tests.models.test_resnet import REFERENCE
from tests.web import run_web_server

CLASSES = ("normal", "blast")


def _make_weights(model: str, n_classes: int = 1000, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return build_resnet(model, n_classes, **options).state_dict()


def _make_config(init: object, model: str = "resnet20", **keys: Any) -> NetworkConfig:
    return NetworkConfig(model=model, init=str(init), **keys)


def _make_run(folder: Path, model: str, keys: dict[str, Any] | None = None) -> Classifier:
    """Write the recipe and the weights of a run."""
    changes: dict[str, Any] = {"model": model, **(keys or {})}
    recipe = load_recipe(None, **changes)
    classifier = build_classifier(recipe.network, CLASSES)
    classifier.save(Run(folder).weights_path, {"recipe": recipe.model_dump(mode="json"), "epoch": 1})
    recipe.save(folder / "recipe.yaml")
    return classifier


def _load(classifier: Classifier, config: NetworkConfig) -> LoadReport:
    report = load_initial_weights(classifier, config)
    assert report is not None
    return report


@pytest.mark.parametrize("model", REFERENCE)
def test_weights_of_torchvision_are_loaded_by_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path))
    weights = {name: torch.rand(shape) for name, shape in REFERENCE[model]["state"].items()}
    torch.save(weights, tmp_path / "new.pth")
    digits = hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()[:8]
    assert PRETRAINED_HASHES["imagenet"][model]
    monkeypatch.setitem(PRETRAINED_HASHES["imagenet"], model, digits)
    (tmp_path / "new.pth").rename(tmp_path / f"{model}-{digits}.pth")
    classifier = build_classifier(_make_config("imagenet", model), CLASSES)
    report = _load(classifier, _make_config("imagenet", model))
    assert (report.newly_initialized, report.unused) == (("fc.weight", "fc.bias"), ("fc.weight", "fc.bias"))
    network_weights = classifier.network.state_dict()
    assert network_weights.keys() == weights.keys()
    assert all(network_weights[name].equal(weights[name]) for name in report.loaded)
    assert len(report.loaded) == sum(not name.endswith("tracked") for name in network_weights) - 2


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_is_loaded_with_its_head_if_the_number_of_classes_is_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    for n_classes in (2, 5):
        weights = _make_weights("resnet20", n_classes)
        torch.save({"state_dict": weights}, path) if suffix == "pth" else save_file(weights, path)
        classifier = build_classifier(_make_config(path), CLASSES)
        random_head = classifier.network.fc.weight.clone()
        report = _load(classifier, _make_config(path))
        assert report.newly_initialized == (() if n_classes == 2 else ("fc.weight", "fc.bias"))
        assert classifier.network.fc.weight.equal(weights["fc.weight"] if n_classes == 2 else random_head)
        assert classifier.network.get_submodule("layer3.2.bn2").running_var.equal(  # type: ignore[union-attr, operator]
            weights["layer3.2.bn2.running_var"]
        )
        assert f"Started from {path}: " in report.describe()


def test_loaded_weights_keep_the_memory_format_of_the_network(tmp_path: Path) -> None:
    torch.save(_make_weights("resnet20"), tmp_path / "w.pth")
    classifier = build_classifier(_make_config("scratch"), CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    load_initial_weights(classifier, _make_config(tmp_path / "w.pth"))
    assert classifier.network.get_submodule("layer2.0.conv1").weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(("file_channels", "channels"), [(3, 1), (1, 3), (3, 4)])
def test_the_first_convolution_is_adapted_to_another_number_of_channels(
    tmp_path: Path, file_channels: int, channels: int
) -> None:
    weights = _make_weights("resnet20", in_channels=file_channels)
    torch.save(weights, tmp_path / "w.pth")
    classifier = Classifier("resnet20", CLASSES, mean=(0.5,) * channels, std=(0.5,) * channels)
    report = _load(classifier, _make_config(tmp_path / "w.pth"))
    assert report.adapted == ("conv1.weight",)
    assert "adapted: conv1.weight" in report.describe()
    original = build_resnet("resnet20", 1000, in_channels=file_channels)
    original.load_state_dict(weights)
    gray = torch.rand(2, 1, 16, 16)
    expected = original.conv1(gray.expand(-1, file_channels, -1, -1))
    torch.testing.assert_close(classifier.network.conv1(gray.expand(-1, channels, -1, -1)), expected)


def test_the_head_of_a_run_is_loaded_only_for_the_same_classes(tmp_path: Path) -> None:
    trained = _make_run(tmp_path / "run", "resnet20").network
    for classes in (CLASSES, ("blast", "normal"), ("a", "b", "c")):
        classifier = build_classifier(_make_config("scratch"), classes)
        report = _load(classifier, _make_config(tmp_path / "run"))
        assert ("fc.weight" in report.loaded) == (classes == CLASSES)
        network = classifier.network
        same_shape = network.fc.weight.shape == trained.fc.weight.shape
        assert (same_shape and network.fc.weight.equal(trained.fc.weight)) == (classes == CLASSES)
        assert network.conv1.weight.equal(trained.conv1.weight)


def test_the_head_of_a_run_is_loaded_only_for_the_same_kind_of_head(tmp_path: Path) -> None:
    grades = ("no", "mild", "severe")
    trained = build_classifier(_make_config("scratch"), grades, loss="cumulative_link")
    with torch.no_grad():
        trained.ordinal_head.first_cutpoint.fill_(-7)  # type: ignore[union-attr]
    trained.save(tmp_path / "w.safetensors")
    for loss in ("cumulative_link", "regression", "cross_entropy"):
        classifier = build_classifier(_make_config("scratch"), grades, loss=loss)
        report = _load(classifier, _make_config(tmp_path / "w.safetensors"))
        same_head = loss == "cumulative_link"
        assert ("fc.weight" in report.loaded) == ("ordinal_head.first_cutpoint" in report.loaded) == same_head
        assert classifier.network.conv1.weight.equal(trained.network.conv1.weight)
        if same_head:
            assert classifier.named_weights()["ordinal_head.first_cutpoint"] == -7


def test_a_folder_of_runs_stands_for_the_only_run_of_the_same_network(tmp_path: Path) -> None:
    for model in ("resnet20", "plain20"):
        _make_run(tmp_path / model, model)
    assert fetch_initial_weights(_make_config(tmp_path, "plain20")) == tmp_path / "plain20" / "model.safetensors"
    with pytest.raises(UsageError, match=r"contains 2 runs, 0 of them of resnet18\. Name one run: .*plain20"):
        fetch_initial_weights(_make_config(tmp_path, "resnet18"))
    (tmp_path / "plain20" / "model.safetensors").unlink()
    with pytest.raises(ParfocalError, match="has no weights yet"):
        fetch_initial_weights(_make_config(tmp_path / "plain20", "plain20"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty is not a run folder"):
        fetch_initial_weights(_make_config(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("key", "trained_value", "value"), [("normalization", "half", "imagenet"), ("stride_in", "1x1", "3x3")]
)
def test_a_run_with_another_input_or_stride_is_rejected(
    tmp_path: Path, key: str, trained_value: str, value: str
) -> None:
    _make_run(tmp_path / "run", "resnet20", {key: trained_value})
    config = _make_config(tmp_path / "run")
    with pytest.raises(UsageError, match=rf"was trained with {key}={trained_value}, but the recipe has {key}={value}"):
        load_initial_weights(build_classifier(config, CLASSES), config)


@pytest.mark.parametrize("has_bias", [True, False])
def test_weights_with_other_biases_are_rejected(tmp_path: Path, has_bias: bool) -> None:
    torch.save(build_resnet("resnet20", 2, conv_bias=has_bias).state_dict(), tmp_path / "w.pth")
    config = NetworkConfig(model="resnet20", init=str(tmp_path / "w.pth"), conv_bias=not has_bias)
    with pytest.raises(UsageError, match=f"{'a' if has_bias else 'no'} bias.*Set conv_bias={str(has_bias).lower()}"):
        load_initial_weights(build_classifier(config, CLASSES), config)
    config = config.model_copy(update={"conv_bias": has_bias})
    load_report = load_initial_weights(build_classifier(config, CLASSES), config)
    assert load_report is not None
    assert not load_report.newly_initialized
    assert recognize_network(config) == {"model": "resnet20", **({"conv_bias": True} if has_bias else {})}


def test_a_file_that_hardly_fits_is_rejected_with_a_table_and_the_network_that_it_fits(tmp_path: Path) -> None:
    torch.save(_make_weights("resnet50"), tmp_path / "w.pth")
    config = _make_config(tmp_path / "w.pth", "resnet18")
    classifier = build_classifier(config, CLASSES)
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    with pytest.raises(ParfocalError) as error:
        load_initial_weights(classifier, config)
    message = str(error.value)
    assert "does not fit resnet18" in message
    assert "The file looks like model=resnet50" in message
    assert re.search(r"layer1\.0\.conv1\.weight +64×64×1×1 +64×64×3×3\n", message)
    assert "more" in message.splitlines()[-1]
    assert all(classifier.network.state_dict()[name].equal(value) for name, value in before.items())
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ParfocalError, match="another kind of network"):
        load_initial_weights(classifier, config)


def test_a_small_part_of_a_large_file_does_not_count_as_fitting(tmp_path: Path) -> None:
    torch.save(_make_weights("resnet152"), tmp_path / "w.pth")
    config = _make_config(tmp_path / "w.pth", "resnet50")
    with pytest.raises(ParfocalError, match="model=resnet152"):
        load_initial_weights(build_classifier(config, CLASSES), config)


@pytest.mark.usefixtures("online")
def test_a_hub_repository_gives_its_safetensors_file_checked_by_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(_make_weights("resnet20", 10), tmp_path / "hub.safetensors")
    content = (tmp_path / "hub.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path / "cache"))
    with run_web_server() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        site.files["/me/net/resolve/main/model.safetensors"] = content[:-1] + b"!"
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 1\n"
        site.files["/me/net/raw/main/model.safetensors"] = pointer.encode()
        with pytest.raises(ParfocalError, match="is not the expected file"):
            fetch_initial_weights(_make_config("hf:me/net"))
        site.files["/me/net/resolve/main/model.safetensors"] = content
        report = _load(build_classifier(_make_config("hf:me/net"), CLASSES), _make_config("hf:me/net"))
        with pytest.raises(ParfocalError, match=r"Cannot download model\.safetensors from .*me/absent/.*404"):
            fetch_initial_weights(_make_config("hf:me/absent"))
        with pytest.raises(UsageError, match="hf:OWNER/REPOSITORY"):
            fetch_initial_weights(_make_config("hf:net"))
    assert report.file_hash == f"sha256:{sha256}"
    assert fetch_initial_weights(_make_config("hf:me/net")) == tmp_path / "cache" / "me--net" / "model.safetensors"


@pytest.mark.usefixtures("online")
def test_without_internet_access_the_error_says_which_file_to_place_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("no_proxy", "")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ParfocalError) as error:
        fetch_initial_weights(_make_config("imagenet", "resnet18"))
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(error.value)
    assert f"place it at {tmp_path / 'resnet18-f37072fd.pth'}" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"init": "imagenet", "normalization": "none"},
            "init=imagenet was trained with normalization=imagenet, not none",
        ),
        ({"init": "imagenet", "stride_in": "1x1"}, "was trained with stride_in=3x3"),
        ({"init": "imagenet", "conv_bias": True}, "was trained without biases. Set conv_bias=false"),
        ({"freeze": "head"}, "freeze=head would freeze random weights"),
        ({"head": "probe"}, "head=probe needs pretrained weights"),
        (
            {"head": "warm_start", "init": "imagenet", "loss": "regression"},
            "fits a logit for each class, and loss=regression needs another head",
        ),
        ({"unfreeze_every": 2}, "unfreeze_every=2 needs freeze"),
    ],
)
def test_contradictory_recipes_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(None, **changes)


def test_an_invalid_init_is_rejected_with_a_hint() -> None:
    with pytest.raises(UsageError, match=r"init=imagnet does not exist\. Did you mean 'imagenet'\?.*a run folder"):
        fetch_initial_weights(_make_config("imagnet"))
    with pytest.raises(UsageError, match=r"no imagenet-v2 weights for resnet18; they are available for resnet50"):
        fetch_initial_weights(_make_config("imagenet-v2", "resnet18"))
    assert fetch_initial_weights(_make_config("scratch")) is None


def test_a_network_that_cannot_be_built_is_rejected_also_with_random_weights() -> None:
    with pytest.raises(UsageError, match=r"groups and width_per_group need .* such as resnet50, not resnet18"):
        validate_initial_weights(_make_config("scratch", "resnet18", groups=2))
    validate_initial_weights(_make_config("scratch", "resnet50", groups=2))


def test_the_report_is_plain_data(tmp_path: Path) -> None:
    torch.save(_make_weights("resnet20"), tmp_path / "w.pth")
    report = _load(build_classifier(_make_config("scratch"), CLASSES), _make_config(tmp_path / "w.pth"))
    assert json.loads(json.dumps(asdict(report)))["unused"] == ["fc.weight", "fc.bias"]
    assert Recipe().network.init == "scratch"


def test_the_network_of_weights_on_this_machine_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path))
    torch.save(_make_weights("resnet20"), tmp_path / "w.pth")
    assert recognize_network(_make_config(tmp_path / "w.pth", "resnet18")) == {"model": "resnet20"}
    torch.save(_make_weights("resnet18", stem="small"), tmp_path / "small.pth")
    assert recognize_network(_make_config(tmp_path / "small.pth")) == {"model": "resnet18", "stem": "small"}
    _make_run(tmp_path / "run", "plain20", {"normalization": "half"})
    recognized = recognize_network(_make_config(tmp_path / "run", "resnet18"))
    assert (recognized["model"], recognized["normalization"]) == ("plain20", "half")
    assert recognize_network(_make_config("hf:me/net")) == {}
    (tmp_path / "me--net").mkdir()
    save_file(_make_weights("resnet20"), tmp_path / "me--net" / "model.safetensors")
    assert recognize_network(_make_config("hf:me/net", "resnet18")) == {"model": "resnet20"}
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    for init in ("auto", "scratch", "imagenet", "imagenet-v2", tmp_path / "w.pth"):
        assert recognize_network(_make_config(init, "resnet18")) == {}
    with pytest.raises(UsageError, match=r"init=nowhere\.pth does not exist"):
        recognize_network(_make_config("nowhere.pth"))
