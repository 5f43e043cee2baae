"""Variants of a profile: the same run with other numbers, in folders of its own.

`./run_all.sh --variant NAME --set section.key=value` writes data/variants/<profile>+<NAME>.yml, a profile that says
what it changes. From then on <profile>+<NAME> is a profile's name like any other, for every command and notebook.
"""

import difflib
import re
from collections.abc import Sequence

import yaml

from lensnb.files import atomic_write
from lensnb.settings import SECTIONS, load_profile, profile_file, read_yaml, to_dict

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def write_variant(profile: str, name: str, changes: Sequence[str]) -> str:
    """Write data/variants/<profile>+<name>.yml with changes like "mining.sigmas=[0.5]"; return <profile>+<name>.

    A candidate list may be given as its only candidate: mining.sigma=0.5. Raises ValueError for what is no such change
    and for a variant that exists with other changes: its runs would no longer be what its name says.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"a variant cannot be called {name!r}: use letters, digits, '.', '_' and '-'")
    reference = to_dict(load_profile(profile))
    content: dict = {"base": profile}
    for change in changes:
        section, key, value = _change(change, reference)
        content.setdefault(section, {})[key] = value
    full = f"{profile}+{name}"
    path = profile_file(full)
    if path.exists() and read_yaml(path) != content:
        if changes:
            raise ValueError(f"variant {name} exists with other settings ({path}); choose another name, or delete it")
        return full
    if not changes and not path.exists():
        raise ValueError(f"variant {name} does not exist; --set section.key=value says what it changes")
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False))
    try:
        load_profile(full)
    except ValueError:
        path.unlink()
        raise
    return full


def _change(text: str, reference: dict) -> tuple[str, str, object]:
    """Section, key and value of a change "section.key=value"."""
    match = re.fullmatch(r"(\w+)\.(\w+)=(.+)", text)
    if not match:
        raise ValueError(f"{text!r} is no change of a setting; write section.key=value, as in mining.sigma=0.5")
    section, key, value = match.groups()
    if section not in SECTIONS:
        raise ValueError(f"{text}: there is no section {section!r}; the sections are {', '.join(SECTIONS)}")
    try:
        value = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{text}: the value is not valid YAML: {' '.join(str(error).split())}") from error
    known = reference[section]
    if key not in known and isinstance(known.get(f"{key}s"), list):  # the only candidate
        key, value = f"{key}s", [value]
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
        raise ValueError(f"{text}: section {section} has no setting {key!r}; {hint}")
    return section, key, value
