"""Which of the real datasets are there, and whether they are complete (`python -m lensnb data check`)."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lensnb import runfolder
from lensnb.datasets import DATASETS, FOUND, HANDLED, INCOMPLETE, LEFT_OUT
from lensnb.datasets.readers import READERS
from lensnb.files import check_output, files_below, is_macos, write_table
from lensnb.files.cells import for_spreadsheet
from lensnb.system import available_cores, progress

COUNTS = ["dataset", "what", "found", "expected"]
PROBLEMS = ["dataset", "volume", "effect", "problem"]
SHOWN = 3


@dataclass(frozen=True)
class Check:
    """What there is of the datasets below a folder.

    counts: dataset, what, found, expected. problems: dataset, volume (empty: the dataset itself), effect, problem
    ("kind: detail"). Effects: "left out" volumes are not used, "incomplete" ones as far as they go; "handled" is a
    known fault of the published files that is put right. usable: dataset -> usable volumes and, where the tables
    tell, their annotated lesions and those of all volumes. absent: datasets without a folder.
    """

    counts: pd.DataFrame
    problems: pd.DataFrame
    usable: dict[str, dict[str, int]]
    absent: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether all datasets are there, every count is as expected, and nothing is missing or broken."""
        faults = self.problems["effect"].isin([LEFT_OUT, INCOMPLETE]).any()
        return bool((self.counts["found"] == self.counts["expected"]).all()) and not faults


def check(root: Path | str, read: bool = False, workers: int = 1) -> Check:
    """Compare the datasets below `root` with what their makers published. Nothing is downloaded or written.

    Files are listed, and the tables read; with `read`, every volume is read to its last voxel, by `workers` processes.
    """
    root = Path(root)
    counts, problems, usable, absent = [], [], {}, []
    for name, dataset in DATASETS.items():
        faults = []
        found = pd.DataFrame(columns=FOUND)
        try:
            found = READERS[name].find(root)
        except (OSError, ValueError) as error:
            if (root / name).is_dir():
                faults.append(("", LEFT_OUT, f"whole dataset: {error}"))
            else:
                absent.append(name)
        listed = len(found) > 0
        if dataset.on_purpose:
            found = found[found["problem"] != dataset.on_purpose]
        faults += [(row.volume, LEFT_OUT, row.problem) for row in found.itertuples() if row.problem]
        ready = found[found["problem"] == ""]
        numbers = {}
        if listed:
            try:
                faults += READERS[name].faults(root, ready)
                numbers = READERS[name].count(root, found)
            except (OSError, ValueError) as error:  # a table that `find` does without
                faults.append(("", INCOMPLETE, f"unreadable table: {error}"))
            faults += _macos_files(root / name)
            ready = _without(ready, faults)
        if read:
            faults += _read_volumes(root, ready, workers)
            ready = _without(ready, faults)
        usable[name] = {
            "volumes": len(ready),
            "lesions": int(ready["lesions"].sum()),
            "all lesions": int(found["lesions"].sum()),
        }
        numbers[dataset.usable] = len(ready)
        expected = dict(dataset.expected)
        if listed:
            expected.setdefault(dataset.usable, len(found))
        counts += [(name, what, numbers.get(what, 0), number) for what, number in expected.items()]
        problems += [(name, *fault) for fault in faults]
    counts = pd.DataFrame(counts, columns=COUNTS)
    return Check(counts, pd.DataFrame(problems, columns=PROBLEMS), usable, tuple(absent))


def _without(ready: pd.DataFrame, faults: list[tuple]) -> pd.DataFrame:
    left_out = {volume for volume, effect, _ in faults if effect == LEFT_OUT}
    return ready[~ready["volume"].isin(left_out)]


def _macos_files(folder: Path) -> list[tuple]:
    number = sum(map(is_macos, files_below(folder)))
    return [("", HANDLED, f"files of macOS: {number} are left out (._*, .DS_Store, __MACOSX)")] if number else []


def _read_volumes(root: Path, ready: pd.DataFrame, workers: int) -> list[tuple]:
    """What is wrong with the volumes when they are read whole."""
    tasks = [(root, row) for _, row in ready.iterrows()]
    label = f"reading {ready['dataset'].iloc[0]}" if len(ready) else ""
    if workers <= 1 or len(tasks) < 2:
        results = [_read_volume(task) for task in progress(tasks, label)]
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["lensnb.datasets.check"])
        with context.Pool(min(workers, len(tasks))) as pool:
            results = list(progress(pool.imap(_read_volume, tasks, chunksize=4), label, total=len(tasks)))
    return [fault for faults in results for fault in faults]


def _read_volume(task: tuple) -> list[tuple]:
    root, row = task
    try:
        ct, _ = READERS[row["dataset"]].read(root, row)
    except (ValueError, OSError) as error:
        return [(row["volume"], LEFT_OUT, f"unreadable: {error}")]
    handled = ("matrices disagree", "lost header", "left out")
    notes = [note for note in ct.notes if not note.startswith("missing PNG")]  # listed before
    return [(row["volume"], HANDLED if note.startswith(handled) else INCOMPLETE, note) for note in notes]


def report(result: Check, root: Path | str) -> str:
    """The check as lines for a terminal: every count, and of every kind of problem how often and the first few."""
    lines = [f"datasets in {root}:"]
    for name, dataset in DATASETS.items():
        counts = result.counts[result.counts["dataset"] == name]
        problems = result.problems[result.problems["dataset"] == name]
        whole = (counts["found"] == counts["expected"]).all() and problems["effect"].isin([HANDLED]).all()
        state = "complete" if whole else "absent" if name in result.absent else "incomplete"
        lines += ["", f"{name}: {state}"]
        for row in counts.itertuples():
            mark = "ok" if row.found == row.expected else "differs"
            lines.append(f"  {mark:<8}{row.found:>7,} of {row.expected:>6,} {row.what}")
        lines += _problem_lines(problems)
        if state == "incomplete":
            volumes, lesions, every = result.usable[name].values()
            marked = f" with {lesions:,} of {every:,} annotated lesions" if every else ""
            lines.append(f"  usable as it is: {volumes:,} volumes{marked}; `prepare` takes these")
        if state != "complete":
            lines += [f"  {line}" for line in f"get it: {dataset.get}".splitlines()]
    return "\n".join(lines)


def _problem_lines(problems: pd.DataFrame) -> list[str]:
    lines = []
    kinds = problems["problem"].str.split(":").str[0]
    for (effect, kind), part in problems.groupby([problems["effect"], kinds], sort=False):
        volumes = part.loc[part["volume"] != "", "volume"].nunique()
        lines.append(f"  {effect}: {kind} ({len(part):,} in {volumes:,} volumes)" if volumes else f"  {effect}: {kind}")
        for row in part.head(SHOWN).itertuples():
            detail = row.problem.removeprefix(f"{kind}: ")
            lines.append(f"      {row.volume}: {detail}" if row.volume else f"      {detail}")
        if len(part) > SHOWN:
            lines.append(f"      and {len(part) - SHOWN:,} more (--list FILE names all)")
    return lines


def command(action: str, root: Path | None, read: bool, workers: int | None, problems: Path | None) -> int:
    """The command `data check`: print the report; the exit status is 1 unless everything is there and whole.

    `action` is "check", the only one. FileNotFoundError if `root` is no folder, ValueError if
    `problems` can not be written or is no .csv or .npz.
    """
    if root and not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; --root names the folder that holds the datasets")
    if problems:
        check_output(problems, "--list", (".csv", ".npz"))
    root = root or runfolder.real_data()
    result = check(root, read, workers or available_cores())
    print(report(result, root))
    if problems:
        write_table(for_spreadsheet(result.problems), problems)
    return 0 if result.complete else 1
