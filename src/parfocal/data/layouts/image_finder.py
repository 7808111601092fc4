"""Where the image of a name lies: below which folder, with which suffix."""

from collections import defaultdict
from functools import cached_property
from pathlib import Path

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".dcm")


class ImageFinder:
    """The images below a folder, found by path or by name; the folder is walked only if a path alone does not do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, split: str = "") -> Path:
        """Return the file meant by a path or a bare name, one below a folder called after the split first."""
        direct = self.folder / name
        if direct.suffix and direct.is_file():
            return direct
        found = self._by_name.get(direct.name) or self._by_stem.get(direct.name) or []
        beside = [path for path in found if split and any(split in part for part in self._get_parent_names(path))]
        return (beside or found or [direct])[0]

    def _get_parent_names(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.folder).parts[:-1]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in find_images(self.folder):
            found[path.name].append(path)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for paths in self._by_name.values():
            for path in paths:
                found[path.stem].append(path)
        for paths in found.values():
            paths.sort(key=lambda path: (IMAGE_SUFFIXES.index(path.suffix.lower()), str(path)))
        return found


def find_images(folder: Path) -> list[Path]:
    """Return every file below a folder whose suffix is an image's, in the order of their paths."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
