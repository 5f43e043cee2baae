"""Profiles: every number that differs between a smoke test, the phantom benchmark and the paper."""

from pathlib import Path
from types import SimpleNamespace

import yaml

NAMES = ("smoke", "phantom", "paper")


def load(name: str) -> SimpleNamespace:
    """Read profiles/<name>.yml as nested attributes: profile.training.iterations and so on.

    Raises ValueError for a name that is not a profile, and for a file whose sections differ from the
    phantom profile's: a misspelt setting must not silently fall back to a default.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is not a profile; choose one of {', '.join(NAMES)}")
    content, reference = _read(name), _read("phantom")
    _check_same_keys(content, reference, name)
    return _namespace({"name": name, **content})


def to_dict(section: SimpleNamespace) -> dict:
    """The plain dictionary of a profile or one of its sections."""
    if isinstance(section, SimpleNamespace):
        return {key: to_dict(value) for key, value in vars(section).items()}
    return section


def _read(name: str) -> dict:
    return yaml.safe_load((Path(__file__).parent / f"{name}.yml").read_text())


def _namespace(content):
    if isinstance(content, dict):
        return SimpleNamespace(**{key: _namespace(value) for key, value in content.items()})
    return content


def _check_same_keys(content: dict, reference: dict, where: str) -> None:
    missing, unknown = reference.keys() - content.keys(), content.keys() - reference.keys()
    if missing or unknown:
        raise ValueError(
            f"profile {where}: missing {sorted(missing) or 'nothing'}, unknown {sorted(unknown) or 'nothing'}; "
            "every profile has the keys of phantom.yml"
        )
    for key, value in reference.items():
        if isinstance(value, dict) and key != "notebooks":
            _check_same_keys(content[key], value, f"{where}: {key}")
