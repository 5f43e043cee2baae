"""Profiles: every number that differs between a smoke test, the phantom benchmark and the paper."""

from pathlib import Path
from types import SimpleNamespace

import yaml

NAMES = ("smoke", "phantom", "paper")
FOLDER = Path(__file__).parent / "profiles"


def load_profile(name: str) -> SimpleNamespace:
    """Read profiles/<name>.yml as nested attributes: profile.training.iterations and so on.

    Raises ValueError for a name that is not a profile, and for a file whose keys or types differ from the
    phantom profile's: a misspelt setting must not silently fall back to a default.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is not a profile; choose one of {', '.join(NAMES)}")
    content, reference = _read(name), _read("phantom")
    _check_like(content, reference, name)
    return _namespace({"name": name, **content})


def to_dict(section: SimpleNamespace) -> dict:
    """The plain dictionary of a profile or one of its sections."""
    if isinstance(section, SimpleNamespace):
        return {key: to_dict(value) for key, value in vars(section).items()}
    return section


def _read(name: str) -> dict:
    path = FOLDER / f"{name}.yml"
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold sections with settings, as phantom.yml does")
    return content


def _namespace(content):
    if isinstance(content, dict):
        return SimpleNamespace(**{key: _namespace(value) for key, value in content.items()})
    return content


def _check_like(content: dict, reference: dict, where: str) -> None:
    """The same keys, and values of the same types; a whole number may stand for another number."""
    missing, unknown = reference.keys() - content.keys(), content.keys() - reference.keys()
    if missing or unknown:
        raise ValueError(
            f"profile {where}: missing {sorted(missing) or 'nothing'}, unknown {sorted(unknown) or 'nothing'}; "
            "every profile has the keys of phantom.yml"
        )
    for key, expected in reference.items():
        value = content[key]
        if type(value) is not type(expected) and (type(value), type(expected)) != (int, float):
            raise ValueError(f"profile {where}: {key} is {value!r}; it must be of type {type(expected).__name__}")
        if isinstance(expected, dict) and key != "notebooks":
            _check_like(value, expected, f"{where}: {key}")
        if isinstance(value, list) and not all(isinstance(v, int | float) for v in value):
            raise ValueError(f"profile {where}: {key} is {value!r}; it must be a list of numbers")
