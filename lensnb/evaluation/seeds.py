"""The benchmark with several seeds: how far chance moves each row of LENS Table II, and which claims hold every time.

Each seed has other training phantoms and other trainings; the test set is the same. The intervals of one run measure
the choice of test patients alone, so what differs between seeds is not in them.
"""

from pathlib import Path

import pandas as pd

from lensnb.evaluation import primary
from lensnb.evaluation.markdown import markdown, write_text
from lensnb.files import read_table, write_table
from lensnb.runfolder import Run
from lensnb.settings import load_profile

# table, the column that names its lines, and the columns that are compared, each with its kind
COMPARED = (
    ("table2", "row", {"average": "row"}),
    ("claims", "claim", {"ours": "claim"}),
    ("mining_audit", "strategy", {"precision": "precision", "recall": "recall"}),
)
VERDICTS = ("holds", "undecided", "fails")
NOTE = (
    "Average sensitivity in % of each row, its differences that the claims are about, and precision and recall of the "
    "mined labels, with other training phantoms and other trainings for each seed and the same test set. sd: between "
    "the seeds. The intervals behind a verdict measure the choice of test patients, not that of the seed."
)


def find(profile: str) -> dict[int, Run]:
    """The runs of this profile, by seed, that have left their tables."""
    found = {}
    for folder in Run(profile).figures.parent.glob(f"{profile}*"):
        number = folder.name.removeprefix(profile).removeprefix("-seed") or "0"
        run = Run(profile, int(number)) if number.isdecimal() else None
        if run and folder == run.figures and all(run.table(name).exists() for name, _, _ in COMPARED):
            found[run.seed] = run
    return dict(sorted(found.items()))


def compare(runs: dict[int, Run]) -> pd.DataFrame:
    """A line for each row of LENS Table II, each claim, and each mining strategy's precision and recall.

    Columns: kind (row, claim, precision or recall), name, then for each seed seed_<N> (a fraction), then mean and sd
    (of a sample), and for claims verdicts, as "holds 2, fails 1". Raises ValueError if two runs do not have the same
    lines: then different versions made them; or if a table is broken.
    """
    per_seed = {seed: _lines(run) for seed, run in runs.items()}
    first_seed, first = next(iter(per_seed.items()))
    table = pd.DataFrame({f"seed_{seed}": lines["value"] for seed, lines in per_seed.items()})
    for seed, lines in per_seed.items():
        if odd := sorted(set(lines.index) ^ set(first.index)):
            raise ValueError(
                f"{runs[seed].figures} and {runs[first_seed].figures} differ in their lines, as in "
                f"{' '.join(odd[0])!r}; make both with the same version"
            )
    table = table.loc[first.index]  # in the order of the tables
    mean, sd = table.mean(axis=1), table.std(axis=1)
    verdicts = pd.DataFrame({seed: lines["verdict"] for seed, lines in per_seed.items()}).loc[first.index]
    counts = verdicts.apply(lambda line: ", ".join(f"{v} {n}" for v in VERDICTS if (n := (line == v).sum())), axis=1)
    return table.assign(mean=mean, sd=sd, verdicts=counts).reset_index()


def _lines(run: Run) -> pd.DataFrame:
    """The compared numbers of one run: value and verdict, by kind and name."""
    parts = []
    for file, name, columns in COMPARED:
        wanted = [name, *columns, *(["verdict"] if "claim" in columns.values() else [])]
        table = read_table(run.table(file), wanted)
        for column, kind in columns.items():
            if len(table) and not pd.api.types.is_numeric_dtype(table[column]):
                raise ValueError(f"{run.table(file)}: the column {column} should hold numbers; make it again")
            verdict = table["verdict"] if kind == "claim" else None
            part = {"kind": kind, "name": table[name], "value": table[column], "verdict": verdict}
            parts.append(pd.DataFrame(part))
    lines = pd.concat(parts).set_index(["kind", "name"])
    if lines.index.has_duplicates:
        twice = " ".join(map(str, lines.index[lines.index.duplicated()][0]))
        raise ValueError(f"{run.figures}: its tables have {twice!r} more than once; make them again")
    return lines


def write(profile: str) -> Path:
    """Write seeds.csv and seeds.md into the profile's figures, and return the path of the latter.

    Raises FileNotFoundError if fewer than two seeds have been run to their tables.
    """
    runs, first = find(profile), Run(profile)
    if len(runs) < 2:
        there = f"seed {max(runs)} alone" if runs else "no seed"
        missing = max(runs, default=-1) + 1
        raise FileNotFoundError(
            f"{there} has tables in {first.figures.parent}; "
            f"`./run_all.sh --profile {profile} --seed {missing} --only table2` makes those of seed {missing}"
        )
    table = compare(runs)
    write_table(table, first.table("seeds"))
    shown = table.rename(columns=lambda name: name.replace("_", " "))
    text = markdown(shown, percent=shown.columns[2:-1].tolist())
    page = first.table("seeds", "md")
    write_text(f"Table II with {len(runs)} seeds, profile {profile}", text, NOTE, page)
    return page


def write_primary(profile: str) -> str:
    """Write primary_claims.csv and .md beside them and return the text; a line instead if the detections are not there.

    The tables of a seed can come from another machine; its claims need its detections, in data/runs.
    """
    runs, first = find(profile), Run(profile)
    matches = primary.matches_of(runs)
    lacking, text = ", ".join(str(seed) for seed in runs if seed not in matches), ""
    if lacking:
        text = f"Without the primary claims' seeds {lacking}: their detections of all rows are not in data/runs.\n"
    if len(matches) < 2:
        return text
    pages = first.table("primary_claims"), first.table("primary_claims", "md")
    return text + primary.write_primary(primary.primary_claims(matches), *pages, profile)


def command(profile: str) -> str:
    """The command `seeds`: the tables of all seeds beside each other, and the primary claims decided by all of them.

    ValueError for a profile that does not exist.
    """
    load_profile(profile)
    return f"{write(profile).read_text()}\n{write_primary(profile)}"
