"""Find the image file of a path or bare name below a folder."""

import os
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
        if direct.suffix and os.path.isfile(direct):
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


def find_images(folder: Path, follow_links: bool = False) -> list[Path]:
    """Return all files below a folder that have the suffix of an image, sorted by path.

    With `follow_links`, linked folders are searched too: each folder once, and none that contains the folder itself.
    """
    images: list[Path] = []
    resolved = folder.resolve()
    seen = {str(resolved), *map(str, resolved.parents)}
    for parent, subfolders, names in os.walk(folder, followlinks=follow_links):
        if follow_links:
            targets = {os.path.realpath(os.path.join(parent, name)): name for name in sorted(subfolders)}
            subfolders[:] = [name for target, name in targets.items() if target not in seen]
            seen.update(targets)
        images += [
            Path(parent, name)
            for name in names
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and os.path.isfile(os.path.join(parent, name))
        ]
    return sorted(images)
