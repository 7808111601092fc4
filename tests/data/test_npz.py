"""Arrays of `.npz` files: bombs, absurd headers and damage end in a reason, before they take memory."""

import contextlib
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parfocal.data import npz
from parfocal.data.decode import read_image
from parfocal.data.layouts import read
from parfocal.data.npz import read_npz_array
from parfocal.errors import ParfocalError, UnreadableImageError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
LABELS = np.array([[0], [1], [0], [1]], np.uint8)


def write_npz(path: Path, members: dict[str, tuple[tuple[int, ...], Iterable[bytes]]]) -> Path:
    """Write arrays of bytes with any declared shape."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (shape, chunks) in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                header = io.BytesIO()
                content = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(header, content)
                stream.write(header.getvalue())
                for chunk in chunks:
                    stream.write(chunk)
    return path


def test_a_bomb_is_rejected_before_it_takes_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_BOMB_BYTES", 20_000_000)
    bomb = {"train_images": ((10_000, 50, 50), [bytes(25_000_000)]), "train_labels": ((1,), [b"\0"])}
    file = write_npz(tmp_path / "a.npz", bomb)
    tracemalloc.start()
    with pytest.raises(UnreadableImageError, match=r"^train_images cannot be read: 0 MB unpack to 0\.0 GB"):
        read_image(Path(f"{file}#train_images/0"))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("shape", [(10**15, 64, 64), (10**12,), (5, 8, 8, 3), (-1, 8, 8)])
def test_a_shape_that_needs_more_bytes_than_there_are_is_rejected(shape: tuple[int, ...], tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", {"train_images": (shape, [IMAGES.tobytes()]), "train_labels": (shape, [])})
    with pytest.raises(UnreadableImageError, match=r"^train_images cannot be read: its shape "):
        read_image(Path(f"{file}#train_images/0"))
    with pytest.raises(
        ParfocalError, match=r"train_labels (cannot be read: its shape|has \d+ columns|needs [\d.]+ GB)"
    ):
        read(file)


def test_a_number_or_a_missing_array_is_no_set_of_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=np.uint8(5))
    for place, reason in (("train_images/0", "has 0 images"), ("test_images/0", "there is no such array")):
        with pytest.raises(UnreadableImageError, match=reason):
            read_image(Path(f"{tmp_path / 'a.npz'}#{place}"))


def test_negative_rows_are_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=IMAGES)
    with pytest.raises(UnreadableImageError, match=r"has 4 images, but row -1 was requested"):
        read_image(Path(f"{tmp_path / 'a.npz'}#train_images/-1"))


@settings(deadline=None, max_examples=200)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=5),
    is_compressed=st.booleans(),
)
def test_random_damage_gives_a_reason_or_the_array(
    flips: list[tuple[float, int]], is_compressed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stream = io.BytesIO()
    (np.savez_compressed if is_compressed else np.savez)(stream, train_images=IMAGES, train_labels=LABELS)
    data = bytearray(stream.getvalue())
    for fraction, change in flips:
        data[int(fraction * len(data))] ^= change
    file = tmp_path_factory.getbasetemp() / "damaged.npz"
    file.write_bytes(data)
    with contextlib.suppress(ValueError):
        np.testing.assert_array_equal(read_npz_array(file, "train_images"), IMAGES)


def test_an_encrypted_archive_is_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=IMAGES)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", data, data.index(signature) + offset, 1)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(UnreadableImageError, match="encrypted"):
        read_image(Path(f"{tmp_path / 'a.npz'}#train_images/0"))


def test_patients_that_are_a_bomb_are_rejected_before_they_take_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "MAX_BOMB_BYTES", 20_000_000)
    arrays = {"train_images": ((1, 2, 2), [bytes(4)]), "train_labels": ((1,), [b"\0"])}
    file = write_npz(tmp_path / "a.npz", {**arrays, "train_patients": ((25_000_000,), [bytes(25_000_000)])})
    tracemalloc.start()
    with pytest.raises(ParfocalError, match=r"train_patients cannot be read: 0 MB unpack to 0\.0 GB"):
        read(file)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
