"""Which of the real datasets are there, and whether they are complete (`python -m lensnb data check`)."""

import hashlib
import multiprocessing
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lensnb import runfolder
from lensnb.datasets import deeplesion, lits, luna16, nih_ln
from lensnb.files import read_json, write_table
from lensnb.system import available_cores, progress

READERS = {"DeepLesion": deeplesion, "LUNA16": luna16, "LiTS": lits, "NIH-LN": nih_ln}
# what the makers of the datasets state, and for the excluded findings and text-mined labels what their files hold
EXPECTED = {
    "DeepLesion": {
        "lesions in DL_info.csv": 32_735,
        "patients": 4_427,
        "studies": 10_594,
        "sub-volumes of the manual test set": 1_000,
        "boxes of the manual test set": 5_447,
        "lesions with text-mined labels": 24_121,
    },
    "LUNA16": {"scans": 888, "nodules": 1_186, "excluded findings": 35_192},
    "LiTS": {"volumes with labels": 131},
    "NIH-LN": {"cases with masks": 176, "annotated nodes": 983},
}
USABLE = {"LUNA16": "scans", "LiTS": "volumes with labels", "NIH-LN": "cases with masks"}
GET = {
    "DeepLesion": """NIH Clinical Center, https://nihcc.app.box.com/v/DeepLesion: DL_info.csv and Images_png (56
zip files), 225 GB; terms of use on that page. Manual test set: https://github.com/viggin/DeepLesion_manual_test_set,
0.4 MB, no licence stated. Text-mined labels: https://github.com/rsummers11/CADLab (LesaNet), 2 MB, terms there""",
    "LUNA16": """https://luna16.grand-challenge.org/Download: subset0 to subset9 and the csv files (CSVFILES), about
115 GB unpacked; CC BY 4.0, its scans CC BY 3.0 (LIDC-IDRI)""",
    "LiTS": """https://competitions.codalab.org/competitions/17094: Training_Batch1 and Training_Batch2, about 45 GB
unpacked; CC BY-NC-SA 4.0""",
    "NIH-LN": """https://www.cancerimagingarchive.net/collection/ct-lymph-nodes: the images (DICOM, about 58 GB) and the
zip files MED_ABD_LYMPH_MASKS and MED_ABD_LYMPH_ANNOTATIONS; CC BY 3.0""",
}
USUAL_DL_INFO = "f954fe34176b3443f0d89b21e21367754637aa43"  # what `git hash-object` says of the published DL_info.csv
COUNTS = ["dataset", "what", "found", "expected"]
PROBLEMS = ["dataset", "volume", "effect", "problem"]
LEFT_OUT, INCOMPLETE, HANDLED = "left out", "incomplete", "handled"
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
        """Whether all four datasets are there, every count is as expected, and nothing is missing or broken."""
        faults = self.problems["effect"].isin([LEFT_OUT, INCOMPLETE]).any()
        return bool((self.counts["found"] == self.counts["expected"]).all()) and not faults


def check(root: Path | str, read: bool = False, workers: int = 1) -> Check:
    """Compare the four datasets below `root` with what their makers published. Nothing is downloaded or written.

    Files are listed, and the tables read; with `read`, every volume is read to its last voxel, by `workers` processes.
    """
    root = Path(root)
    counts, problems, usable, absent = [], [], {}, []
    for name, reader in READERS.items():
        numbers, faults = Counter(), []
        found = pd.DataFrame(columns=["volume", "problem", "annotations"])
        try:
            found = reader.find(root)
        except (FileNotFoundError, ValueError) as error:
            if (root / name).is_dir():
                faults.append(("", LEFT_OUT, f"whole dataset: {error}"))
            else:
                absent.append(name)
        faults += [(row.volume, LEFT_OUT, row.problem) for row in found.itertuples() if row.problem]
        if name == deeplesion.NAME:
            faults = [fault for fault in faults if fault[2] != deeplesion.ONLY_NOISY]
        ready = found[found["problem"] == ""]
        if name == deeplesion.NAME:
            faults += _missing_slices(root, ready)
            ready = _without(ready, faults)
        if read:
            faults += _read_volumes(root, ready, workers)
            ready = _without(ready, faults)
        usable[name] = {"volumes": len(ready), "lesions": _lesions(name, ready), "all lesions": _lesions(name, found)}
        if len(found):
            numbers, more = _numbers(name, root, found)
            faults += more
        if name in USABLE:
            numbers[USABLE[name]] = len(ready)
        counts += [(name, what, numbers[what], expected) for what, expected in EXPECTED[name].items()]
        if name == deeplesion.NAME and len(found):
            named = int((found["problem"] != deeplesion.ONLY_NOISY).sum())
            counts.append((name, "sub-volumes with images", len(ready), named))
        problems += [(name, *fault) for fault in faults]
    counts = pd.DataFrame(counts, columns=COUNTS)
    return Check(counts, pd.DataFrame(problems, columns=PROBLEMS), usable, tuple(absent))


def _without(ready: pd.DataFrame, faults: list[tuple]) -> pd.DataFrame:
    left_out = {volume for volume, effect, _ in faults if effect == LEFT_OUT}
    return ready[~ready["volume"].isin(left_out)]


def _lesions(name: str, volumes: pd.DataFrame) -> int:
    """Annotated lesions of the volumes; 0 for LiTS, whose tumours are known only when the masks are read."""
    if name == lits.NAME:
        return 0
    marks = {deeplesion.NAME: lambda a: a.get("lesions"), nih_ln.NAME: lambda a: a["nodes"]}.get(name, lambda a: a)
    return sum(len(marks(annotations) or []) for annotations in volumes["annotations"])


def _numbers(name: str, root: Path, found: pd.DataFrame) -> tuple[Counter, list[tuple]]:
    """Counts of a dataset's tables, and what is wrong with them."""
    if name == "LUNA16":
        excluded = luna16.csv_file(root / name, "annotations_excluded.csv")
        findings = max(0, len(excluded.read_bytes().splitlines()) - 1) if excluded.is_file() else 0
        return Counter({"nodules": _lesions(name, found), "excluded findings": findings}), []
    if name == "NIH-LN":
        return Counter({"annotated nodes": _lesions(name, found)}), []
    if name != deeplesion.NAME:
        return Counter(), []
    info = deeplesion.read_info(root / name / "DL_info.csv")
    series = info["series"]
    numbers = Counter({
        "lesions in DL_info.csv": len(info),
        "patients": series.str[:6].nunique(),
        "studies": series.str[:9].nunique(),
    })  # fmt: skip
    for volumes in deeplesion.read_manual(root).values():
        numbers["sub-volumes of the manual test set"] += len(volumes)
        numbers["boxes of the manual test set"] += sum(map(len, volumes.values()))
    labels = root / name / deeplesion.LABELS_FILE
    content = read_json(labels) if labels.is_file() else {}
    numbers["lesions with text-mined labels"] = sum(len(rows) for kind, rows in content.items() if "_idxs" in kind)
    in_order = info[["series", "key"]].equals(info.sort_values(["series", "key"], kind="stable")[["series", "key"]])
    faults = []
    if content and not in_order and _git_hash(root / name / "DL_info.csv") != USUAL_DL_INFO:
        faults = [("", INCOMPLETE, f"rows out of order: {labels.name} counts the rows of the published table")]
    return numbers, faults


def _git_hash(path: Path) -> str:
    """What `git hash-object` says of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _missing_slices(root: Path, ready: pd.DataFrame) -> list[tuple]:
    """PNGs of DeepLesion that are not in their folders, and the sub-volumes that have too few to be used."""
    faults, folder, listed = [], "", set()
    for row in progress(list(ready.itertuples()), "listing DeepLesion"):
        if row.path != folder:
            folder, listed = row.path, set(os.listdir(root / row.path))
        wanted = range(row.annotations["start"], row.annotations["end"] + 1)
        missing = {number for number in wanted if f"{number:03d}.png" not in listed}
        if missing:
            there = [number for number in wanted if number not in missing]
            run = deeplesion.best_run(there, [lesion[1] for lesion in row.annotations["lesions"]])
            if len(run) < min(deeplesion.MIN_SLICES, len(wanted)):
                reason = f"too few slices: {len(run)} in a row of {len(wanted)} in {folder}"
                faults.append((row.volume, LEFT_OUT, reason))
            faults += [(row.volume, INCOMPLETE, f"missing PNG: {Path(folder).name}/{number:03d}.png")
                       for number in sorted(missing)]  # fmt: skip
    return faults


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
    handled = ("matrices disagree", "lost header")
    notes = [note for note in ct.notes if not note.startswith("missing PNG")]  # listed before
    return [(row["volume"], HANDLED if note.startswith(handled) else INCOMPLETE, note) for note in notes]


def report(result: Check, root: Path | str) -> str:
    """The check as lines for a terminal: every count, and of every kind of problem how often and the first few."""
    lines = [f"datasets in {root}:"]
    for name in READERS:
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
            lines += [f"  {line}" for line in f"get it: {GET[name]}".splitlines()]
    return "\n".join(lines)


def _problem_lines(problems: pd.DataFrame) -> list[str]:
    lines = []
    kinds = problems["problem"].str.split(":").str[0]
    for (effect, kind), part in problems.groupby([problems["effect"], kinds], sort=False):
        volumes = part["volume"].nunique()
        lines.append(f"  {effect}: {kind} ({len(part):,} in {volumes:,} volumes)" if volumes else f"  {effect}: {kind}")
        for row in part.head(SHOWN).itertuples():
            detail = row.problem.removeprefix(f"{kind}: ")
            lines.append(f"      {row.volume}: {detail}" if row.volume else f"      {detail}")
        if len(part) > SHOWN:
            lines.append(f"      and {len(part) - SHOWN:,} more (--list FILE names all)")
    return lines


def command(action: str, root: Path | None, read: bool, workers: int | None, problems: Path | None) -> int:
    """The command `data check`: print the report; the exit status is 1 unless everything is there and whole.

    `action` is "check", the only one. FileNotFoundError if `root` is no folder.
    """
    if root and not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; --root names the folder that holds the datasets")
    root = root or runfolder.real_data()
    result = check(root, read, workers or available_cores())
    print(report(result, root))
    if problems:
        write_table(result.problems, problems)
    return 0 if result.complete else 1
