"""Where things lie: every folder of the project and every file of a run, by what it is.

A run is made of a profile (or a variant of one, see variants.py) and a seed. It has a folder for what is trained and
computed, one for the prepared volumes, and one for tables and figures; each further seed has folders of its own, and so
has what is done by hand in a notebook, which starts with the files of the run that it belongs to (see `borrow`).
LENSNB_ROOT moves data/ and figures/ elsewhere (tests use it); LENSNB_DATA names the folder of the real datasets.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lensnb.datasets import present
from lensnb.files import write_json
from lensnb.settings import base_of, load_profile
from lensnb.system import repository as repository  # a place like those below
from lensnb.system import root as root

STEP = "LENSNB_JOB"  # set in everything that a step of run_all.sh starts
BY_HAND = "LENSNB_BY_HAND"  # set in the kernel of a notebook that run_all.sh did not start
# in the folder of every training; from its checkpoint an interrupted one goes on
WEIGHTS, CONFIG, LOG, CHECKPOINT = "weights.safetensors", "config.json", "log.csv", "checkpoint.pt"
VALIDATION = "validation.csv"  # beside them, where the best weights of a training are kept: which those are
NAMING = "labels.json"  # beside LesaNet's weights: what naming lesions needs
DETECTED = ("detections.csv", "overlay.png", "detections.mrk.json", "about.json")  # in a folder of own_ct
BORROWED = "borrowed.json"  # what a folder has from another one, with the times of its files
NOT_BORROWED = (".snakemake", "done", "sight", "logs", "locks", "partial", "failures")


@dataclass(frozen=True)
class Run:
    """The files of a run. Nothing is read or written here; `split` is train, val or test."""

    profile: str
    seed: int = 0

    @property
    def folder(self) -> Path:
        """Trained models, proposals, mined boxes, executed notebooks and logs."""
        return runs(self.profile, self.seed)

    @property
    def raw(self) -> Path:
        """The datasets' own files."""
        return raw(self.profile, self.seed)

    @property
    def prepared(self) -> Path:
        """The store of prepared volumes."""
        return prepared(self.profile, self.seed)

    @property
    def figures(self) -> Path:
        """Tables and figures."""
        return figures(self.profile, self.seed)

    @property
    def pretext(self) -> Path:
        """The weights that every detector starts from."""
        return self.folder / "pretext" / WEIGHTS

    @property
    def organs(self) -> Path:
        """The folder of the network that learned organs; the start has its backbone."""
        return self.folder / "pretext" / "organs"

    def experiment(self, name: str) -> Path:
        """The folder of a trained LENS."""
        return self.folder / "experiments" / f"{name}-seed{self.seed}"

    def weights(self, name: str) -> Path:
        """The weights of an experiment's LENS."""
        return self.experiment(name) / WEIGHTS

    def proposals(self, experiment: str, split: str) -> Path:
        """What the experts of an experiment find on every slice of a split: a table of 2D boxes.

        Besides train, val and test of DeepLesion: "own", the validation volumes of the single-type datasets, each an
        expert's own, and "luna16", LUNA16's among them.
        """
        return self.folder / "proposals" / f"{experiment}-{split}.npz"

    def tracklets(self, split: str = "train") -> Path:
        """Fused proposals stacked to tracklets, which mining starts from."""
        return self.folder / "mined" / f"tracklets{_of(split)}.npz"

    def mined(self, strategy: str, split: str = "train", embedding: str = "") -> Path:
        """The labels that a mining strategy found; `embedding` "simpler" for those matched without LesaNet."""
        return self.folder / "mined" / embedding / f"{strategy}{_of(split)}.csv"

    def audit(self, strategy: str) -> Path:
        """Precision and recall of a mining strategy by the hidden truth."""
        return self.folder / "audit" / f"{strategy}.csv"

    def detections(self, row: str) -> Path:
        """3D detections of a row of LENS Table II on the test set, in original pixels and slice numbers."""
        return self.folder / "detections" / f"{row}.csv"

    @property
    def fpr(self) -> Path:
        """The folder of the trained 3D classifier."""
        return self.folder / "fpr"

    def fpr_scores(self, split: str) -> Path:
        """The detections of all of LENS with the scores of the 3D classifier."""
        return self.fpr / f"scores-{split}.csv"

    @property
    def embedding(self) -> Path:
        """The folder of the embedding that LesaNet is compared with."""
        return self.folder / "embedding"

    def lesanet(self, method: str = "lesanet") -> Path:
        """The folder of LesaNet, of one of its rivals or ablations."""
        return self.folder / "lesanet" / method

    def lesanet_answers(self, method: str = "lesanet") -> Path:
        """Embeddings and label scores of every labelled lesion."""
        return self.folder / "lesanet" / "predictions" / f"{method}.npz"

    @property
    def mined_labels(self) -> Path:
        """Labels mined from the phantoms' report sentences."""
        return self.folder / "lesanet" / "text_mined_labels.json"

    def luna16(self, experiment: str, detector: str) -> Path:
        """The marks of an experiment's experts on LUNA16's validation scans, in the challenge's format."""
        return self.folder / "luna16" / f"{experiment}-{detector.replace(' ', '-')}.csv"

    @property
    def luna16_scans(self) -> Path:
        """The names of LUNA16's validation scans, in the challenge's format."""
        return self.folder / "luna16" / "seriesuids.csv"

    @property
    def own_ct(self) -> Path:
        """What notebook 13 detects in one CT: the files DETECTED."""
        return self.folder / "own_ct"

    @property
    def logs(self) -> Path:
        """The folder of the steps' logs."""
        return self.folder / "logs"

    def log(self, step: str) -> Path:
        """What a step said."""
        return self.logs / f"{step}.log"

    def lock(self, step: str) -> Path:
        """Held by whoever works on a step."""
        return self.folder / "locks" / step

    def partial(self, notebook: str) -> Path:
        """A notebook (by its file's name) while it is being executed."""
        return self.folder / "partial" / notebook

    @property
    def failures(self) -> Path:
        """For each step that failed: <step>.txt, why, and <step>.ipynb, as far as it came."""
        return self.folder / "failures"

    def table(self, name: str, kind: str = "csv") -> Path:
        """A table of the results, as csv or md."""
        return self.figures / f"{name}.{kind}"

    def figure(self, name: str) -> Path:
        """A picture of the results."""
        return self.figures / f"{name}.png"


def _of(split: str) -> str:
    return "" if split == "train" else f"-{split}"


def real_data() -> Path:
    """The folder where a user puts the real datasets."""
    return Path(os.environ.get("LENSNB_DATA", root() / "data" / "raw")).resolve()


def has_real_data() -> bool:
    """Whether one of the real datasets lies in `real_data()`."""
    return bool(present(real_data()))


def phantom(profile: str, seed: int = 0) -> Path:
    """The raw files of the phantom datasets of a profile; each further seed is another benchmark.

    A variant shares its profile's phantoms unless it changes them.
    """
    base = base_of(profile)
    if base != profile and load_profile(profile).phantom == load_profile(base).phantom:
        profile = base
    return root() / "data" / "phantom" / (profile if seed == 0 else f"{profile}-seed{seed}")


def raw(profile: str, seed: int = 0) -> Path:
    """The raw files of a profile: the real ones if the profile is `paper` and they are there, else phantoms."""
    return real_data() if base_of(profile) == "paper" and has_real_data() else phantom(profile, seed)


def prepared(profile: str, seed: int = 0) -> Path:
    """The normalised volumes and box tables of a profile."""
    return root() / "data" / "prepared" / _name(profile, seed)


def runs(profile: str, seed: int = 0) -> Path:
    """Trained models, proposals, mined boxes, executed notebooks and logs of a profile."""
    return root() / "data" / "runs" / _name(profile, seed)


def figures(profile: str, seed: int = 0) -> Path:
    """The tables and figures of a profile."""
    return root() / "figures" / _name(profile, seed)


def _name(profile: str, seed: int) -> str:
    name = profile if seed == 0 else f"{profile}-seed{seed}"
    return f"{name}+by-hand" if os.environ.get(BY_HAND) else name


def remove_leftovers(outputs: Iterable[Path]) -> None:
    """Remove what the makers of these files would continue from if they were interrupted: they are made.

    A training leaves a checkpoint beside its weights, a detection parts of its table. Both say what they were made
    from, so that nothing else continues from them.
    """
    for path in outputs:
        if path.suffix == ".safetensors":
            path.with_name(CHECKPOINT).unlink(missing_ok=True)
        for part in path.parent.glob(f"{path.stem}.*.part*{path.suffix}"):
            part.unlink(missing_ok=True)


def part_of(path: Path, recipe: str, number: int) -> Path:
    """Where a part of a table lies while the table is being made from `recipe`."""
    return path.with_name(f"{path.stem}.{recipe}.part{number}{path.suffix}")


def work_by_hand(profile: str, seed: int) -> None:
    """From now on this process works in folders of its own, which begin with the files of the run; see `borrow`."""
    places = (runs, prepared, figures)
    os.environ.pop(BY_HAND, None)
    references = [place(profile, seed) for place in places]
    os.environ[BY_HAND] = "1"
    for place, reference in zip(places, references, strict=True):
        borrow(place(profile, seed), reference)


def borrow(own: Path, reference: Path) -> int:
    """Give a folder the files of another one that it lacks; return how many are new.

    Files are linked, not copied. That is safe because every file here is written whole and then put in place of the
    old one: what is written in `own` leaves the reference as it is, and the other way round. A file that was borrowed
    and not written since is borrowed again when the reference has a new one.
    """
    note = own / BORROWED
    known = json.loads(note.read_text()) if note.exists() else {}
    new = 0
    for path in _files(reference):
        name = path.relative_to(reference).as_posix()
        target, time = own / name, path.stat().st_mtime_ns
        if target.exists():
            if known.get(name) != target.stat().st_mtime_ns or known[name] == time:
                continue  # written here, or still the same
            target.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(path, target)
        known[name] = time
        new += 1
    if new:
        write_json(known, note)
    return new


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if Path(parent) != folder or name not in NOT_BORROWED)
        yield from (Path(parent, name) for name in sorted(names) if name != BORROWED and ".part" not in name)


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(path, target)
