"""Files appear whole or not at all, and the same table gives the same bytes."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it if not.

    The block may create a file or a folder. A reader never sees half a file, whenever the writer dies.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def write_json(content: object, path: Path | str) -> None:
    """Write `content` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: Path | str) -> dict:
    """Read a JSON file; ValueError names the file if it is not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def write_table(table: pd.DataFrame, path: Path | str) -> None:
    """Write a table as .csv (for people) or .npz (for millions of rows), atomically, with reproducible bytes.

    In .npz each text column is stored as integer codes and a list of names: a detection table repeats a few
    hundred volume names a million times.
    """
    path = Path(path)
    with atomic_write(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False, lineterminator="\n")
        elif path.suffix == ".npz":
            np.savez_compressed(temporary, **_to_arrays(table))
        else:
            raise ValueError(f"{path}: a table is written as .csv or .npz")


def read_table(path: Path | str) -> pd.DataFrame:
    """Read what `write_table` wrote.

    Raises FileNotFoundError if the file is missing, ValueError for another ending.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; an earlier step makes it (./run_all.sh --list names the steps)"
        )
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype={"patient": str, "study": str, "series": str, "volume": str, "lesion": str})
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return _from_arrays(arrays)
    raise ValueError(f"{path}: a table is read from .csv or .npz")


def _to_arrays(table: pd.DataFrame) -> dict[str, np.ndarray]:
    arrays = {"columns": np.array(list(table.columns), dtype=str)}
    for name in table.columns:
        column = table[name]
        if column.dtype.kind in "biuf":
            arrays[f"value:{name}"] = column.to_numpy()
        else:
            codes, names = pd.factorize(column, sort=True)
            arrays[f"code:{name}"] = codes.astype(np.int32)
            arrays[f"names:{name}"] = np.array([str(n) for n in names], dtype=str)
    return arrays


def _from_arrays(arrays: np.lib.npyio.NpzFile) -> pd.DataFrame:
    columns = {}
    for name in arrays["columns"].tolist():
        if f"value:{name}" in arrays:
            columns[name] = arrays[f"value:{name}"]
        else:
            # missing text has code -1; as a categorical it stays one small integer per row
            columns[name] = pd.Categorical.from_codes(arrays[f"code:{name}"], arrays[f"names:{name}"].astype(object))
    return pd.DataFrame(columns)
