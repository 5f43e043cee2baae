"""LesaNet's study on one label file: its lesions, its trainings, and what these say of lesions they have not seen.

Two test sets are scored (LesaNet Sec. 5.1): "text-mined", the labels that sentences of test lesions name, and
"complete", every label of some test lesions (hand_labeled_test_set.json).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets import UNIVERSAL
from lensnb.datasets.store import Store
from lensnb.files import read_table, write_json, write_table
from lensnb.lesanet import metrics, prediction, training
from lensnb.lesanet.label_files import COMPLETE, MinedLabels, read_complete, read_mined
from lensnb.lesanet.lesions import LabelledLesions, labelled_lesions, resplit
from lensnb.lesanet.methods import METHODS, MethodRun
from lensnb.lesanet.metrics import PUBLISHED_THRESHOLDS, TEXT_MINED, Result
from lensnb.lesanet.ontology import Ontology, find_ontology, read_ontology
from lensnb.lesanet.report_labels import mined_labels_file
from lensnb.lesanet.targets import excluded, scoring_targets
from lensnb.provenance.product import checksum, is_made, write_record
from lensnb.provenance.recipe import code, values
from lensnb.runfolder import NAMING, WEIGHTS, Run
from lensnb.settings import Profile, load_profile, to_dict


@dataclass(frozen=True)
class Exam:
    """n lesions (volume, patient, lesion, box), what is true of them, and what is not scored: (n, C) bool each."""

    table: pd.DataFrame
    labels: np.ndarray
    unknown: np.ndarray

    def of_labels(self, columns: np.ndarray) -> "Exam":
        """The same lesions with some of the labels."""
        return Exam(self.table, self.labels[:, columns], self.unknown[:, columns])


@dataclass(frozen=True)
class LabelStudy:
    """Lesions to learn from and to calibrate on, and the test sets by name."""

    ontology: Ontology
    train: LabelledLesions
    val: LabelledLesions
    exams: dict[str, Exam]

    def exam_of(self, lesions: LabelledLesions) -> Exam:
        """What is scored on lesions with mined labels: relevant labels with their parents, uncertain ones left out."""
        truth = scoring_targets(lesions.relevant, lesions.uncertain, self.ontology.parents, self.ontology.exclusive)
        return Exam(lesions.table, *truth)

    def tables(self) -> pd.DataFrame:
        """Every lesion of the study once: what a trained network is asked for."""
        parts = [self.train.table, self.val.table, *(exam.table for exam in self.exams.values())]
        return pd.concat(parts, ignore_index=True).drop_duplicates("lesion", ignore_index=True)


def open_study(mined: MinedLabels, store: Store, folder: Path) -> LabelStudy:
    """The study of a label file; `folder` is the DeepLesion folder with ontology, DL_info.csv and complete labels.

    Without a file of complete labels there is no such test set, and a line says so.
    """
    ontology = read_ontology(find_ontology(folder), list(mined.labels))
    train, val, test = (
        labelled_lesions(mined, store, split, folder / "DL_info.csv") for split in ("train", "val", "test")
    )
    study = LabelStudy(ontology, train, val, {})
    study.exams[TEXT_MINED] = study.exam_of(test)
    if (folder / COMPLETE).exists():
        rows, labels = read_complete(folder / COMPLETE, mined.labels)
        nothing = np.zeros_like(labels)
        listed = pd.DataFrame({"split": "complete", "row": rows})
        complete = MinedLabels(mined.labels, listed, labels, nothing, nothing)
        study.exams["complete"] = study.exam_of(labelled_lesions(complete, store, "complete", folder / "DL_info.csv"))
    else:
        print(f"{folder} has no {COMPLETE}: there is no completely labelled test set")
    return study


def label_counts(lesions: LabelledLesions) -> np.ndarray:
    """How many lesions have each label, relevant or uncertain: (C,)."""
    return (lesions.relevant | lesions.uncertain).sum(0)


def labels_said(study: LabelStudy) -> pd.DataFrame:
    """Of the lesions that are in both test sets: what holds of the labels that the sentence names, excludes, or leaves.

    Columns: label is (named, excluded, uncertain, not mentioned), entries (lesions times labels), that hold (share).
    """
    said, complete = study.exams[TEXT_MINED], study.exams["complete"]
    place = pd.Series(np.arange(len(complete.table)), index=complete.table["lesion"])
    both = said.table["lesion"].isin(place.index).to_numpy()
    truth = complete.labels[place.loc[said.table["lesion"][both]]]
    named, unknown = said.labels[both], said.unknown[both]
    excludes = excluded(named, study.ontology.exclusive) & ~named
    rest = ~named & ~excludes & ~unknown
    parts = {"named or implied": named, "excluded": excludes, "uncertain": unknown, "not mentioned": rest}
    rows = [(name, int(part.sum()), truth[part].mean() if part.any() else np.nan) for name, part in parts.items()]
    return pd.DataFrame(rows, columns=["label is", "entries", "that hold"])


def labels_of(exam: Exam | None, table: pd.DataFrame) -> np.ndarray:
    """An exam's labels for the lesions of `table`, as floats (n, C): nan for a lesion that it does not have."""
    if exam is None:
        return np.full((len(table), 1), np.nan)
    place = pd.Series(np.arange(len(exam.table)), index=exam.table["lesion"])
    here = table["lesion"].isin(place.index).to_numpy()
    result = np.full((len(table), exam.labels.shape[1]), np.nan)
    result[here] = exam.labels[place.loc[table["lesion"][here]]]
    return result


def most_frequent(study: LabelStudy, part: float) -> np.ndarray:
    """Positions of the most frequent `part` of the labels in training, in the ontology's order."""
    counts = label_counts(study.train)
    return np.sort(np.argsort(-counts, kind="stable")[: max(1, round(part * len(counts)))])


def of_run(study: LabelStudy, run: MethodRun) -> tuple[LabelStudy, np.ndarray]:
    """The study as a run sees it, with its own split and its part of the labels, and these labels' positions."""
    train, val = resplit(study.train, study.val, run.split) if run.split else (study.train, study.val)
    columns = most_frequent(study, run.part)
    if len(columns) == len(study.ontology.labels):
        return replace(study, train=train, val=val), columns
    exams = {name: exam.of_labels(columns) for name, exam in study.exams.items()}
    lesions = (_of_labels(part, columns) for part in (train, val))
    return LabelStudy(_part_of(study.ontology, columns), *lesions, exams), columns


def _of_labels(lesions: LabelledLesions, columns: np.ndarray) -> LabelledLesions:
    """The same lesions with some of the labels."""
    return replace(lesions, **{n: getattr(lesions, n)[:, columns] for n in ("relevant", "uncertain", "irrelevant")})


def _part_of(ontology: Ontology, columns: np.ndarray) -> Ontology:
    """The ontology of some of its labels, in this order, with the relations between them."""
    lists = {name: tuple(getattr(ontology, name)[c] for c in columns) for name in ("labels", "kinds", "synonyms")}
    names = ("parents", "exclusive", "listed_parents", "listed_exclusive")
    return Ontology(**lists, **{name: getattr(ontology, name)[np.ix_(columns, columns)] for name in names})


def train_run(
    run: MethodRun, study: LabelStudy, store: Store, profile: Profile, seed: int, folder: Path
) -> tuple[pd.DataFrame, Path]:
    """Train a run into `folder`, if it is not trained, ask it about every lesion, and write its answers.

    Returns them, and their file, <parent of folder>/predictions/<name>.npz: lesion, "label <name>" (scores) and
    "embedding <i>". Answers that are there are read, if they are of the same network and code (see
    provenance/product.py).
    """
    own, columns = of_run(study, run)
    out = folder.parent / "predictions" / f"{folder.name}.npz"
    training.train_method(run.method, own.train, own.ontology, store, profile, seed + run.split, folder)
    model, config = prediction.load_network(folder, "notebook 15")
    table = study.tables()
    recipe = code([prediction.__name__]) | values(
        weights=checksum(folder / WEIGHTS), settings=to_dict(config), network=to_dict(profile.network),
        labels=[study.ontology.labels[c] for c in columns], lesions=table.to_csv(index=False),
        volumes=store.contents(sorted(set(table["volume"].astype(str)))),
    )  # fmt: skip
    if is_made([out], recipe):
        return read_table(out), out
    embedding, scores = prediction.predict(model, store, table, config, profile.network, label=folder.name)
    answers = {f"label {study.ontology.labels[c]}": scores[:, i] for i, c in enumerate(columns)}
    answers |= {f"embedding {i}": values for i, values in enumerate(embedding.T)}
    answers = pd.DataFrame({"lesion": table["lesion"].astype(str)} | answers)
    write_table(answers, out)
    write_record([out], recipe)
    return answers, out


def train_lesanet(study: LabelStudy, store: Store, profile: Profile, seed: int, folder: Path) -> pd.DataFrame:
    """`train_run` of LesaNet itself, into `folder`, and labels.json beside its weights; returns its answers."""
    answers, _ = train_run(MethodRun("lesanet"), study, store, profile, seed, folder)
    write_labels(folder, answers, study, profile)
    return answers


def train_for_profile(profile_name: str, seed: int = 0) -> Path:
    """Train LesaNet for a profile into runs/lesanet/lesanet and return that folder; what is finished is left alone.

    First the labels of the phantoms' sentences are mined, if that has not been done.
    """
    profile, run = load_profile(profile_name), Run(profile_name, seed)
    store, folder = Store(run.prepared), run.lesanet()
    mined = read_mined(mined_labels_file(profile_name, seed))
    study = open_study(mined, store, run.raw / UNIVERSAL)
    train_lesanet(study, store, profile, seed, folder)
    return folder


def scores_of(answers: pd.DataFrame, table: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Scores of some labels for the lesions of `table` (column lesion): (n, C)."""
    return _rows(answers, table)[[f"label {name}" for name in names]].to_numpy()


def embedding_of(answers: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Unit embeddings of the lesions of `table`: (n, d)."""
    return _rows(answers, table)[[name for name in answers if name.startswith("embedding ")]].to_numpy()


def _rows(answers: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `answers` for the lesions of `table`, in its order; ValueError if one is missing."""
    by_lesion = answers.set_index(answers["lesion"].astype(str))
    missing = sorted(set(table["lesion"].astype(str)) - set(by_lesion.index))
    if missing:
        raise ValueError(
            f"the answers lack {len(missing)} lesions, for example {missing[0]}; delete them and start again"
        )
    return by_lesion.loc[table["lesion"].astype(str)]


def thresholds_of(answers: pd.DataFrame, study: LabelStudy, method: str = "lesanet") -> np.ndarray:
    """Each label's threshold with the best F1 on the study's validation lesions (LesaNet Sec. 5.3): (C,).

    The published code tries .3, .4 to .9, which suits scores that cross-entropy has made probabilities. WARP compares
    the labels of a lesion with each other and leaves the level of their scores open, so that its best thresholds may
    all lie above .9: of it, every score is tried, that the grid may not decide its precision and recall.
    """
    val = study.exam_of(study.val)
    tried = () if METHODS[method].rival == "warp" else PUBLISHED_THRESHOLDS
    return metrics.calibrate(scores_of(answers, val.table, study.ontology.labels), val.labels, val.unknown, tried)


def score_run(
    answers: pd.DataFrame, study: LabelStudy, run: MethodRun, name: str, seed: int, draws: int = 1000, *,
    expanded: bool = True,
) -> Result:  # fmt: skip
    """Score a run's answers on the test set `name`; `study` is the run's own (see `of_run`). No draws: no samples.

    The parents of predicted labels are predicted, too (LesaNet Sec. 4.2), as in the published code for every method,
    whatever it has learned from; without `expanded` they are not.
    """
    exam, ontology = study.exams[name], study.ontology
    scores = scores_of(answers, exam.table, ontology.labels)
    thresholds = thresholds_of(answers, study, run.method)
    parents = ontology.parents if expanded else np.zeros_like(ontology.parents)
    table = metrics.label_table(list(ontology.labels), scores, exam.labels, exam.unknown, thresholds, parents)
    table.insert(1, "kind", ontology.kinds)
    table.insert(2, "train", label_counts(study.train))
    means = metrics.averages(table)
    if not draws:
        return Result(table, means, pd.DataFrame(columns=list(metrics.METRICS)))
    drawn = (exam.table["patient"].astype(str).to_numpy(), draws, seed)
    predicted = metrics.decide(scores, thresholds, parents)
    samples = metrics.resampled_decisions(predicted, exam.labels, exam.unknown, *drawn)
    samples.insert(0, "auc", metrics.resampled_auc(scores, exam.labels, exam.unknown, *drawn))
    return Result(table, means, samples)


def write_labels(folder: Path, answers: pd.DataFrame, study: LabelStudy, profile: Profile) -> None:
    """Write labels.json beside a run's weights: thresholds, parents and the window, all that naming lesions needs."""
    names, thresholds = study.ontology.labels, thresholds_of(answers, study)
    content = {
        "labels": list(names),
        "kinds": list(study.ontology.kinds),
        "thresholds": [float(t) if np.isfinite(t) else None for t in thresholds],  # None: never predicted
        "parents": [[names[p] for p in np.flatnonzero(row)] for row in study.ontology.parents],
        "network": to_dict(profile.network),
    }
    write_json(content, folder / NAMING)
