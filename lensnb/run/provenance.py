"""What made each table and figure: made.json beside them."""

from contextlib import suppress
from pathlib import Path

from lensnb.files import read_json, write_json
from lensnb.provenance.product import checksum
from lensnb.run import processes
from lensnb.runfolder import Run

RECORD = "made.json"
KEPT = ("commit", "profile", "seed", "date")


def write(run: Run) -> None:
    """Write made.json into the folder of tables and figures: for each file its step, commit, profile, seed and date.

    "commit" is "... with changes" where the code was not that of the commit, "unknown" outside a git checkout. The
    checksum tells whether a file is the one that was made. Files that another run made, as those of a fresh checkout
    are, keep what is noted of them while they are as noted. Steps that end at the same time write one after another.
    """
    with processes.lock(run.lock("made"), "waiting for process {holder}, which notes what it made"):
        files = _noted(run.figures / RECORD)
        for path in sorted((run.folder / "made").glob("*.json")):
            try:
                receipt = read_json(path)
            except FileNotFoundError:
                continue  # its step has just begun again, and notes anew what it makes
            about = {"step": path.stem, **{name: receipt[name] for name in KEPT}}
            for name, made in receipt["outputs"].items():
                folder, _, file = name.partition("/")
                if folder == "figures" and (run.figures / file).exists():
                    files[file] = {**about, "sha256": made}
        if files:
            write_json(dict(sorted(files.items())), run.figures / RECORD)


def _noted(record: Path) -> dict[str, dict]:
    """What is noted of the files that are still as they were; nothing where the record is missing or broken."""
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        return {name: about for name, about in read_json(record).items() if _is(record.parent / name, about["sha256"])}
    return {}


def _is(path: Path, known: str) -> bool:
    """Whether a file is there with this checksum; its step may remove it this very moment, to make it again."""
    try:
        return path.is_file() and checksum(path) == known
    except FileNotFoundError:
        return False
