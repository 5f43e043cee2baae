"""Every pin installs on every Python and platform that README promises; see pins.py for where that is known from."""

import re
import tomllib

import pins
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name

from lensnb import runfolder
from lensnb.run import environment

TABLE = pins.read()
PINNED = {canonicalize_name(name): version for name, version in environment.pins(
    environment.REQUIREMENTS.read_text()).items()}  # fmt: skip
PLACES = [(python, platform) for python in pins.PYTHONS for platform in pins.PLATFORMS]
# torch chooses its CUDA packages; IPython has a part for Macs alone, papermill one (for notebooks on the web) that it
# asks for on Python 3.12 alone: no result depends on these
UNPINNED = re.compile(r"nvidia-.*|cuda-.*|triton|appnope|aiohttp")


def test_the_table_is_of_these_pins():
    stored = {name: entry["version"] for name, entry in TABLE.items()}
    assert stored == PINNED, "requirements.txt was changed: run `python tests/pins.py`"


@pytest.mark.parametrize("python", [*pins.PYTHONS, "3.11.2", "3.12.3"])
def test_every_pin_admits(python):
    excluded = {name: entry["requires_python"] for name, entry in TABLE.items()
                if python not in SpecifierSet(entry["requires_python"] or "")}  # fmt: skip
    assert excluded == {}


@pytest.mark.parametrize(("python", "platform"), PLACES)
def test_every_pin_has_a_wheel(python, platform):
    accepted = pins.tags(python, platform)
    lacking = [name for name, entry in TABLE.items() if name not in map(canonicalize_name, pins.NO_WHEEL)
               and not any(accepted & parse_tag(wheel) for wheel in entry["wheels"])]  # fmt: skip
    assert lacking == []


@pytest.mark.parametrize(("python", "platform"), PLACES)
def test_what_the_pins_need_is_pinned_and_fits(python, platform):
    wrong = []
    for name, entry in TABLE.items():
        for need in pins.needs(entry, python, platform):
            needed = canonicalize_name(need.name)
            if UNPINNED.fullmatch(needed) and needed not in PINNED:
                continue
            if needed not in PINNED or not need.specifier.contains(PINNED[needed], prereleases=True):
                wrong.append(f"{name} needs {need}, pinned: {PINNED.get(needed)}")
    assert wrong == []


def test_a_pin_that_does_not_fit_is_seen():
    """The checks above can fail: soupsieve 4.1.1 is what excluded Debian 12's Python."""
    assert "3.11.2" not in SpecifierSet(">=3.11.5")
    assert not pins.tags("3.13.0", "Linux arm64") & parse_tag("cp313-cp313-manylinux_2_28_x86_64")
    assert not pins.tags("3.11.0", "Linux x86-64") & parse_tag("cp312-cp312-manylinux_2_28_x86_64")
    entry = {"requires": ['a>=2; python_version >= "3.13"', 'b; sys_platform == "darwin"', "c"]}
    assert [need.name for need in pins.needs(entry, "3.11.0", "Linux x86-64")] == ["c"]
    assert list(pins.needs(entry, "3.13.0", "macOS arm64"))[0] == Requirement(entry["requires"][0])


def test_what_is_promised_is_what_is_checked():
    root = runfolder.repository()
    series = [python.rpartition(".")[0] for python in pins.PYTHONS]
    words = f"{', '.join(series[:-1])} or {series[-1]}"
    assert f"Python {words} with pip" in (root / "README.md").read_text()
    assert f"Python {words} with pip" in (root / "run_all.sh").read_text()
    assert [f"3.{minor}" for minor in range(environment.OLDEST[1], environment.NEWEST[1] + 1)] == series
    promised = SpecifierSet(tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"])
    assert all(python in promised for python in pins.PYTHONS)
    assert "3.10.99" not in promised and f"3.{environment.NEWEST[1] + 1}.0" not in promised
