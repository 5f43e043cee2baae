"""What made each table and figure: made.json beside them."""

from lensnb.files import read_json, write_json
from lensnb.run import processes
from lensnb.runfolder import Run

RECORD = "made.json"
KEPT = ("commit", "profile", "seed", "date")


def write(run: Run) -> None:
    """Write made.json into the folder of tables and figures: for each file its step, commit, profile, seed and date.

    "commit" is "... with changes" where the code was not that of the commit, "unknown" outside a git checkout. The
    checksum tells whether a file is the one that was made. Steps that end at the same time write one after another.
    """
    with processes.lock(run.lock("made"), "waiting for process {holder}, which notes what it made"):
        files = {}
        for path in sorted((run.folder / "made").glob("*.json")):
            receipt = read_json(path)
            about = {"step": path.stem, **{name: receipt[name] for name in KEPT}}
            for name, checksum in receipt["outputs"].items():
                folder, _, file = name.partition("/")
                if folder == "figures" and (run.figures / file).exists():
                    files[file] = {**about, "sha256": checksum}
        if files:
            write_json(dict(sorted(files.items())), run.figures / RECORD)
