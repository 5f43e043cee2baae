"""Where things lie: every path of the project in one place.

LENSNB_ROOT moves data/ and figures/ elsewhere (tests use it); LENSNB_DATA names the folder of the real datasets.
"""

import os
from pathlib import Path

from lensnb.datasets import present


def repository() -> Path:
    """The folder that holds the `lensnb` package and the notebooks."""
    return Path(__file__).resolve().parents[1]


def root() -> Path:
    """The folder under which data/ and figures/ are read and written."""
    return Path(os.environ.get("LENSNB_ROOT", repository())).resolve()


def real_data() -> Path:
    """The folder where a user puts the real datasets."""
    return Path(os.environ.get("LENSNB_DATA", root() / "data" / "raw")).resolve()


def has_real_data() -> bool:
    """Whether one of the real datasets lies in `real_data()`."""
    return bool(present(real_data()))


def phantom(profile: str, seed: int = 0) -> Path:
    """The raw files of the phantom datasets of a profile; each further seed is another benchmark."""
    return root() / "data" / "phantom" / _run(profile, seed)


def raw(profile: str, seed: int = 0) -> Path:
    """The raw files of a profile: the real ones if the profile is `paper` and they are there, else phantoms."""
    return real_data() if profile == "paper" and has_real_data() else phantom(profile, seed)


def prepared(profile: str, seed: int = 0) -> Path:
    """The normalised volumes and box tables of a profile."""
    return root() / "data" / "prepared" / _run(profile, seed)


def runs(profile: str, seed: int = 0) -> Path:
    """Trained models, proposals, mined boxes, executed notebooks and logs of a profile."""
    return root() / "data" / "runs" / _run(profile, seed)


def figures(profile: str, seed: int = 0) -> Path:
    """The tables and figures of a profile."""
    return root() / "figures" / _run(profile, seed)


def _run(profile: str, seed: int) -> str:
    return profile if seed == 0 else f"{profile}-seed{seed}"
