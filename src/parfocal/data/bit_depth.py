"""Find how many bits the 16-bit images of a data set use: cameras store values of 10, 12 or 14 bits in 16-bit files.

It is found once, over all training images, and kept in the recipe of a run: a scale of its own for each image would
remove differences in brightness, and images of 12 bits read as 16 would be nearly black.
"""

from dataclasses import replace
from pathlib import Path

from parfocal.data.decode import read_max_value
from parfocal.data.findings import Finding
from parfocal.data.parallel import catch_unreadable, map_ordered
from parfocal.data.table import Table
from parfocal.recipe_schema import ImagesConfig

_BIT_DEPTHS = (8, 10, 12, 14, 16)


def resolve_bit_depth(table: Table, config: ImagesConfig) -> tuple[Table, ImagesConfig]:
    """Return the table with a note on the bit depth of its 16-bit training images, and the config with that depth.

    Without such images, or if the config has a depth, both are returned unchanged.
    """
    if config.bit_depth is not None:
        return table, config
    paths = [Path(path) for path in dict.fromkeys(table.get_rows("train")["path"])]
    results = map_ordered(paths, catch_unreadable(read_max_value), "Reading bit depths")
    # A file that cannot be read is named when it is prepared.
    maximum = max((value for value in results if not isinstance(value, str)), default=0)
    if not maximum:
        return table, config
    bit_depth = next(depth for depth in _BIT_DEPTHS if maximum < 1 << depth)
    message = (
        f"The largest value of the 16-bit training images is {maximum:,}, so 16-bit images are read as {bit_depth}-bit "
        f"(bit_depth={bit_depth})."
    )
    finding = Finding("note", "bit_depth", message)
    return replace(table, findings=(*table.findings, finding)), config.model_copy(update={"bit_depth": bit_depth})
