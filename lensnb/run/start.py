"""Where Python begins for run_all.sh: `python -m lensnb.run.start environment|engine ...`.

Two small modules are imported before anything can be heard or go wrong; the rest is imported under their guard, so
that Ctrl-C during an import, a broken package or too little memory end in one line.
"""

import importlib
import sys

from lensnb.run import ending


def main() -> int:
    """Hand the arguments to `environment` or `engine`, whose `main` returns the exit status."""
    name, *arguments = sys.argv[1:]
    return importlib.import_module(f"lensnb.run.{name}").main(arguments)


if __name__ == "__main__":
    try:
        status = ending.guarded(main)
    except SystemExit as left:  # argparse has said why
        status = int(left.code or 0)
    ending.leave(status)
