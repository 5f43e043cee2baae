"""What is looked at before a run starts, so that it is refused with a true line instead of failing in the middle.

Uses the standard library only: names are checked before anything is installed.
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lensnb.run import ending
from lensnb.system import repository, root


def check_names() -> None:
    """Refused if the checkout, LENSNB_ROOT or the present folder have a name that something here can not take."""
    try:
        os.getcwd()
    except OSError as error:
        raise ending.Refused("the folder that you are in was removed; change to another one") from error
    for what, folder in (("the checkout", repository()), ("LENSNB_ROOT", root())):
        for character, why in _unusable(what):
            if character in str(folder):
                raise ending.Refused(f"{what} lies in {str(folder)!r}: {why}; rename that folder")
        try:
            str(folder).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ending.Refused(
                f"{what} lies in {os.fsencode(folder)!r}, whose name is not UTF-8; rename it"
            ) from error


def _unusable(what: str) -> list[tuple[str, str]]:
    found = [(c, f"a name with {c!r} cannot be passed on") for c in "\n\r\t"]
    if what == "the checkout":
        found.append((":", "PYTHONPATH and PATH cannot hold a colon"))
    return found


def check_places(folders: Iterable[Path]) -> None:
    """Refused if one of these folders can not be made or written in."""
    for folder in folders:
        there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        if not there.is_dir():
            raise ending.Refused(f"{there} is not a folder, and {folder} belongs there")
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(bytes(4096))
        except OSError as error:
            what = f"{folder} cannot be made or written: {there}: {error.strerror}{ending.remedy(error)}"
            raise ending.Refused(f"{what}; LENSNB_ROOT may name another folder for data/ and figures/") from error


def provide_home(folder: Path) -> None:
    """Use `folder` as HOME where that is no folder that can be written: Snakemake and Jupyter keep files there."""
    home = os.path.expanduser("~")
    if not (os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK)):
        ending.say(f"The home folder {home} cannot be written; using {folder} in its place.")
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(folder)
