"""Networks begin from published weights, files and runs; what fits is taken by name, and the rest is told."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from parfocal.errors import ParfocalError, UsageError
from parfocal.models import pretrained as starts
from parfocal.models import resnet
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.recipe import Recipe, load_recipe
from parfocal.run import Run
from parfocal.schema import NetworkConfig
from tests.models.test_resnet import REFERENCE
from tests.web import run_web_server

CLASSES = ("normal", "blast")


def _weights(model: str, classes: int = 1000, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return resnet.build_resnet(model, classes, **options).state_dict()


def _part(init: object, model: str = "resnet20", **keys: Any) -> NetworkConfig:
    return NetworkConfig(model=model, init=str(init), **keys)


def _run(folder: Path, model: str, keys: dict[str, Any] | None = None) -> Classifier:
    """Write what a run leaves of its weights."""
    changes: dict[str, Any] = {"model": model, **(keys or {})}
    chosen = load_recipe(None, **changes)
    classifier = build_classifier(chosen.network, CLASSES)
    classifier.save(Run(folder).weights_path, {"recipe": chosen.model_dump(mode="json"), "epoch": 1})
    chosen.save(folder / "recipe.yaml")
    return classifier


@pytest.mark.parametrize("model", REFERENCE)
def test_published_weights_load_by_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path))
    weights = {name: torch.rand(shape) for name, shape in REFERENCE[model]["state"].items()}
    torch.save(weights, tmp_path / "new.pth")
    digits = hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()[:8]
    assert starts.PRETRAINED_HASHES["imagenet"][model]
    monkeypatch.setitem(starts.PRETRAINED_HASHES["imagenet"], model, digits)
    (tmp_path / "new.pth").rename(tmp_path / f"{model}-{digits}.pth")
    classifier = build_classifier(_part("imagenet", model), CLASSES)
    fit = starts.load_initial_weights(classifier, _part("imagenet", model))
    assert fit is not None
    assert (fit.newly_initialized, fit.unused) == (("fc.weight", "fc.bias"), ("fc.weight", "fc.bias"))
    own = classifier.network.state_dict()
    assert own.keys() == weights.keys()
    assert all(own[name].equal(value) for name, value in weights.items() if name in fit.loaded)
    assert len(fit.loaded) == sum(not name.endswith("tracked") for name in own) - 2


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_ones_own_gives_its_weights_and_its_head_if_as_many_classes(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"w.{suffix}"
    for count in (2, 5):
        weights = _weights("resnet20", count)
        torch.save({"state_dict": weights}, file) if suffix == "pth" else save_file(weights, file)
        classifier = build_classifier(_part(file), CLASSES)
        fresh = classifier.network.fc.weight.clone()
        fit = starts.load_initial_weights(classifier, _part(file))
        assert fit is not None
        assert fit.newly_initialized == (() if count == 2 else ("fc.weight", "fc.bias"))
        assert classifier.network.fc.weight.equal(weights["fc.weight"] if count == 2 else fresh)
        assert classifier.network.get_submodule("layer3.2.bn2").running_var.equal(  # type: ignore[union-attr, operator]
            weights["layer3.2.bn2.running_var"]
        )
        assert f"Started from {file}: " in fit.describe()


def test_weights_keep_the_layout_that_the_network_has(tmp_path: Path) -> None:
    torch.save(_weights("resnet20"), tmp_path / "w.pth")
    classifier = build_classifier(_part("scratch"), CLASSES).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    starts.load_initial_weights(classifier, _part(tmp_path / "w.pth"))
    assert classifier.network.get_submodule("layer2.0.conv1").weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(("given", "wanted"), [(3, 1), (1, 3), (3, 4)])
def test_the_first_convolution_takes_another_number_of_channels(tmp_path: Path, given: int, wanted: int) -> None:
    weights = _weights("resnet20", in_channels=given)
    torch.save(weights, tmp_path / "w.pth")
    classifier = Classifier("resnet20", CLASSES, mean=(0.5,) * wanted, std=(0.5,) * wanted)
    fit = starts.load_initial_weights(classifier, _part(tmp_path / "w.pth"))
    assert fit is not None
    assert fit.adapted == ("conv1.weight",)
    assert "adapted: conv1.weight" in fit.describe()
    before = resnet.build_resnet("resnet20", 1000, in_channels=given)
    before.load_state_dict(weights)
    grey = torch.rand(2, 1, 16, 16)
    one, other = (
        network.conv1(grey.expand(-1, n, -1, -1)) for network, n in ((before, given), (classifier.network, wanted))
    )
    torch.testing.assert_close(one, other)


def test_a_run_gives_its_head_only_to_the_same_classes(tmp_path: Path) -> None:
    before = _run(tmp_path / "run", "resnet20")
    for classes in (CLASSES, ("blast", "normal"), ("a", "b", "c")):
        classifier = build_classifier(_part("scratch"), classes)
        fit = starts.load_initial_weights(classifier, _part(tmp_path / "run"))
        assert fit is not None
        assert ("fc.weight" in fit.loaded) == (classes == CLASSES)
        same = classifier.network.fc.weight.shape == before.network.fc.weight.shape
        assert (same and classifier.network.fc.weight.equal(before.network.fc.weight)) == (classes == CLASSES)
        assert classifier.network.conv1.weight.equal(before.network.conv1.weight)


def test_a_run_gives_its_head_only_to_a_head_that_means_the_same(tmp_path: Path) -> None:
    grades = ("no", "mild", "severe")
    before = build_classifier(_part("scratch"), grades, ordinal_head="cutpoints")
    with torch.no_grad():
        before.ordinal_head.first_cutpoint.fill_(-7)  # type: ignore[union-attr]
    before.save(tmp_path / "w.safetensors")
    for link in ("cutpoints", "grades", "none"):
        classifier = build_classifier(_part("scratch"), grades, ordinal_head=link)
        fit = starts.load_initial_weights(classifier, _part(tmp_path / "w.safetensors"))
        assert fit is not None
        assert ("fc.weight" in fit.loaded) == ("link.lowest" in fit.loaded) == (link == "cutpoints")
        assert classifier.network.conv1.weight.equal(before.network.conv1.weight)
        if link == "cutpoints":
            assert classifier.named_weights()["link.lowest"] == -7


def test_among_several_runs_the_one_of_the_same_network_is_taken(tmp_path: Path) -> None:
    for model in ("resnet20", "plain20"):
        _run(tmp_path / model, model)
    assert starts.fetch_initial_weights(_part(tmp_path, "plain20")) == tmp_path / "plain20" / "model.safetensors"
    with pytest.raises(UsageError, match=r"holds 2 runs, 0 of them of resnet18\. Name one run.*plain20"):
        starts.fetch_initial_weights(_part(tmp_path, "resnet18"))
    (tmp_path / "plain20" / "model.safetensors").unlink()
    with pytest.raises(ParfocalError, match="has no weights yet"):
        starts.fetch_initial_weights(_part(tmp_path / "plain20", "plain20"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty is not a run folder"):
        starts.fetch_initial_weights(_part(tmp_path / "empty"))


@pytest.mark.parametrize(("key", "was", "now"), [("normalization", "half", "imagenet"), ("stride_in", "1x1", "3x3")])
def test_a_run_that_saw_other_pixels_is_refused(tmp_path: Path, key: str, was: str, now: str) -> None:
    _run(tmp_path / "run", "resnet20", {key: was})
    part = _part(tmp_path / "run")
    with pytest.raises(UsageError, match=rf"was trained with {key}={was}, the recipe has {key}={now}"):
        starts.load_initial_weights(build_classifier(part, CLASSES), part)


def test_a_file_that_hardly_fits_is_refused_with_a_table_and_the_network_it_is_of(tmp_path: Path) -> None:
    torch.save(_weights("resnet50"), tmp_path / "w.pth")
    part = _part(tmp_path / "w.pth", "resnet18")
    classifier = build_classifier(part, CLASSES)
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    with pytest.raises(ParfocalError) as error:
        starts.load_initial_weights(classifier, part)
    text = str(error.value)
    assert "does not fit resnet18" in text
    assert "They look like those of model=resnet50" in text
    assert re.search(r"layer1\.0\.conv1\.weight +64×64×1×1 +64×64×3×3\n", text)
    assert "more" in text.splitlines()[-1]
    assert all(classifier.network.state_dict()[name].equal(value) for name, value in before.items())
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ParfocalError, match="another kind of network"):
        starts.load_initial_weights(classifier, part)


def test_a_small_part_of_a_large_file_does_not_count_as_fitting(tmp_path: Path) -> None:
    torch.save(_weights("resnet152"), tmp_path / "w.pth")
    part = _part(tmp_path / "w.pth", "resnet50")
    with pytest.raises(ParfocalError, match="model=resnet152"):
        starts.load_initial_weights(build_classifier(part, CLASSES), part)


def test_a_repository_of_the_hub_gives_its_safetensors_checked_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(_weights("resnet20", 10), tmp_path / "made.safetensors")
    content = (tmp_path / "made.safetensors").read_bytes()
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    with run_web_server() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        site.files["/me/net/resolve/main/model.safetensors"] = content[:-1] + b"!"
        note = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(content).hexdigest()}\nsize 1\n"
        site.files["/me/net/raw/main/model.safetensors"] = note.encode()
        with pytest.raises(ParfocalError, match="is not the file that was expected"):
            starts.fetch_initial_weights(_part("hf:me/net"))
        site.files["/me/net/resolve/main/model.safetensors"] = content
        classifier = build_classifier(_part("hf:me/net"), CLASSES)
        fit = starts.load_initial_weights(classifier, _part("hf:me/net"))
        with pytest.raises(ParfocalError, match=r"Cannot fetch model\.safetensors from .*me/absent/.*404"):
            starts.fetch_initial_weights(_part("hf:me/absent"))
        with pytest.raises(UsageError, match="hf:OWNER/REPOSITORY"):
            starts.fetch_initial_weights(_part("hf:net"))
    assert fit is not None
    assert fit.file_hash == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert starts.fetch_initial_weights(_part("hf:me/net")) == tmp_path / "cache" / "me--net" / "model.safetensors"


def test_without_a_network_one_message_says_what_to_place_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ParfocalError) as error:
        starts.fetch_initial_weights(_part("imagenet", "resnet18"))
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(error.value)
    assert f"place it at {tmp_path / 'resnet18-f37072fd.pth'}" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"init": "imagenet", "normalization": "none"},
            "init=imagenet saw pixels scaled by normalization=imagenet, not none",
        ),
        ({"init": "imagenet", "stride_in": "1x1"}, "was trained with stride_in=3x3"),
        ({"freeze": "head"}, "freeze=head would hold random weights"),
        ({"unfreeze_every": 2}, "unfreeze_every=2 needs a freeze"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe(None, **changes)


def test_words_that_mean_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"init=imagnet is not there\. Did you mean 'imagenet'\?.*a run folder"):
        starts.fetch_initial_weights(_part("imagnet"))
    with pytest.raises(UsageError, match=r"no imagenet-v2 weights for resnet18; they are published for resnet50"):
        starts.fetch_initial_weights(_part("imagenet-v2", "resnet18"))
    assert starts.fetch_initial_weights(_part("scratch")) is None


def test_a_network_that_cannot_be_built_is_refused_with_no_start_to_fetch_either() -> None:
    with pytest.raises(UsageError, match=r"groups and width_per_group need .* such as resnet50, not resnet18"):
        starts.validate_initial_weights(_part("scratch", "resnet18", groups=2))
    starts.validate_initial_weights(_part("scratch", "resnet50", groups=2))


def test_what_was_taken_is_plain_data(tmp_path: Path) -> None:
    torch.save(_weights("resnet20"), tmp_path / "w.pth")
    fit = starts.load_initial_weights(build_classifier(_part("scratch"), CLASSES), _part(tmp_path / "w.pth"))
    assert json.loads(json.dumps(vars(fit)))["not_used"] == ["fc.weight", "fc.bias"]
    assert Recipe().network.init == "scratch"
