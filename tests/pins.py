"""What the package index says of every pin: the Pythons that it admits, its wheels, and what it needs.

`python tests/pins.py` asks pip for each Python and platform below and writes pins.json (some minutes, nothing is
installed); do so whenever requirements.txt changes. test_pins.py reads the file, so the tests need no network.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name

from lensnb.run.environment import REQUIREMENTS, pins

TABLE = Path(__file__).with_name("pins.json")
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")  # the oldest of each series; Debian 12 has 3.11.2
GLIBC, MACOS = (2, 28), (12, 0)  # the oldest that all wheels run on
OLD_NAMES = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
NO_WHEEL = ("connection_pool",)  # published as source, pure Python


def linux(machine: str) -> list[str]:
    """The platform tags of a Linux with the oldest supported glibc."""
    found = []
    for minor in range(GLIBC[1], 4, -1):
        found.append(f"manylinux_2_{minor}_{machine}")
        if old := OLD_NAMES.get((2, minor)):
            found.append(f"{old}_{machine}")
    return found


# what Python's platform module and markers say, and the platform tags; torch has no wheels for Intel Macs
PLATFORMS = {
    "Linux x86-64": ({"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
                     linux("x86_64")),
    "Linux arm64": ({"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
                    linux("aarch64")),
    "macOS arm64": ({"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
                    list(mac_platforms(MACOS, "arm64"))),
}  # fmt: skip


def read() -> dict[str, dict]:
    """The stored table: package -> version, requires_python, wheels (tags), requires."""
    return json.loads(TABLE.read_text())


def tags(python: str, platform: str) -> set[Tag]:
    """The wheels that a Python of this version takes on a platform."""
    version, platforms = tuple(map(int, python.split(".")[:2])), PLATFORMS[platform][1]
    interpreter = f"cp{version[0]}{version[1]}"
    return {*cpython_tags(version, platforms=platforms), *compatible_tags(version, interpreter, platforms)}


def needs(entry: dict, python: str, platform: str) -> Iterator[Requirement]:
    """What a package needs on this Python and platform, without its extras."""
    environment = {
        **PLATFORMS[platform][0], "python_version": ".".join(python.split(".")[:2]), "python_full_version": python,
        "implementation_name": "cpython", "platform_python_implementation": "CPython", "os_name": "posix", "extra": "",
    }  # fmt: skip
    for text in entry["requires"]:
        requirement = Requirement(text)
        if not requirement.marker or requirement.marker.evaluate(environment):
            yield requirement


def ask(requirements: str, python: str, platform: str) -> list[dict]:
    """What pip would install of these lines, each package by itself; pip ends this program if it finds no wheel."""
    with tempfile.TemporaryDirectory() as folder:
        lines, report = Path(folder, "requirements.txt"), Path(folder, "report.json")
        lines.write_text(requirements)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps",
                   "--ignore-requires-python", "--only-binary=:all:", f"--no-binary={','.join(NO_WHEEL)}",
                   "--implementation=cp", f"--python-version={python}", "--target", folder, "--report", report,
                   *(f"--platform={name}" for name in PLATFORMS[platform][1]), "-r", lines]  # fmt: skip
        subprocess.run(command, check=True)
        return json.loads(report.read_text())["install"]


def main() -> None:
    """Write pins.json."""
    wanted = {canonicalize_name(name): f"{name}=={version}" for name, version in pins(REQUIREMENTS.read_text()).items()}
    table: dict[str, dict] = {}
    for python in PYTHONS:
        for platform in PLATFORMS:
            # what has a wheel for everything is asked for once
            rest = [name for name in wanted if not table or not {"any", "none"} & set(_systems(table[name]))]
            print(f"Python {python}, {platform}: {len(rest)} packages", flush=True)
            for item in ask("\n".join(wanted[name] for name in rest), python, platform):
                about, file = item["metadata"], item["download_info"]["url"].rpartition("/")[2]
                entry = table.setdefault(canonicalize_name(about["name"]), {
                    "version": about["version"], "requires_python": about.get("requires_python", ""), "wheels": [],
                    "requires": [line for line in about.get("requires_dist", []) if "extra ==" not in line],
                })  # fmt: skip
                tag = "-".join(file.removesuffix(".whl").split("-")[-3:]) if file.endswith(".whl") else "none"
                entry["wheels"] = sorted({*entry["wheels"], tag})
    lines = [f"{json.dumps(name)}: {json.dumps(table[name])}" for name in sorted(table)]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _systems(entry: dict) -> list[str]:
    return [tag.rpartition("-")[2] for tag in entry["wheels"]]


if __name__ == "__main__":
    main()
