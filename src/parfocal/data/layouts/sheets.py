"""Read sheets (CSV, TSV, Parquet, Excel) as rows of text."""

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
        rows = _read_text_sheet(file, _get_separator(file), header_row=0)
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
        return list(pd.read_csv(file, sep=_get_separator(file), nrows=0, encoding="utf-8-sig").columns)
    except (OSError, ValueError):
        return []


def read_single_column(file: Path) -> list[str]:
    """Read a file with a value per line and without a header."""
    rows = _read_text_sheet(file, ",", header_row=None)
    if rows.shape[1] != 1:
        raise ParfocalError(f"{file} has {rows.shape[1]} columns; this layout has one value per line and no header.")
    return rows[0].str.strip().tolist()


def read_column_by_path(file: Path, column: str) -> dict[str, str]:
    """Read a column by the value of the column `Path`; an empty dict if the file does not exist."""
    if not file.exists():
        return {}
    rows = read_sheet(file, ("Path", column))
    return dict(zip(rows["Path"], rows[column], strict=True))


def _get_separator(file: Path) -> str:
    return "\t" if file.suffix.lower() == ".tsv" else ","


def _read_text_sheet(file: Path, separator: str, header_row: int | None) -> pd.DataFrame:
    try:
        return pd.read_csv(
            file, sep=separator, header=header_row, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except FileNotFoundError:
        raise ParfocalError(f"{file} is missing.") from None
    except pd.errors.EmptyDataError:
        raise ParfocalError(f"{file} is empty.") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ParfocalError(f"{file} is not a readable CSV file: {error}".strip()) from None
    except OSError as error:
        raise ParfocalError(f"{file} cannot be read: {error.strerror}.") from None


def _to_text(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
