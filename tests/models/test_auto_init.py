"""`init=auto` gives all networks of a command ImageNet weights from the cache or the internet, or none of them."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from parfocal.models.auto_init import explain_misfit, fetch_start, find_start
from parfocal.models.weight_files import PRETRAINED_HASHES
from parfocal.recipe_schema import NetworkConfig
from tests.web import run_web_server

NETWORKS = [NetworkConfig(model="resnet18", init="auto"), NetworkConfig(model="resnet34", init="auto")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has the weights of ResNet-18, a few bytes."""
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path))
    for model in ("resnet18", "resnet34"):
        monkeypatch.setitem(PRETRAINED_HASHES["imagenet"], model, hashlib.sha256(model.encode()).hexdigest()[:8])
    (tmp_path / f"resnet18-{PRETRAINED_HASHES['imagenet']['resnet18']}.pth").write_bytes(b"resnet18")
    return tmp_path


def test_weights_in_the_cache_are_used_also_offline(cache: Path) -> None:
    start = find_start(NETWORKS[:1])
    assert (start.init, start.to_fetch) == ("imagenet", ())
    assert "on this machine" in start.reason


def test_all_networks_start_from_scratch_where_the_weights_of_one_are_missing(cache: Path) -> None:
    start = find_start(NETWORKS)
    assert start.init == "scratch"
    name = f"resnet34-{PRETRAINED_HASHES['imagenet']['resnet34']}.pth"
    address = re.escape(f"https://download.pytorch.org/models/{name}")
    assert re.search(rf"{address}: PARFOCAL_OFFLINE is set\..*place it at {re.escape(str(cache / name))}", start.reason)
    assert "\n" not in start.reason


@pytest.mark.usefixtures("online")
def test_missing_weights_are_fetched_from_the_mirror_when_training_starts(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"resnet34-{PRETRAINED_HASHES['imagenet']['resnet34']}.pth"
    with run_web_server() as site:
        monkeypatch.setenv("PARFOCAL_MIRROR", f"{site.url}/mirror/")
        planned = find_start(NETWORKS)
        assert planned.reason == f"training would fetch 87 MB from {site.url}/mirror/{name}"
        assert (planned.init, planned.to_fetch, site.requests) == ("imagenet", ("resnet34",), [])
        failed = fetch_start(planned)
        assert (failed.init, failed.to_fetch) == ("scratch", ())
        assert "404" in failed.reason
        site.files[f"/mirror/{name}"] = b"something else"
        assert "is not the expected file" in fetch_start(planned).reason
        site.files[f"/mirror/{name}"] = b"resnet34"
        assert fetch_start(planned).init == "imagenet"
    assert (cache / name).read_bytes() == b"resnet34"
    assert find_start(NETWORKS).init == "imagenet"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"model": "resnet20"}, "there are no ImageNet weights for resnet20"),
        ({"normalization": "none"}, "need another normalization than none"),
        ({"stem": "small"}, "there are no ImageNet weights for stem=small"),
        ({"model": "resnet50", "stride_in": "1x1", "groups": 2}, "no ImageNet weights for stride_in=1x1, groups=2"),
        ({"normalization": "sample"}, "need another normalization than sample"),
        ({"conv_bias": True}, "no ImageNet weights for conv_bias=true"),
    ],
)
def test_networks_without_imagenet_weights_start_from_scratch(cache: Path, keys: dict[str, Any], reason: str) -> None:
    start = find_start([NETWORKS[0], NetworkConfig(init="auto", **keys)])
    assert start.init == "scratch"
    assert reason in start.reason


def test_options_that_change_nothing_fit() -> None:
    config = NetworkConfig(model="resnet50", stem="imagenet", groups=1, width_per_group=64, normalization="half")
    assert explain_misfit(config) == ""
