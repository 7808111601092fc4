"""Images that lie in an array of an `.npz` file; their path is `file.npz#member/row`."""

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np


def get_container_file(path: str | Path) -> Path:
    """Return the file on disk that a path means, for an image that is a file or lies in one."""
    return Path(str(path).partition("#")[0]) if ".npz#" in str(path) else Path(path)


def read_array_image(path: Path) -> np.ndarray | None:
    """Return the RGB pixels of a path into an `.npz` file; None for any other path, ValueError with the reason."""
    file, hash_sign, place = str(path).partition("#")
    if not hash_sign or not file.endswith(".npz"):
        return None
    member, _, row = place.partition("/")
    images = _load_member(file, Path(file).stat().st_mtime_ns, member)
    number = int(row)
    if number >= len(images):
        raise ValueError(f"{member} has {len(images)} images, there is no number {number}")
    image = images[number]
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"images of {member} are {image.dtype} of shape {image.shape}; read are uint8, grey or RGB")
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


@lru_cache(maxsize=4)
def _load_member(file: str, modified: int, member: str) -> np.ndarray:
    """Load one array; `changed` makes a file that was written anew another one."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[member]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{member} cannot be read: {error}") from None
