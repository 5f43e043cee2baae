"""The command line: python -m lensnb COMMAND, and a table of its commands.

A command's function is imported when the command is chosen, so that --help does not wait for torch. It gets the values
of its arguments in the order of the table; what it returns is printed, a whole number is the exit status.
"""

import argparse
import importlib
import os
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lensnb.provenance import sight
from lensnb.run import ending
from lensnb.run.options import folder, fraction, positive, whole

EPILOG = "exit status: 0 done, 1 failed, 2 wrong usage or input. LENSNB_TRACEBACK=1 shows where an error arose."
EXAMPLES = tomllib.loads((Path(__file__).parent / "run" / "examples.toml").read_text())


def argument(*names: str, **options: object) -> tuple:
    """What `add_argument` is called with."""
    return names, options


@dataclass(frozen=True)
class Command:
    """A command: a line about it, the function that does it as "module:function", and the function's arguments."""

    about: str
    function: str
    arguments: tuple[tuple, ...]


def file(name: str, about: str, metavar: str = "FILE", required: bool = True) -> tuple:
    """An argument that names a file; in the table because half of all arguments are one."""
    return argument(name, type=Path, metavar=metavar, help=about, **({"required": required} if name[0] == "-" else {}))


PROFILE = argument("--profile", default="phantom", metavar="P", help="smoke, phantom or paper (default: phantom)")
SEED = argument("--seed", type=whole(0), default=0, metavar="N", help="default: 0")

COMMANDS = {
    "evaluate": Command(
        "score predictions against 3D boxes, as the LENS authors do",
        "lensnb.evaluation.official:command",
        (
            file("--truth", "the published pickle, or a csv"),
            file("--predictions", "csv with a score"),
            argument("--split", default="test", help="which part of the pickle (default: test; a csv has no parts)"),
            argument("--overlap", choices=("iobb", "iou"), default="iobb", help="default: iobb, the official one"),
            argument("--threshold", type=fraction, default=0.3, help="overlap that makes a hit (default: 0.3)"),
            file("--json", "write the result, with the stricter rules, here", required=False),
        ),
    ),
    "evaluate-slices": Command(
        "score 2D boxes on DeepLesion's key slices, as the public code of 3DCE and MULAN does",
        "lensnb.evaluation.key_slice_files:command",
        (
            file("--truth", "DL_info.csv, or a csv with image,x1,y1,x2,y2"),
            file("--predictions", "csv with image,x1,y1,x2,y2,score"),
            argument(
                "--split", choices=("test", "val", "train"), default="test", help="of DL_info.csv (default: test)"
            ),
            argument("--iou", type=fraction, default=0.5, help="IoU that makes a hit (default: 0.5)"),
            file("--json", "write the result here", required=False),
        ),
    ),
    "evaluate-luna": Command(
        "score a LUNA16 submission by the official rules",
        "lensnb.evaluation.luna:command",
        (
            file("--annotations", "the nodules", "CSV"),
            file("--excluded", "findings on which marks are ignored", "CSV"),
            file("--seriesuids", "the scans, one a line", "CSV"),
            file("--submission", "the marks", "CSV"),
            file("--json", "write the result here", required=False),
        ),
    ),
    "detect": Command(
        "find lesions in a CT",
        "lensnb.own_ct.detect:command",
        (
            file("input", "DICOM folder, NIfTI, MetaImage or NRRD file; in HU", "INPUT"),
            file("--output", "folder for what is written", "DIR"),
            file("--weights", "default: the best run of the phantom profile", required=False),
            argument("--series", metavar="UID", help="the one to read, if a DICOM folder holds several series"),
            file(
                "--lesanet",
                "trained LesaNet that labels lesions; default: the weights' own, if any",
                "DIR",
                required=False,
            ),
        ),
    ),
    "train": Command(
        "train one experiment, without notebooks",
        "lensnb.detection.selection:command",
        (argument("experiment", metavar="EXPERIMENT", help="its name; a wrong one lists them all"), PROFILE, SEED),
    ),
    "pretext": Command(
        "train the common start of the phantoms' networks", "lensnb.training.pretext:command", (PROFILE, SEED)
    ),
    "lesanet": Command(
        "train LesaNet, whose embedding matches the lesions of one patient",
        "lensnb.lesanet.recognition:command_lesanet",
        (PROFILE, SEED),
    ),
    "embedding": Command(
        "train the simpler embedding that LesaNet is compared with",
        "lensnb.lesanet.recognition:command_simpler",
        (PROFILE, SEED),
    ),
    "seeds": Command(
        "compare the runs of a profile that differ in their seed", "lensnb.evaluation.seeds:command", (PROFILE,)
    ),
    "prepare": Command(
        "bring the datasets to one grid, making phantoms first where they are used",
        "lensnb.run.prepare:command",
        (
            PROFILE,
            SEED,
            argument("--data", type=folder, metavar="DIR", help="folder of the real datasets (see README)"),
            argument("--workers", type=whole(1), metavar="N", help="processes (default: the profile's)"),
        ),
    ),
    "phantom": Command(
        "put the phantoms beside what is published of the real datasets",
        "lensnb.phantom.audit:command",
        (
            argument("action", choices=("audit",), help="measure the same statistics on the same files of both"),
            PROFILE,
            SEED,
            file("--csv", "write the table here", required=False),
        ),
    ),
    "benchmark": Command(
        "how fast volumes are prepared here, beside SimpleITK",
        "lensnb.datasets.benchmark:command",
        (
            argument("--root", type=folder, metavar="DIR", help="folder of the datasets (default: the profile's)"),
            argument("--profile", default="paper", metavar="P", help="whose grid (default: paper)"),
            argument("--volumes", type=whole(1), default=4, metavar="N", help="of each dataset (default: 4)"),
            argument("--cores", type=whole(1), metavar="N", help="default: all"),
        ),
    ),
    "labels": Command(
        "what report sentences say of the lesions that they link",
        "lensnb.own_ct.sentences:command",
        (
            file("sentences", "csv with the column sentence", "SENTENCES"),
            file("--ontology", "xlsx or csv of terms"),
            file("--output", "write the labels here", "CSV"),
            file("--examples", "sentences.csv and relations.csv to learn from", "DIR", required=False),
        ),
    ),
    "bookmarks": Command(
        "make a dataset in DeepLesion's format out of the measurements in a hospital's archive",
        "lensnb.bookmarks.mine:command",
        (
            file("folder", "CT series, presentation states and structured reports, in any order", "DICOM_DIR"),
            file("--csv", "further measurements: four vertices in patient mm a row", required=False),
            file("--output", "new folder for the dataset", "DIR"),
            argument("--margin-px", type=positive, default=5.0, metavar="N", help="around the diameters (default: 5)"),
            argument("--context-mm", type=positive, default=30.0, metavar="N", help="beside a slice (default: 30)"),
            argument(
                "--merge-iou", type=fraction, default=0.6, metavar="N", help="boxes that are one lesion (default: 0.6)"
            ),
            file("--review", "new folder for pictures of what is probably wrong", "DIR", required=False),
            file("--identities", "write which file and patient each measurement is of here", required=False),
        ),
    ),
    "data": Command(
        "which real datasets are there, and where to get them",
        "lensnb.datasets.check:command",
        (
            argument("action", choices=("check",), help="count what is there"),
            file("--root", "folder of the datasets (default: data/raw)", "DIR", required=False),
            argument("--read", action="store_true", help="read every file to its end: hours for all datasets"),
            argument("--workers", type=whole(1), metavar="N", help="processes that read (default: one a core)"),
            file("--list", "write every missing or broken file here", "CSV", required=False),
        ),
    ),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error of this program."""

    def error(self, message: str) -> None:
        sys.stderr.write(f"lensnb: {message} (`{self.prog} --help` explains)\n")
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `chosen` to its Command and `order` to the names of its arguments."""
    top = _Parser(prog="python -m lensnb", description="Universal lesion detection in CT (LENS).", epilog=EPILOG)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    layout = argparse.RawDescriptionHelpFormatter
    for name, command in COMMANDS.items():
        about, sentence = command.about, f"{command.about[0].upper()}{command.about[1:]}."
        part = commands.add_parser(
            name, help=about, description=sentence, epilog=EXAMPLES.get(name), formatter_class=layout
        )
        order = [part.add_argument(*names, **options).dest for names, options in command.arguments]
        part.set_defaults(chosen=command, order=order)
    return top


def function_of(command: Command) -> Callable:
    """The function that does a command; imports its room."""
    module, _, name = command.function.partition(":")
    return getattr(importlib.import_module(module), name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 wrong usage or input."""
    options = parser().parse_args(arguments)
    sight.limit()  # where a step of run_all.sh calls this

    def act() -> int:
        result = function_of(options.chosen)(*(getattr(options, name) for name in options.order))
        if isinstance(result, int):
            return result
        print(result)
        return 0

    return attempt(act)


def attempt(action: Callable[[], int | None]) -> int:
    """Do something and return the exit status; what goes wrong outside this program is told in one line."""
    try:
        return action() or 0
    except (FileNotFoundError, ValueError) as error:
        return _fail(error, 2)
    except (OSError, FloatingPointError, MemoryError, RuntimeError) as error:  # torch's are RuntimeErrors
        return _fail(error, 1)
    except KeyboardInterrupt:
        sys.stderr.write("lensnb: interrupted; the same command continues\n")
        return 130


def _fail(error: BaseException, status: int) -> int:
    if os.environ.get(ending.SHOW):
        raise error
    sys.stderr.write(f"lensnb: {ending.line_of(error)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
