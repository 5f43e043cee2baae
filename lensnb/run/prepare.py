"""The command `prepare`: a profile's volumes without notebooks, its phantoms first where it uses them."""

from pathlib import Path

from lensnb import phantom, runfolder
from lensnb.datasets import NAMES, preparation, present
from lensnb.settings import load_profile
from lensnb.system import available_cores


def command(profile_name: str, seed: int, data: Path | None, workers: int | None) -> Path:
    """Write phantoms if the profile uses them and bring the raw files to the profile's grid; return their folder.

    `data`: the folder of the datasets (default: the profile's). Prints what was prepared and what was left out, and
    why. Raises FileNotFoundError if the folder holds no dataset.
    """
    profile = load_profile(profile_name)
    workers = workers or profile.grid.workers or available_cores()
    raw = data or runfolder.raw(profile_name, seed)
    if raw == runfolder.phantom(profile_name, seed):
        phantom.write(raw, profile.phantom, seed, workers)
    found = present(raw)
    if not found:
        raise FileNotFoundError(f"{raw} holds none of {', '.join(NAMES)}")
    out = runfolder.prepared(profile_name, seed)
    spacing, padding = tuple(profile.grid.spacing_mm), profile.grid.box_padding_mm
    report = preparation.prepare(raw, out, spacing, seed, workers, padding, found)
    for name, counts in report["datasets"].items():
        print(f"{name}: {counts['prepared']} of {counts['found']} volumes prepared, {counts['lesions']} lesions")
        for reason, number in counts["reasons"].items():
            print(f"  left out: {number} volumes, {reason}")
    return out
