"""What lies in a folder that was written as a whole, so that a later look can say what is gone or was changed."""

from collections.abc import Iterable
from pathlib import Path

from lensnb.files import files_below
from lensnb.provenance.product import checksum

Inventory = dict[str, list]  # path below the folder -> size, time of change in ns, checksum


def take(folder: Path, but: Iterable[str] = ()) -> Inventory:
    """Every file below a folder, but for these."""
    return {name: [*state(folder / name), checksum(folder / name)] for name in _names(folder) if name not in set(but)}


def faults(folder: Path, known: Inventory, but: Iterable[str] = ()) -> list[str]:
    """What differs from an inventory, a few words for each file; a file is read only if its time is another."""
    found = []
    for name, (size, changed, content) in known.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif state(path) != [size, changed] and (path.stat().st_size != size or checksum(path) != content):
            found.append(f"{name} is not as it was written")
    return found + [f"{name} was added" for name in _names(folder) if name not in known and name not in set(but)]


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder)]


def state(path: Path) -> list[int]:
    """Size and time of change (ns) of a file, which another content can hardly share."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
