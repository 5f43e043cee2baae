"""Which commit of the code is at work."""

import subprocess
from functools import cache

from lensnb.system import repository

CODE = ("lensnb", "notebooks", "requirements.txt")  # what results follow from


@cache
def commit() -> str:
    """The commit of the checkout, "... with changes" if its code differs from it; "unknown" without git."""
    try:
        here = _git("rev-parse", "--show-toplevel")
        if here != str(repository()):  # unpacked inside somebody else's repository
            return "unknown"
        changed = _git("status", "--porcelain", "--", *CODE)
        return _git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(repository()), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
