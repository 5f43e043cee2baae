"""The benchmark with several seeds: how far chance moves each row of LENS Table II, and which claims hold.

Each seed has other training phantoms and other trainings; the test set is the same. The intervals of one run measure
the choice of test patients alone, so what differs between seeds is not in them; `primary` puts both together. Seeds can
be run on different machines: each leaves one small file (see `seed_results`), and these are merged here.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lensnb.evaluation import primary, seed_results, verdicts
from lensnb.evaluation.markdown import markdown, write_text
from lensnb.evaluation.seed_results import COMPARED, SeedResult
from lensnb.files import write_table
from lensnb.runfolder import Run
from lensnb.settings import load_profile

ORDER = (verdicts.HOLDS, verdicts.UNDECIDED, verdicts.FAILS)
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


def collect(profile: str) -> dict[int, SeedResult]:
    """The results of all seeds: those of the runs that are here, and those of other machines' files.

    A run that is here counts before its file. Where its detections are gone (as those of a fresh checkout are), its
    file has what they gave, if it is of the same tables.
    ValueError if a file is none, if two are of one seed, or if seeds were tested on different patients.
    """
    found = {seed: seed_results.of_run(run) for seed, run in find(profile).items()}
    of_files: dict[int, Path] = {}
    for path in sorted(seed_results.file_of(profile, 0).parent.glob("*.json")):
        result = seed_results.read(path)
        if result.profile != profile:  # a variant begins with the files of its profile
            continue
        if result.seed in of_files:
            raise ValueError(f"{path} and {of_files[result.seed]} are both of seed {result.seed}; remove one")
        of_files[result.seed] = path
        own = found.get(result.seed)
        if own is None or (not own.averages and own.lines.equals(result.lines)):
            found[result.seed] = result
    tested = {seed: result.test_set for seed, result in sorted(found.items()) if result.averages}
    if len(set(tested.values())) > 1:
        first = next(iter(tested))
        odd = next(seed for seed in tested if tested[seed] != tested[first])
        raise ValueError(f"seeds {first} and {odd} were tested on different patients; make them with the same version")
    return dict(sorted(found.items()))


def compare(results: Mapping[int, SeedResult]) -> pd.DataFrame:
    """A line for each row of LENS Table II, each claim, and each mining strategy's precision and recall.

    Columns: kind (row, claim, precision or recall), name, then for each seed seed_<N> (a fraction), then mean and sd
    (of a sample), and for claims verdicts, as "holds 2, fails 1". Raises ValueError if two seeds do not have the same
    lines: then different versions made them.
    """
    first_seed, first = next(iter(results.items()))
    for seed, result in results.items():
        if odd := sorted(set(result.lines.index) ^ set(first.lines.index)):
            raise ValueError(
                f"seed {seed} ({Run(result.profile, seed).figures}) and seed {first_seed} differ in their lines, as in "
                f"{' '.join(odd[0])!r}; make both with the same version"
            )
    table = pd.DataFrame({f"seed_{seed}": result.lines["value"] for seed, result in results.items()})
    table = table.loc[first.lines.index]  # in the order of the tables
    mean, sd = table.mean(axis=1), table.std(axis=1)
    given = pd.DataFrame({seed: result.lines["verdict"] for seed, result in results.items()}).loc[first.lines.index]
    counts = given.apply(lambda line: ", ".join(f"{v} {n}" for v in ORDER if (n := (line == v).sum())), axis=1)
    return table.assign(mean=mean, sd=sd, verdicts=counts).reset_index()


def write(profile: str) -> str:
    """Write what all seeds say, and return it: seeds.csv and .md, primary_claims.csv and .md, and each seed's file.

    Raises FileNotFoundError if fewer than two seeds have been run to their tables; one has its file then, which can be
    carried to where the others are. Without the detections of two seeds there are no primary claims, and a line says
    which are lacking.
    """
    results, first = collect(profile), Run(profile)
    for result in results.values():
        if result.averages:
            seed_results.write(result)
    if len(results) < 2:
        there = f"seed {max(results)} alone" if results else "no seed"
        missing = next(seed for seed in range(len(results) + 1) if seed not in results)
        raise FileNotFoundError(
            f"{there} has tables in {first.figures.parent}; `./run_all.sh --profile {profile} --seed {missing} --only "
            f"table2` makes those of seed {missing}, and `./run_all.sh --profile {profile} --seeds 5` those of five"
        )
    table = compare(results)
    whole = {seed: result.averages for seed, result in results.items() if result.averages}
    claims = primary.primary_claims(whole) if len(whole) > 1 else None
    write_table(table, first.table("seeds"))
    shown = table.rename(columns=lambda name: name.replace("_", " "))
    text = markdown(shown, percent=shown.columns[2:-1].tolist())
    commits = sorted({result.commit.split()[0][:7] for result in results.values()})
    note = f"{NOTE} Made by commit{'s' * (len(commits) > 1)} {', '.join(commits)}."
    page = first.table("seeds", "md")
    write_text(f"Table II with {len(results)} seeds, profile {profile}", text, note, page)
    text = page.read_text()
    if lacking := ", ".join(str(seed) for seed in results if seed not in whole):
        text += f"\nWithout the primary claims' seeds {lacking}: their detections of all rows are not in data/runs.\n"
    if claims is not None:
        pages = first.table("primary_claims"), first.table("primary_claims", "md")
        text += f"\n{primary.write_primary(claims, *pages, profile)}"
    return text


def command(profile: str) -> str:
    """The command `seeds`: the tables of all seeds beside each other, and the primary claims decided by all of them.

    ValueError for a profile that does not exist.
    """
    load_profile(profile)
    return write(profile)
