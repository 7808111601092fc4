"""Find the image file of a path or bare name below a folder."""

from collections import defaultdict
from functools import cached_property
from pathlib import Path

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".dcm")


class ImageFinder:
    """Finds images below a folder by path or by name; the folder is searched only if the path itself is not a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, split: str = "") -> Path:
        """Return the file of a path or bare name; files below a folder named after the split come first."""
        direct = self.folder / name
        if direct.suffix and direct.is_file():
            return direct
        paths = self._paths_by_name.get(direct.name)
        if not paths:
            return direct
        in_split = [
            path
            for path in paths
            if split and any(split in parent for parent in path.relative_to(self.folder).parts[:-1])
        ]
        return (in_split or paths)[0]

    @cached_property
    def _paths_by_name(self) -> dict[str, list[Path]]:
        """The images of each name, and of each name without its suffix, sorted by the order of `IMAGE_SUFFIXES`."""
        by_name: dict[str, list[Path]] = defaultdict(list)
        by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in find_images(self.folder):
            by_name[path.name].append(path)
            by_stem[path.stem].append(path)
        for paths in by_stem.values():
            paths.sort(key=lambda path: (IMAGE_SUFFIXES.index(path.suffix.lower()), str(path)))
        return {**by_stem, **by_name}


def find_images(folder: Path) -> list[Path]:
    """Return all files below a folder that have the suffix of an image, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
