"""The files of initial weights: torchvision's and those of the Hugging Face Hub in the cache, a file, or a run's."""

import os
import re
from pathlib import Path

from parfocal.download import DownloadError, download
from parfocal.errors import ParfocalError, UsageError, find_similar, join_limited
from parfocal.io import get_cache_folder
from parfocal.manifest import file_exists
from parfocal.recipe_schema import AUTO_INIT, NetworkConfig
from parfocal.run import Run, find_runs

PRETRAINED_HASHES: dict[str, dict[str, str]] = {
    "imagenet": {
        "resnet18": "f37072fd",
        "resnet34": "b627a593",
        "resnet50": "0676ba61",
        "resnet101": "63fe2227",
        "resnet152": "394f9c45",
        "resnext50_32x4d": "7cdf4587",
        "wide_resnet50_2": "95faca4d",
    },
    "imagenet-v2": {
        "resnet50": "11ad3fa6",
        "resnet101": "cd907fc2",
        "resnet152": "f82ba261",
        "resnext50_32x4d": "1a0047aa",
        "wide_resnet50_2": "9ba9bcbe",
    },
}
"""The first digits of the SHA-256 of torchvision's files, which are in their names: `resnet18-f37072fd.pth`."""

_PRETRAINED_URL = "https://download.pytorch.org/models"


def fetch_initial_weights(config: NetworkConfig) -> Path | None:
    """Return the file of a recipe's `init`, downloaded if necessary; None for random weights."""
    if config.init == "scratch":
        return None
    if config.init in PRETRAINED_HASHES:
        hashes = PRETRAINED_HASHES[config.init]
        if config.model not in hashes:
            raise UsageError(
                f"There are no {config.init} weights for {config.model}; they are available for {', '.join(hashes)}."
            )
        address = get_address(config.init, config.model)
        return download(address, _get_cached_path(config.init, config.model), f"sha256:{hashes[config.model]}")
    if config.init.startswith("hf:"):
        return _download_from_hub(config.init.removeprefix("hf:"))
    path = Path(config.init).expanduser()
    if path.is_dir():
        return _find_run_weights(path, config.model)
    if not path.is_file():
        similar = find_similar(config.init, (AUTO_INIT, "scratch", *PRETRAINED_HASHES))
        hint = f"Did you mean {similar!r}? " if similar else ""
        raise UsageError(
            f"init={config.init} does not exist. {hint}Valid are {AUTO_INIT}, scratch, {', '.join(PRETRAINED_HASHES)}, "
            "hf:OWNER/REPOSITORY, a .pth or .safetensors file, or a run folder."
        )
    return path


def find_local_weights(config: NetworkConfig) -> Path | None:
    """Return the file of a recipe's `init` that is on this machine; None for random weights, and before a download."""
    if config.init in (AUTO_INIT, "scratch"):
        return None
    if config.init in PRETRAINED_HASHES:
        path = _get_cached_path(config.init, config.model) if config.model in PRETRAINED_HASHES[config.init] else None
    elif config.init.startswith("hf:"):
        path = _get_hub_path(config.init.removeprefix("hf:"))
    else:
        return fetch_initial_weights(config)
    return path if path is not None and path.is_file() else None


def get_address(init: str, model: str) -> str:
    """Return the address of the pretrained weights of a network, at torchvision's site or at a mirror of it."""
    folder = os.environ.get("PARFOCAL_MIRROR") or _PRETRAINED_URL
    return f"{folder.rstrip('/')}/{_get_cached_path(init, model).name}"


def _get_cached_path(init: str, model: str) -> Path:
    return get_cache_folder("weights", "PARFOCAL_WEIGHTS") / f"{model}-{PRETRAINED_HASHES[init][model]}.pth"


def _download_from_hub(repository: str) -> Path:
    """Download `model.safetensors` of a repository; its Git LFS pointer contains the hash."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"init=hf:{repository} is not of the form hf:OWNER/REPOSITORY.")
    url = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repository}"
    file_url = f"{url}/resolve/main/model.safetensors"
    path = _get_hub_path(repository)
    pointer = path.with_name("model.safetensors.note")
    if not path.exists() and not pointer.exists():
        try:
            download(f"{url}/raw/main/model.safetensors", pointer)
        except DownloadError as error:
            if error.is_unreachable:
                # The weights can be placed without the pointer, and asking once more would only take time.
                raise DownloadError(file_url, path, error.reason) from None
            return download(file_url, path)
    found = re.search(rb"sha256:[0-9a-f]{64}", pointer.read_bytes()[:1000]) if pointer.exists() else None
    return download(file_url, path, found[0].decode() if found else "")


def _get_hub_path(repository: str) -> Path:
    return get_cache_folder("weights", "PARFOCAL_WEIGHTS") / repository.replace("/", "--") / "model.safetensors"


def _find_run_weights(folder: Path, model: str) -> Path:
    """Return the weights of a run, or of the only run with the same network in a folder of runs."""
    all_runs = [Run(folder)] if (folder / "recipe.yaml").is_file() else find_runs(folder)
    runs = all_runs if len(all_runs) == 1 else [run for run in all_runs if run.recipe.network.model == model]
    if not all_runs:
        raise UsageError(f"init={folder} is not a run folder and contains no runs. Name a run folder.")
    if len(runs) != 1:
        raise UsageError(
            f"init={folder} contains {len(all_runs)} runs, {len(runs)} of them of {model}. "
            f"Name one run: {join_limited(run.folder for run in all_runs)}."
        )
    if not file_exists(runs[0].weights_path):
        raise ParfocalError(f"{runs[0].folder} has no weights yet. Let it finish an epoch first.")
    return runs[0].weights_path
