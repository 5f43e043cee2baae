"""The command line of run_all.sh, and what reads the arguments of both command lines.

Imports nothing that must be installed: it is read before the environment exists.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lensnb.system import available_cores

MOST_CORES = 9999
LARGEST = 2**32 - 1  # of seeds; every generator of random numbers takes these

DESCRIPTION = """From raw CT scans to LENS's Table II. Sets up what it needs, makes the phantom datasets where
there are no real ones, runs every notebook, and writes figures/<profile>/. Interrupt it when you like: the same
command continues."""

COMMANDS = """commands:
  ./run_all.sh test [...]    pass the tests on all cores; further arguments go to pytest
  ./run_all.sh publish       put the notebooks of the last full phantom run, with their outputs, into notebooks/
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read run_all.sh's arguments: attribute `command` is "run", "test" or "publish", `rest` what follows "test".

    Exits with status 2 and a message for anything unknown.
    """
    if arguments and arguments[0] == "test":
        return argparse.Namespace(command="test", rest=list(arguments[1:]))
    parser = argparse.ArgumentParser(
        prog="./run_all.sh",
        description=DESCRIPTION,
        epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = sorted(path.stem for path in (Path(__file__).parents[1] / "profiles").glob("*.yml"))
    parser.add_argument("command", nargs="?", choices=("run", "publish"), default="run", help=argparse.SUPPRESS)
    parser.add_argument(
        "--profile", choices=names, help="sizes and schedules (default: phantom, or paper with real data)"
    )
    parser.add_argument(
        "--only", action="append", metavar="TARGET", help="make this and what it needs; --list names all"
    )
    parser.add_argument(
        "--cores",
        type=whole(1, MOST_CORES),
        default=available_cores(),
        metavar="N",
        help="how many to use (default: all)",
    )
    parser.add_argument("--data", type=folder, metavar="DIR", help="where the real datasets lie (default: data/raw)")
    parser.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="of phantoms and trainings; each has folders of its own"
    )
    parser.add_argument(
        "--seeds", type=whole(2, MOST_CORES), metavar="N",
        help="make Table II of seeds 0 to N - 1 one after another, and decide the claims by all of them",
    )  # fmt: skip
    parser.add_argument(
        "--variant", metavar="NAME", help="the same run with other numbers, beside the profile's; see --set"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="what the variant changes, as in mining.sigma=0.5; needed when the variant is new",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be run")
    parser.add_argument("--list", action="store_true", help="name every target, and whether it is made")
    options = parser.parse_args(arguments)
    if options.command == "publish" and len(arguments) > 1:
        parser.error("publish takes no options: it publishes the last full phantom run")
    if options.seeds and any(argument.split("=")[0] == "--seed" for argument in arguments):
        parser.error(f"--seeds makes seeds 0 to {options.seeds - 1}; --seed names one, give one of the two")
    if options.seeds and options.only:
        parser.error("--seeds makes Table II of each seed and what it needs; --only goes with --seed")
    if options.set and not options.variant:
        parser.error("--set changes a variant of the profile; --variant NAME names it")
    return options


def whole(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """What reads an argument that is a whole number from `least` to `most`."""

    def convert(text: str) -> int:
        # Python refuses to read very many digits at all
        digits = text.lstrip("0") or "0"
        if not text.isdecimal() or (len(digits) <= len(str(least)) and int(digits) < least):
            raise argparse.ArgumentTypeError(f"{shortened(text)} is not a whole number of at least {least}")
        if len(digits) > len(str(most)) or int(digits) > most:
            raise argparse.ArgumentTypeError(f"{shortened(text)} is more than {most}, the most that is possible")
        return int(digits)

    return convert


def shortened(text: str) -> str:
    """A text as far as a message should repeat it."""
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"


def fraction(text: str) -> float:
    """Read an argument that is a number above 0 and at most 1."""
    return _above_zero(text, 1.0, f"{text} is not above 0 and at most 1")


def positive(text: str) -> float:
    """Read an argument that is a number above 0."""
    return _above_zero(text, sys.float_info.max, f"{shortened(text)} is not a number above 0")


def _above_zero(text: str, most: float, refusal: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(refusal)
    return value


def folder(text: str) -> Path:
    """Read an argument that names a folder, which must be there."""
    path = Path(text).resolve()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}: it is a file, not a folder")
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path
