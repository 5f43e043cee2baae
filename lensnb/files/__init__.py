"""Files appear whole or not at all, and the same table gives the same bytes."""

import errno
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files.cells import read_csv as read_csv
from lensnb.files.text import read_json as read_json
from lensnb.files.text import read_text as read_text
from lensnb.files.text import refuse_special, require_file

TEXT = ("patient", "study", "series", "volume", "lesion", "content")  # columns that are no numbers, all digits or not


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it if not.

    The block may create a file or a folder. A reader never sees half a file, whenever the writer dies.
    A link stays, and what it leads to is written. Raises ValueError if a pipe or a device is at `path`, and OSError
    that names it when it can not be written, as on a full disk.
    """
    path = Path(path)
    refuse_special(path)
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            # the system does not say which file, and numpy not even why: "9216 requested and 512 written"
            reason = error.strerror or f"{error}; is the disk full?"
            raise type(error)(error.errno or errno.EIO, f"could not be written: {reason}", str(path)) from error
        raise


@contextmanager
def all_or_none(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Remove the files `names` of `folder`, and the folder if it is empty then, unless the block succeeds.

    For files that make sense only together: without this a full disk leaves some of them, beside older ones.
    """
    try:
        yield
    except BaseException:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # other files are in it
            folder.rmdir()
        raise


def check_output(
    path: Path | str, option: str, endings: Sequence[str] = (), inputs: Sequence[Path | None] = ()
) -> None:
    """ValueError, which names the command line's `option`, if a file can not be written to `path`.

    endings: those that it may have; none for any. inputs: files that it must not be, since they would be replaced. For
    before a long work, which would be lost. The folder need not be there: what is there of its path decides.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{option}: {path} is a folder, where a file is to be written; name another place")
    if endings and path.suffix not in endings:
        raise ValueError(f"{option}: {path} must end with {' or '.join(endings)}")
    refuse_special(path)
    for other in inputs:
        if other and path.exists() and other.exists() and os.path.samefile(path, other):
            raise ValueError(f"{option}: {path} is what is read, and would be replaced; name another file to write")
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    if not existing.is_dir():
        raise ValueError(f"{option} {path}: {existing} is a file; name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option} {path}: {existing} may not be written to; name another folder")


def files_below(folder: Path | str) -> Iterator[Path]:
    """Every file below a folder in a fixed order, also through links to folders, as Path.rglob does not go.

    People whose disks are too small for a dataset link parts of it. No folder is entered twice: a link that leads back
    makes no circle, and two to the same folder double nothing. None if there is no such folder; OSError if one may not
    be entered, so that its files are not taken for absent.
    """
    entered = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_unless_missing):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def is_macos(path: Path) -> bool:
    """Whether a file is what macOS adds to folders and zip files: ._NAME beside NAME, .DS_Store, all in __MACOSX."""
    return path.name.startswith("._") or path.name == ".DS_Store" or "__MACOSX" in path.parts


def write_json(content: object, path: Path | str) -> None:
    """Write `content` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def fingerprint(content: object) -> str:
    """A short text that is the same for the same content, which JSON must be able to hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write_array(array: np.ndarray, path: Path | str) -> None:
    """Write an array as .npy, atomically, byte by byte as `numpy.save` does.

    numpy writes through a buffer of its own and does not notice when the disk is full for the last few kB of it.
    """
    array = np.ascontiguousarray(array)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


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


def read_table(path: Path | str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read what `write_table` wrote; `columns` must be among its columns.

    Raises FileNotFoundError if the file is missing, ValueError that names it for another ending, a broken file
    or a missing column.
    """
    path = require_file(path, "an earlier step makes it (./run_all.sh --list names the steps)")
    table = _read(path)
    absent = [name for name in columns if name not in table]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}; it has {', '.join(map(str, table.columns))}")
    return table


def _read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return read_csv(path, dtype=dict.fromkeys(TEXT, str))
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return _from_arrays(arrays)
        except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is no table: {error}; delete it to have it made again") from error
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
