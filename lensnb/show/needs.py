"""What a notebook needs that another notebook or command makes: the files that stand for it, and who makes them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lensnb import runfolder
from lensnb.lesanet.methods import CONTROLS, TABLE1
from lensnb.runfolder import WEIGHTS, Run
from lensnb.show.parameters import CannotStart
from lensnb.training.experiments import MINED


@dataclass(frozen=True)
class Need:
    """Files of a run, and the target of run_all.sh that makes them.

    A target that begins with a number is a notebook, "-" and an experiment behind it; another one is a command.
    """

    name: str
    files: Callable[[Run], list[Path]]
    target: str


_ALL = (
    # of phantoms; real data have no such file
    Need("raw data", lambda run: [run.raw / "complete.json"], "01_the_data"),
    Need(
        "prepared volumes",
        lambda run: [run.prepared / "volumes.csv", run.prepared / "boxes.csv"],
        "02_preparing_ct",
    ),
    Need("starting weights", lambda run: [run.pretext], "pretext"),
    Need(
        "cross-slice mining",
        lambda run: [
            *(run.tracklets(split) for split in ("train", "val")),
            *(run.mined("cross-slice", split) for split in ("train", "val")),
        ],
        "06_cross_slice_mining",
    ),
    Need(
        "intra-patient mining",
        lambda run: [run.mined("intra-patient", split) for split in ("train", "val")],
        "07_intra_patient_mining",
    ),
    Need(
        "mined boxes",
        lambda run: [run.mined(strategy) for strategy, _ in MINED["mined"]],
        "08_cross_dataset_mining",
    ),
    Need(
        "audits of mining",
        lambda run: [run.audit(strategy) for strategy, _ in MINED["mined"]],
        "08_cross_dataset_mining",
    ),
    Need(
        "FPR scores",
        lambda run: [run.fpr_scores(split) for split in ("val", "test")],
        "10_false_positive_reduction",
    ),
    Need("LesaNet", lambda run: [run.lesanet() / WEIGHTS], "lesanet"),
    Need("simpler embedding", lambda run: [run.embedding / WEIGHTS], "embedding"),
    Need(
        "predictions of LesaNet and its rivals",
        lambda run: [run.lesanet_answers(name) for name in (*TABLE1, *CONTROLS)],
        "15_lesanet",
    ),
)
NEEDS = {need.name: need for need in _ALL}


def experiment(name: str) -> Need:
    """A trained experiment."""
    return Need(f"trained experiment {name}", lambda run: [run.weights(name)], f"04_training_lens-{name}")


def proposals(name: str) -> Need:
    """The proposals of an experiment on a split, "multi-val"; those on training volumes are notebook 05's."""
    trained, _, split = name.rpartition("-")
    target = "05_proposals" if split == "train" else f"04_training_lens-{trained}"
    return Need(f"proposals {name}", lambda run: [run.proposals(trained, split)], target)


def check(needs: Iterable[Need], run: Run) -> None:
    """CannotStart for the first of these needs of which a file of the run is missing; it says what makes it."""
    for need in needs:
        missing = [path for path in need.files(run) if not path.exists()]
        if not missing:
            continue
        where = missing[0].relative_to(runfolder.root()) if missing[0].is_relative_to(runfolder.root()) else missing[0]
        options = f"--profile {run.profile}" + (f" --seed {run.seed}" if run.seed else "")
        notebook, _, trained = need.target.partition("-")
        if notebook[0].isdigit():
            maker = f"notebook {notebook}.ipynb" + (f' with experiment = "{trained}"' if trained else "")
        else:
            maker = f"`python -m lensnb {need.target} {options}`"
        raise CannotStart(
            f"{need.name}: missing, there is no {where}; run {maker} first, "
            f"or `./run_all.sh {options} --only {need.target}`, which also makes what that needs"
        )
