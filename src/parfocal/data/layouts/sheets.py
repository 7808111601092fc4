"""Read sheets (CSV, TSV, Parquet, Excel) as rows of text."""

import codecs
import csv
from io import StringIO
from pathlib import Path

import pandas as pd

from parfocal.errors import ParfocalError, did_you_mean

SHEET_SUFFIXES = (".csv", ".tsv", ".parquet", ".xlsx", ".xls")


def read_sheet(file: Path, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read the rows of a sheet as text; raise ParfocalError if any of `columns` is missing."""
    suffix = file.suffix.lower()
    if suffix in (".parquet", ".xlsx", ".xls"):
        try:
            cells = pd.read_parquet(file) if suffix == ".parquet" else pd.read_excel(file, dtype=str)
        except FileNotFoundError:
            raise ParfocalError(f"{file} is missing.") from None
        except ImportError:
            raise ParfocalError(f"{file} needs a package that is not installed. Install parfocal[sheets].") from None
        except (OSError, ValueError, KeyError) as error:
            raise ParfocalError(f"{file} is not a readable {suffix[1:]} file: {error}") from None
        rows = pd.DataFrame({str(name): [_to_text(value) for value in cells[name]] for name in cells.columns})
    else:
        rows = _read_text_sheet(file, header_row=0)
    for column in columns:
        if column not in rows.columns:
            present = ", ".join(map(repr, rows.columns))
            raise ParfocalError(
                f"{file} has no column {column!r}; it has {present}. {did_you_mean(column, map(str, rows.columns))} "
                f"The first line must be {','.join(columns)}."
            )
    if rows.empty:
        raise ParfocalError(f"{file} has no rows below its header. Add rows, or delete the file.")
    return rows


def read_column_names(file: Path) -> list[str]:
    """Return the column names of a CSV or TSV file, or an empty list if it cannot be read."""
    try:
        text = _read_text(file)
        return list(pd.read_csv(StringIO(text), sep=_find_separator(text, file), nrows=0).columns)
    except (OSError, ValueError, ParfocalError):
        return []


def read_single_column(file: Path) -> list[str]:
    """Read a file with a value per line and without a header."""
    rows = _read_text_sheet(file, header_row=None)
    if rows.shape[1] != 1:
        raise ParfocalError(f"{file} has {rows.shape[1]} columns; this layout has one value per line and no header.")
    return rows[0].str.strip().tolist()


def read_column_by_path(file: Path, column: str) -> dict[str, str]:
    """Read a column by the value of the column `Path`; an empty dict if the file does not exist."""
    if not file.exists():
        return {}
    rows = read_sheet(file, ("Path", column))
    return dict(zip(rows["Path"], rows[column], strict=True))


def _read_text_sheet(file: Path, header_row: int | None) -> pd.DataFrame:
    text = _read_text(file)
    separator = _find_separator(text, file)
    if header_row is not None:
        _check_row_lengths(text, separator, file)
    try:
        return pd.read_csv(StringIO(text), sep=separator, header=header_row, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise ParfocalError(f"{file} is empty.") from None
    except (pd.errors.ParserError, ValueError) as error:
        raise ParfocalError(f"{file} is not a readable CSV file: {error}".strip()) from None


def _check_row_lengths(text: str, separator: str, file: Path) -> None:
    """Raise an error for a row with more values than the header has columns: its values are below wrong headings.

    pandas would take the first column of such a file as the names of its rows, and shift the others.
    """
    rows = csv.reader(StringIO(text, newline=""), delimiter=separator)
    n_columns = 0
    try:
        for row in rows:
            is_blank = len(row) < 2 and not "".join(row).strip()
            if is_blank:
                continue
            n_columns = n_columns or len(row)
            if len(row) > n_columns:
                raise ParfocalError(
                    f"{file}, line {rows.line_num}: {len(row)} values, but the header has {n_columns} columns, so the "
                    f"columns have shifted. Name each column, or quote a value that contains {separator!r}."
                )
    except csv.Error as error:
        raise ParfocalError(f"{file}, line {rows.line_num} is not readable as CSV: {error}.") from None


def _read_text(file: Path) -> str:
    """Read a text file in UTF-8, in UTF-16, or in Latin-1 as Windows writes it (Windows-1252)."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ParfocalError(f"{file} is missing.") from None
    except OSError as error:
        raise ParfocalError(f"{file} cannot be read: {error.strerror}.") from None
    for encoding in _find_encodings(data):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ParfocalError(f"{file} is not text in UTF-8, UTF-16 or Latin-1. Save it as CSV in UTF-8.")


def _find_encodings(data: bytes) -> tuple[str, ...]:
    """Return the encodings that the bytes of a text can be in, the most likely first; none if they are no text."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16",)
    if b"\0" not in data:
        return "utf-8-sig", "cp1252"
    # The comma or letter at the start of a line of UTF-16 has a zero byte, on the side that its byte order says.
    if not any(data[:2_000:2]):
        return ("utf-16-be",)
    return ("utf-16-le",) if not any(data[1:2_000:2]) else ()


def _find_separator(text: str, file: Path) -> str:
    """Return the separator that the header of a sheet uses most: comma, semicolon or tab."""
    header = next((line for line in StringIO(text) if line.strip()), "")
    usual = "\t" if file.suffix.lower() == ".tsv" else ","
    return max((usual, ",", ";", "\t"), key=header.count)


def _to_text(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
