"""What a notebook needs that another notebook or command makes: the files that stand for it, and who makes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lensnb import runfolder
from lensnb.lesanet.methods import TABLE1
from lensnb.show.parameters import CannotStart


@dataclass(frozen=True)
class Need:
    """Files in one of a profile's folders ("raw", "prepared", "runs"), and the target of run_all.sh that makes them.

    A target that begins with a number is a notebook, "-" and an experiment behind it; another one is a command.
    """

    name: str
    folder: str
    files: tuple[str, ...]
    target: str


_MINED = ("cross-slice", "intra-patient", "cross-dataset")
_ALL = (
    Need("raw data", "raw", ("complete.json",), "01_the_data"),  # of phantoms; real data have no such file
    Need("prepared volumes", "prepared", ("volumes.csv", "boxes.csv"), "02_preparing_ct"),
    Need("starting weights", "runs", ("pretext/weights.safetensors",), "pretext"),
    Need(
        "cross-slice mining",
        "runs",
        tuple(
            f"mined/{name}" for name in ("tracklets.npz", "tracklets-val.npz", "cross-slice.csv", "cross-slice-val.csv")
        ),
        "06_cross_slice_mining",
    ),
    Need(
        "intra-patient mining",
        "runs",
        ("mined/intra-patient.csv", "mined/intra-patient-val.csv"),
        "07_intra_patient_mining",
    ),
    Need("mined boxes", "runs", tuple(f"mined/{name}.csv" for name in _MINED), "08_cross_dataset_mining"),
    Need("audits of mining", "runs", tuple(f"audit/{name}.csv" for name in _MINED), "08_cross_dataset_mining"),
    Need("FPR scores", "runs", ("fpr/scores-val.csv", "fpr/scores-test.csv"), "10_false_positive_reduction"),
    Need("LesaNet", "runs", ("lesanet/lesanet/weights.safetensors",), "lesanet"),
    Need("simpler embedding", "runs", ("embedding/weights.safetensors",), "embedding"),
    Need(
        "predictions of LesaNet and its rivals",
        "runs",
        tuple(f"lesanet/predictions/{name}.npz" for name in TABLE1),
        "15_lesanet",
    ),
)
NEEDS = {need.name: need for need in _ALL}


def experiment(name: str, seed: int) -> Need:
    """A trained experiment."""
    weights = f"experiments/{name}-seed{seed}/weights.safetensors"
    return Need(f"trained experiment {name}", "runs", (weights,), f"04_training_lens-{name}")


def proposals(name: str) -> Need:
    """The proposals of an experiment on a split, "multi-val"; those on training volumes are notebook 05's."""
    trained, _, split = name.rpartition("-")
    target = "05_proposals" if split == "train" else f"04_training_lens-{trained}"
    return Need(f"proposals {name}", "runs", (f"proposals/{name}.npz",), target)


def check(needs: Iterable[Need], folders: Mapping[str, Path], profile: str, seed: int) -> None:
    """CannotStart for the first of these needs of which a file is missing; it says what makes it.

    folders: the profile's, by the names that needs have for them.
    """
    for need in needs:
        missing = [path for path in (folders[need.folder] / file for file in need.files) if not path.exists()]
        if not missing:
            continue
        where = missing[0].relative_to(runfolder.root()) if missing[0].is_relative_to(runfolder.root()) else missing[0]
        run = f"--profile {profile}" + (f" --seed {seed}" if seed else "")
        notebook, _, trained = need.target.partition("-")
        if notebook[0].isdigit():
            maker = f"notebook {notebook}.ipynb" + (f' with experiment = "{trained}"' if trained else "")
        else:
            maker = f"`python -m lensnb {need.target} {run}`"
        raise CannotStart(
            f"{need.name}: missing, there is no {where}; run {maker} first, "
            f"or `./run_all.sh {run} --only {need.target}`, which also makes what that needs"
        )
