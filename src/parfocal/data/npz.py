"""Arrays in `.npz` files, which are ZIP archives: read only if they are as large as they declare, and no ZIP bomb."""

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

MAX_BOMB_BYTES = 1 << 30
MAX_RATIO = 200
"""An array of more than MAX_BOMB_BYTES is rejected if it was compressed by more than this factor. Photographs are
compressed by less than 20, and the most that a ZIP archive can do is 1032."""

_DAMAGE = (OSError, ValueError, EOFError, SyntaxError, RuntimeError, struct.error, tokenize.TokenError)


def read_npz_array(file: str | Path, name: str) -> np.ndarray:
    """Return an array of an `.npz` file; raise ValueError with the reason if it cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            try:
                member = archive.getinfo(f"{name}.npy")
            except KeyError:
                raise ValueError("there is no such array") from None
            _check_size(archive, member)
            with archive.open(member) as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
                # The checksum is compared at the end of the stream.
                stream.read()
                return array
    except MemoryError:
        raise ValueError(f"{name} is too large for the available memory") from None
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{name} cannot be read: {error}") from None


def read_npz_header(archive: zipfile.ZipFile, member: str | zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and type that an array of an open `.npz` file declares, without reading its values."""
    with archive.open(member) as stream:
        is_first_version = np.lib.format.read_magic(stream) == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if is_first_version else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    return shape, dtype


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError if the array is not as large as it declares, or a ZIP bomb, before it takes any memory."""
    shape, dtype = read_npz_header(archive, member)
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared > member.file_size:
        raise ValueError(f"its shape {shape} needs {declared:,} bytes, but it has {member.file_size:,}")
    if member.file_size > max(MAX_BOMB_BYTES, MAX_RATIO * member.compress_size):
        raise ValueError(
            f"{member.compress_size / 1e6:.0f} MB unpack to {member.file_size / 1e9:.1f} GB, more than "
            f"{MAX_RATIO} times as much. Save it uncompressed with numpy.savez if that is right"
        )
