"""How the table of broken inputs is run: what goes wrong, through which entrance, and what must come of it."""

import contextlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import ball, info_row, write_deeplesion, write_lits, write_luna, write_nih

from lensnb import __main__ as cli
from lensnb.ct.volume import affine

STORE = "root/data/prepared/smoke/store/"
SHAPE = (6, 32, 32)
MATRIX = affine(np.diag([1.25, 1.25, 3.0]), np.array([1.0, 2.0, 3.0]))
MARK = ball(SHAPE, (3, 16, 18), 2.5)
HU = np.where(MARK, 800, 40)
A, B = "000001_01_01_005-010", "000004_01_01_005-010"  # sub-volumes of DeepLesion, the second of the manual test set
BOX = np.array([[14.0, 12, 7, 20, 18, 9]])


@dataclass(frozen=True)
class Refused:
    """An error of one line that says all of `texts`, with an exit status; nothing is written.

    keeps: the beginning of the paths of finished files that may stay, for the next start to use.
    """

    texts: tuple[str, ...]
    status: int = 2
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """The volume is not prepared, every other one is, and report.json names it with the reason."""

    volume: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Noted:
    """The volume is prepared as far as it goes; volumes.csv and report.json say what is missing of it."""

    volume: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Told:
    """The command ends with this status and what it prints says all of `texts`; it writes no file but `keeps`."""

    texts: tuple[str, ...]
    status: int = 0
    keeps: tuple[str, ...] = ()


def refused(*texts: str, status: int = 2, keeps: tuple[str, ...] = ()) -> Refused:
    """An error that says all of `texts`."""
    return Refused(texts, status, keeps)


def left_out(volume: str, *texts: str) -> LeftOut:
    """A volume that is skipped and counted."""
    return LeftOut(volume, texts)


def noted(volume: str, *texts: str) -> Noted:
    """A volume that is used in part."""
    return Noted(volume, texts)


def told(*texts: str, status: int = 0, keeps: tuple[str, ...] = ()) -> Told:
    """A report that says all of `texts`."""
    return Told(texts, status, keeps)


@dataclass(frozen=True)
class Place:
    """Where a case happens: an empty folder, and what replaces functions and variables until the case is over."""

    folder: Path
    patch: pytest.MonkeyPatch

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


@dataclass(frozen=True)
class Case:
    """One broken input.

    make(folder) writes sound files; damage(place) breaks them; call: a command line, in which {} stands for the
    folder, or a function of the folder that raises the error.
    """

    entrance: str
    broken: str
    make: Callable[[Path], object]
    damage: Callable[[Place], object]
    call: str | Callable[[Path], object]
    expected: Refused | LeftOut | Noted | Told

    @property
    def name(self) -> str:
        """The row of the table, as pytest shows it."""
        outcome = {Refused: "error", LeftOut: "left out", Noted: "noted", Told: "told"}[type(self.expected)]
        return f"{self.entrance} | {self.broken} | {outcome}"


def table(entrance: str, make, call, *rows: tuple) -> list[Case]:
    """Cases of one entrance: what is broken, how, and what must come of it."""
    return [Case(entrance, broken, make, damage, call, expected) for broken, damage, expected in rows]


def run(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one case in an empty folder and compare what comes of it with what is expected."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LENSNB_ROOT", str(folder / "root"))
    for variable in ("LENSNB_DATA", "LENSNB_TRACEBACK"):
        monkeypatch.delenv(variable, raising=False)
    case.make(folder)
    case.damage(Place(folder, monkeypatch))
    before = files(folder)
    status, output, error = call(case.call, folder)
    monkeypatch.undo()
    assert not (folder / "made-by-a-pickle").exists()
    message = error or output
    expected = case.expected
    new = {path for path, content in files(folder).items() if before.get(path) != content}
    lost = before.keys() - files(folder).keys()
    assert not lost, f"{lost} are gone; {message}"
    assert not [path for path in new if "part" in path or Path(path).name.startswith(".")], new
    assert not list(folder.rglob("*.part*")), message
    check_store([folder / path for path in new if path.startswith(STORE) and path.endswith(".npy")], message)
    if isinstance(expected, LeftOut | Noted):
        assert status == 0, message
        check_report(folder, expected, case.entrance)
        return
    assert status == expected.status, message
    for text in expected.texts:
        assert text in message, message
    unwanted = {path for path in new if not path.startswith(expected.keeps or ("nothing",))}
    assert not unwanted, unwanted
    if isinstance(expected, Refused):
        assert error.startswith("lensnb: ") and error.count("\n") == 1 and len(error) < 700, error


def call(what: str | Callable[[Path], object], folder: Path) -> tuple[int, str, str]:
    """Exit status, output and error of a command line; a function's error is put as the command line would."""
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        try:
            if callable(what):
                status = cli.attempt(lambda: what(folder) and None)
            else:
                status = cli.main([word.replace("{}", str(folder)) for word in what.split()])
        except SystemExit as stop:
            status = stop.code
    return status, output.getvalue(), error.getvalue()


def files(folder: Path) -> dict[str, tuple]:
    """Every file below a folder, with what tells whether it changed."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[str(path.relative_to(folder))] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def check_store(arrays: list[Path], message: str) -> None:
    """Every volume that was written is whole and has its record."""
    for array in arrays:
        record = array.with_suffix(".json")
        assert record.exists(), f"{array.name} without its record; {message}"
        assert list(np.load(array, mmap_mode="r").shape) == json.loads(record.read_text())["shape"]


def check_report(folder: Path, expected: LeftOut | Noted, dataset: str) -> None:
    """The report and volumes.csv of a preparation in which one volume was broken."""
    prepared = folder / "root/data/prepared/smoke"
    counts = json.loads((prepared / "report.json").read_text())["datasets"][dataset]
    volumes = pd.read_csv(prepared / "volumes.csv", dtype=str, keep_default_na=False).set_index("volume")
    assert counts["prepared"] == len(volumes)
    if isinstance(expected, LeftOut):
        assert list(counts["skipped_volumes"]) == [expected.volume], counts
        assert sum(counts["reasons"].values()) == counts["skipped"] == 1 == counts["found"] - counts["prepared"]
        assert expected.volume not in volumes.index and not list((prepared / "store").rglob(f"{expected.volume}.*"))
        reason = counts["skipped_volumes"][expected.volume]
    else:
        assert counts["skipped"] == 0 and counts["prepared"] == counts["found"]
        reason = volumes.loc[expected.volume, "note"]
        assert sum(counts["notes"].values()) == len(reason.split("; "))
    for text in expected.texts:
        assert text in reason, reason


# sound files


def deeplesion(folder: Path) -> None:
    rows = [info_row(f"00000{p}_01_01", 7, (10, 8, 22, 20), (5, 10), (1.25, 1.25, 3), split=s, size=32)
            for p, s in ((1, 1), (4, 3))]  # fmt: skip
    write_deeplesion(folder / "raw", rows, {"val": {}, "test": {B: BOX}}, hu=lambda k: HU[k - 5], size=32)


def luna(folder: Path) -> None:
    scans = {f"1.2.{n}": (HU, MATRIX) for n in range(2)}
    write_luna(folder / "raw", scans, [("1.2.0", *(MATRIX @ [18, 16, 3, 1])[:3], 8.0)])


def lits(folder: Path) -> None:
    for number in (3, 4):
        write_lits(folder / "raw", number, HU, MARK * 2, MATRIX, suffix=".nii.gz" if number == 4 else ".nii")


def nih(folder: Path) -> None:
    for number in (3, 4):
        write_nih(folder / "raw", f"ABD_LYMPH_{number:03d}", HU, MARK * 1, MATRIX)


def nothing(folder: Path) -> None:
    (folder / "raw").mkdir()


# how files break


def cut(path: Path, keep: float = 0.6) -> None:
    """Leave the beginning of a file, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


def change(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, which must be there."""
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new))


def cell(path: Path, column: str, value: object, row: int = 0) -> None:
    """Put a value into a csv."""
    table = pd.read_csv(path, dtype=str)
    assert column in table
    table.loc[row, column] = str(value)
    table.to_csv(path, index=False)


def without(path: Path, column: str) -> None:
    """Take a column out of a csv."""
    pd.read_csv(path, dtype=str).drop(columns=column).to_csv(path, index=False)


def fill_disk(path: Path) -> None:
    """Let the writing of `path` meet a full disk: its temporary file leads to a device that has no space."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}").symlink_to("/dev/full")


def a_file_instead(name: str):
    def replace(at: Place) -> None:
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text("a file where a folder belongs")

    return replace


def a_folder_instead(name: str):
    def replace(at: Place) -> None:
        (at / name).unlink()
        (at / name).mkdir()

    return replace


class Malice:
    """A pickle of this makes a folder when it is read by what runs pickles."""

    def __reduce__(self):
        return Path("made-by-a-pickle").mkdir, ()


def write(name: str, content: str | bytes):
    """Put another file in the place of one."""

    def replace(at: Place) -> None:
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return replace


def remove(name: str):
    return lambda at: (at / name).unlink()


def cut_off(name: str):
    return lambda at: cut(at / name)


def full_at(name: str):
    return lambda at: fill_disk(at / name)


def replaced(name: str, old: str, new: str):
    return lambda at: change(at / name, old, new)


def no_damage(at: Place) -> None:
    """The call itself is the broken input."""
