"""Every training by name, and which labels it learns from. Rows of tables that need the same training share one run."""

from dataclasses import dataclass, replace

import pandas as pd

from lensnb.boxes import COLUMNS
from lensnb.datasets import NAMES, UNIVERSAL
from lensnb.datasets.store import Store
from lensnb.files import read_table
from lensnb.runfolder import Run

# the mined tables that each of these reads, by strategy and embedding: one of every strategy in mining/strategies.py, a
# later room; cross-slice propagation uses no embedding
MINED = {
    "mined": (("cross-slice", ""), ("intra-patient", ""), ("cross-dataset", "")),
    "mined-simpler": (("cross-slice", ""), ("intra-patient", "simpler"), ("cross-dataset", "simpler")),
}

# row (g)'s detector without one half of DeepLesion's patients each, so that each half has proposals of a detector that
# has not seen it: notebook 10 needs them where the profile says fpr.cross_fit
FOLDS = ("multi-mined-fold0", "multi-mined-fold1")

# each specialist without the others: nothing is shared, so what it does not tell apart here it can not (notebook 09)
ALONE = {"LUNA16": "luna16-alone", "LiTS": "lits-alone", "NIH-LN": "nihln-alone"}


def _annotated(experiment, boxes: pd.DataFrame, store: Store, run: Run) -> pd.DataFrame:
    return boxes


def _with_mined(experiment, boxes: pd.DataFrame, store: Store, run: Run) -> pd.DataFrame:
    files = [run.mined(strategy, embedding=embedding) for strategy, embedding in MINED[experiment.labels]]
    mined = [read_table(file, COLUMNS) for file in files]
    return pd.concat([boxes, *(table[COLUMNS] for table in mined)], ignore_index=True)


def _complete(experiment, boxes: pd.DataFrame, store: Store, run: Run) -> pd.DataFrame:
    return _with_truth(boxes, _hidden_truth(experiment, store)[COLUMNS])


def _complete_keys(experiment, boxes: pd.DataFrame, store: Store, run: Run) -> pd.DataFrame:
    truth = _hidden_truth(experiment, store)
    keys = set(zip(boxes["volume"].astype(str), boxes["z"], strict=True))
    on_keys = [place in keys for place in zip(truth["volume"].astype(str), truth["z"], strict=True)]
    return _with_truth(boxes, truth[on_keys][COLUMNS])


def _oracle_mined(experiment, boxes: pd.DataFrame, store: Store, run: Run) -> pd.DataFrame:
    truth = _hidden_truth(experiment, store)
    return _with_truth(boxes, truth[_recoverable(truth)][COLUMNS])


def _oracle_ignored(experiment, boxes: pd.DataFrame, store: Store, run: Run) -> pd.DataFrame:
    truth = _hidden_truth(experiment, store)
    return _with_truth(boxes, truth.assign(source=truth["source"].where(_recoverable(truth), "uncertain"))[COLUMNS])


def _hidden_truth(experiment, store: Store) -> pd.DataFrame:
    """The complete labels of DeepLesion's training volumes, which only phantoms have."""
    if store.truth is None:
        raise ValueError(f"experiment {experiment.name} needs the complete truth, which only phantoms have")
    truth = store.truth
    return truth[(truth["volume"].map(store.volumes["split"]) == "train") & (truth["dataset"] == UNIVERSAL)]


def _with_truth(boxes: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The truth in place of DeepLesion's annotations; the other datasets keep theirs."""
    return pd.concat([boxes[boxes["dataset"] != UNIVERSAL], truth], ignore_index=True)


def _recoverable(truth: pd.DataFrame) -> pd.Series:
    """Which rows are of lesions that are marked in some scan of their patient: (n,) bool."""
    marked = truth[truth["marked"].astype(bool)]
    identities = set(zip(marked["patient"], marked["identity"], strict=True))
    pairs = zip(truth["patient"], truth["identity"], strict=True)
    return pd.Series([pair in identities for pair in pairs], index=truth.index, dtype=bool)


# what an experiment learns from, by the word in its definition
LABELS = {
    "annotated": _annotated,
    "mined": _with_mined,
    "mined-simpler": _with_mined,
    "complete": _complete,
    "complete-keys": _complete_keys,
    "oracle-mined": _oracle_mined,
    "oracle-ignored": _oracle_ignored,
}


@dataclass(frozen=True)
class Experiment:
    """One training.

    labels: "annotated"  what the datasets' own files say;
            "mined"      and the boxes of the three mining strategies (LENS Sec. V);
            "mined-simpler"   the same, but matched by the simpler embedding (notebook 17);
            "complete"   all lesions of DeepLesion (phantoms only: the upper bound);
            "complete-keys"   all lesions, but on the slices alone that have an annotation (phantoms);
            "oracle-mined"    what perfect cross-slice propagation and intra-patient matching would find (phantoms);
            "oracle-ignored"  and every other lesion ignored, as perfect cross-dataset mining would (phantoms).
            Each step between these changes one thing: from "annotated" to "complete-keys" the labels, from there to
            "complete" the slices; from "oracle-mined" over "oracle-ignored" to "complete", on all slices, the lesions
            that are marked in no scan are background, ignored, or taught.
    negatives: whether slices of DeepLesion without a known lesion are trained on ("unlabeled" of LENS Table IV); the
               fully labelled datasets always have them.
    proposal_network: in place of the profile's network.proposal_network.
    left_out: which half of DeepLesion's training patients it does not see, 0 or 1 (see `training_volumes`); None: it
              sees all.
    length: of the training, as a multiple of the profile's. The control `single-long` has another one, since joint
               trainings see DeepLesion as often as the others but have up to half as many batches on top; and so have
               the specialists that are trained alone, each as many as all three together have in a joint training.
    """

    name: str
    title: str
    datasets: tuple[str, ...] = (UNIVERSAL,)
    proposal_network: str = ""
    labels: str = "annotated"
    negatives: bool = False
    length: float = 1.0
    left_out: int | None = None

    def __post_init__(self):
        if self.labels not in LABELS:  # a misspelt word must not train on something else
            raise ValueError(f"experiment {self.name}: labels {self.labels!r} is none of {', '.join(LABELS)}")
        for dataset in set(self.datasets) - set(NAMES):
            raise ValueError(f"experiment {self.name}: dataset {dataset!r} is none of {', '.join(NAMES)}")


_ALL = (
    Experiment("baseline", "DeepLesion alone with the baseline's RPN", proposal_network="rpn"),
    Experiment("single", "DeepLesion alone"),
    Experiment("single-long", "DeepLesion alone, half as many iterations more", length=1.5),
    Experiment("multi", "all datasets", NAMES),
    Experiment("single-mined", "DeepLesion alone, with mined labels", labels="mined", negatives=True),
    Experiment("multi-mined", "all datasets, with mined labels", NAMES, labels="mined", negatives=True),
    *(
        Experiment(
            name,
            "as multi-mined, without one half of DeepLesion's patients",
            NAMES,
            labels="mined",
            negatives=True,
            left_out=half,
        )
        for half, name in enumerate(FOLDS)
    ),
    Experiment(
        "multi-mined-simpler",
        "all datasets, with labels mined by the simpler embedding",
        NAMES,
        labels="mined-simpler",
        negatives=True,
    ),
    *(Experiment(name, f"{dataset} alone", (dataset,), length=0.5) for dataset, name in ALONE.items()),
    Experiment("single-complete", "DeepLesion alone, complete labels", labels="complete", negatives=True),
    Experiment("single-complete-keys", "DeepLesion alone, complete labels on its key slices", labels="complete-keys"),
    Experiment("oracle-mined", "DeepLesion alone, perfect matching", labels="oracle-mined", negatives=True),
    Experiment(
        "oracle-ignored", "DeepLesion alone, perfect matching and ignoring", labels="oracle-ignored", negatives=True
    ),
)
EXPERIMENTS = {experiment.name: experiment for experiment in _ALL}
TRUTH_ONLY = ("complete", "complete-keys", "oracle-mined", "oracle-ignored")


def available(phantoms: bool) -> list[str]:
    """The experiments of LENS Table II; those that need the complete truth, and the control, are for phantoms alone."""
    extra = {e.name for e in _ALL if e.labels in TRUTH_ONLY or e.length != 1}
    # what notebooks 09, 10 and 17 compare
    elsewhere = {*FOLDS, *ALONE.values(), *(e.name for e in _ALL if e.labels == "mined-simpler")}
    return [e.name for e in _ALL if e.name not in elsewhere and (phantoms or e.name not in extra)]


def named(name: str) -> Experiment:
    """The experiment of that name; ValueError, which lists them all, if there is none."""
    if name not in EXPERIMENTS:
        raise ValueError(f"{name!r} is not an experiment; choose one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def of(name: str, store: Store) -> Experiment:
    """The experiment of that name as the prepared volumes allow it: without datasets that have no label to learn from.

    Real data may lack one of the datasets as a whole; then there is no expert for it. Raises ValueError for an unknown
    name, and if the dataset that is lacking is DeepLesion, which all experiments but those of ALONE are about, or the
    only one.
    """
    experiment = named(name)
    labelled = set(store.boxes.loc[store.boxes["volume"].map(store.volumes["split"]) == "train", "dataset"])
    if experiment.datasets[0] not in labelled:
        raise ValueError(
            f"{store.root / 'boxes.csv'} has no box on a training volume of {experiment.datasets[0]}, and {name} can "
            "not do without; prepare the volumes again"
        )
    return replace(experiment, datasets=tuple(dataset for dataset in experiment.datasets if dataset in labelled))


def training_volumes(experiment: Experiment, volumes: pd.DataFrame) -> pd.DataFrame:
    """The rows of the store's table of volumes that an experiment is trained on; other datasets' are not sorted out.

    All of the training split, but for a half of DeepLesion's patients if the experiment leaves one out: every other
    one in the order of their names.
    """
    train = volumes[volumes["split"] == "train"]
    if experiment.left_out is None:
        return train
    universal, patient = train["dataset"] == UNIVERSAL, train["patient"].astype(str)
    half = sorted(set(patient[universal]))[experiment.left_out :: 2]
    return train[~(universal & patient.isin(half))]


def training_labels(experiment: Experiment, store: Store, run: Run) -> pd.DataFrame:
    """The label table of an experiment: 2D boxes in grid coordinates, `source` telling certain from uncertain.

    The mined tables are those of `run`.
    Raises FileNotFoundError if a mined table is missing, ValueError if the truth is asked for and there is none.
    """
    volumes, boxes = training_volumes(experiment, store.volumes).index, store.boxes
    boxes = boxes[boxes["volume"].isin(volumes) & boxes["dataset"].isin(experiment.datasets)]
    labels = LABELS[experiment.labels](experiment, boxes, store, run)
    return labels[labels["volume"].isin(volumes)]  # mined boxes and the truth are of all training volumes
