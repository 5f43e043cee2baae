"""The steps of the story: which notebook or command makes which files from which.

`steps` is the one place that says so. The Snakefile runs the steps in their order, `run/receipts.py` decides which of
them are out of date, and ./run_all.sh --list shows what they make. What a step reads of a profile, of the datasets' own
files and of other steps' files must stand here: a step is made again when one of these changes, and only then. What
takes long inside a step (a training, a detection, LesaNet's answers) has a record of its own and is made again only if
that differs (see provenance/product.py), so that a notebook can be run again in seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lensnb import runfolder
from lensnb.datasets import UNIVERSAL, organ_maps, present
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.datasets.shapes import NUMBERS_FILE, RECIST_FILE
from lensnb.evaluation import table2
from lensnb.lesanet import label_files, methods
from lensnb.mining.strategies import STRATEGIES
from lensnb.runfolder import CONFIG, DETECTED, LOG, NAMING, VALIDATION, WEIGHTS, Run
from lensnb.settings import load_profile
from lensnb.show.parameters import declared
from lensnb.system import available_cores
from lensnb.training import experiments

NOTEBOOKS = runfolder.repository() / "notebooks"
DETECTORS = ("LUNA16 expert", "DeepLesion expert", "all fused")
SIMPLER = "multi-mined-simpler"  # what row (g) was before LesaNet; notebook 17 trains it
LESANET_FIGURES = tuple(f"lesanet_fig{number}" for number in (4, 5, 6, 7, 8, 9, 10))
LESANET_TABLES = tuple(f"lesanet_{name}" for name in ("table1", "table2", "table3", "claims", "controls", "expansion"))


@dataclass(frozen=True)
class Step:
    """One step. Paths are absolute.

    name: of the executed notebook, or of the command that runs instead of one. reads: sections of the profile.
    needs: files of other steps. raw: the datasets' own files and folders, of which only size and time are looked at.
    makes: files, the executed notebook first. fills: folders. parameters: of the notebook, besides profile and seed.
    module: what `python -m` runs, for a command. urgency: what is needed most goes first.
    """

    name: str
    reads: tuple[str, ...]
    makes: tuple[Path, ...]
    needs: tuple[Path, ...] = ()
    raw: tuple[Path, ...] = ()
    fills: tuple[Path, ...] = ()
    notebook: Path | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    module: tuple[str, ...] = ()
    gpu: bool = False
    threads: int = 1
    urgency: int = 0


def steps(profile: str, seed: int = 0) -> list[Step]:
    """All steps of a run, in the order of the story: those that the data which are there allow.

    Real data may lack a dataset, LesaNet's labels or ontology; the steps that need them are left out.
    """
    run = Run(profile, seed)
    phantoms = run.raw == runfolder.phantom(profile, seed)  # else real data, which have no hidden truth
    labelled = phantoms or label_files.has_labels(run.raw / UNIVERSAL)
    there = present(run.raw)
    found = [
        *_data(run, phantoms),
        *_detector(run, phantoms),
        *_mining(run, phantoms, labelled),
        *_results(run, phantoms),
    ]
    if phantoms or "LUNA16" in there:
        found.append(_luna16(run, phantoms))
    if phantoms or "NIH-LN" in there:
        found.append(_own_ct(run, phantoms, labelled))
    if labelled:
        found += _lesanet(run, phantoms)
    return found


def before(step: Step, found: Iterable[Step]) -> list[Step]:
    """The steps of `found` that make what a step needs."""
    needs = set(step.needs)
    return [other for other in found if other is not step and needs & set(other.makes)]


def _notebook(
    run: Run, name: str, reads: str, makes: Sequence[Path], pictures: Iterable[str] = (), variant: str = "", **more
) -> Step:
    """A step that executes a notebook; `variant` tells its executions apart. reads: names with blanks between."""
    executed = f"{name}-{variant}" if variant else name
    files = (run.folder / f"{executed}.ipynb", *makes, *(run.figure(picture) for picture in pictures))
    needs = tuple(dict.fromkeys(more.pop("needs", ())))
    return Step(executed, tuple(reads.split()), files, needs, notebook=NOTEBOOKS / f"{name}.ipynb", **more)


def _command(run: Run, name: str, reads: str, makes: Sequence[Path], needs: Iterable[Path], **more) -> Step:
    """A step that runs `python -m lensnb <name>`, for what takes long and shows nothing; all of these train."""
    module = ("lensnb", name, "--profile", run.profile, "--seed", str(run.seed))
    return Step(name, tuple(reads.split()), tuple(makes), tuple(needs), module=module, gpu=True, **more)


def _store(run: Run, phantoms: bool) -> list[Path]:
    """The tables of the prepared volumes; volumes.csv has a fingerprint of each volume's voxels."""
    names = ("volumes", "boxes", "manual", *(["truth"] if phantoms else []))
    return [run.prepared / f"{name}.csv" for name in names]


def _model(folder: Path) -> list[Path]:
    return [folder / name for name in (WEIGHTS, CONFIG, LOG)]


def _selected(run: Run, experiment: str) -> list[Path]:
    """What a training of LENS makes; where its best weights are kept, also which those are."""
    folder = run.experiment(experiment)
    validated = load_profile(run.profile).training.validations
    return [*_model(folder), *([folder / VALIDATION] if validated else [])]


def _proposals(run: Run, names: Iterable[str], *splits: str) -> list[Path]:
    return [run.proposals(name, split) for split in splits for name in names]


def _own(run: Run, phantoms: bool, *names: str) -> list[Path]:
    """What the specialists of trainings find on the single-type datasets' validation volumes, if there are any."""
    special = [name for name in names if set(experiments.EXPERIMENTS[name].datasets) - {UNIVERSAL}]
    return _proposals(run, special, "own") if phantoms or set(present(run.raw)) - {UNIVERSAL} else []


def _mined(run: Run) -> list[Path]:
    return [run.mined(strategy.name) for strategy in STRATEGIES]


def _tracklets(run: Run) -> list[Path]:
    return [run.tracklets("train"), run.tracklets("val")]


def _labels(run: Run, phantoms: bool) -> list[Path]:
    """The file of mined labels of the phantoms; real labels are published, not mined here."""
    return [run.mined_labels, run.mined_labels.with_name("relations.csv")] if phantoms else []


def _label_files(run: Run) -> tuple[Path, ...]:
    """What the datasets' own files say of labels, as far as they are there."""
    return tuple(path for path in label_files.files(run.raw / UNIVERSAL) if path.is_file())


def _simpler_mined(run: Run) -> list[Path]:
    own = [run.mined(name, embedding=how) for name, how in experiments.MINED["mined-simpler"] if how]
    return [*own, run.mined("intra-patient", "val", "simpler")]


def _trained(run: Run, phantoms: bool) -> list[str]:
    """The experiments of LENS Table II: with what only phantoms allow, unless the profile does without."""
    return experiments.available(_controls(run, phantoms))


def _controls(run: Run, phantoms: bool) -> bool:
    return phantoms and load_profile(run.profile).phantom.controls


def _data(run: Run, phantoms: bool) -> list[Step]:
    workers = load_profile(run.profile).grid.workers or available_cores()
    folders = tuple(run.raw / name for name in present(run.raw))
    truth = (run.raw / "truth",) if phantoms else ()
    complete = [run.raw / "complete.json"] if phantoms else []  # written when all phantoms are
    return [
        _notebook(run, "00_start_here", "name", [], ["fig2"]),
        _notebook(
            run, "01_the_data", "phantom grid", [*complete, *([run.table("phantom_audit")] if phantoms else [])],
            ["fig1", "label_scope", *(["phantom_audit"] if phantoms else [])],
            raw=() if phantoms else folders, fills=(run.raw,) if phantoms else (), threads=workers,
        ),
        _notebook(
            run, "02_preparing_ct", "phantom grid network",
            [*_store(run, phantoms), *(run.prepared / name for name in (RECIST_FILE, NUMBERS_FILE, "report.json"))],
            ["preparing", "windows", "coronal", "annotations", "shapes"],
            needs=complete, raw=(*folders, *truth), fills=(run.prepared / "store",), threads=workers,
            urgency=95,  # needs all cores: before the pretext task takes one
        ),
    ]  # fmt: skip


def _detector(run: Run, phantoms: bool) -> list[Step]:
    store, profile, folder = _store(run, phantoms), load_profile(run.profile), run.pretext.parent
    # the weights that every detector starts from: ImageNet's, or those of a pretext task
    task = "imagenet" if profile.network.imagenet else profile.pretext.task
    made, pictures, needs, scans = [run.pretext], [], store, ()
    if task == "organs":  # of people of its own, so that it need not wait for the volumes
        made += [*_model(run.organs), run.organs / VALIDATION]
        needs, scans = [run.raw / "complete.json"] if phantoms else store, (run.raw / organ_maps.FOLDER,)
        pictures = ["pretext_organs", "loss_pretext"]
    elif task == "blobs":
        made = _model(folder)
    return [
        _command(run, "pretext", "grid network pretext training", made, needs, raw=scans, urgency=90),
        _notebook(
            run, "03_the_detector", "grid network pretext", [run.table("afp_cells")],
            ["detector", "afp_targets", *pictures],
            needs=[*store, *made], raw=scans,
        ),
        *(_training(run, name, [*store, run.pretext], phantoms) for name in _trained(run, phantoms)),
        _notebook(
            run, "05_proposals", "network inference",
            [*_proposals(run, ["multi"], "train"), *(run.table(n) for n in ("experts", "specificity", "calibration"))],
            ["fig3", "experts", "specificity", "calibration"],
            needs=[*store, *_model(run.experiment("multi")), *_proposals(run, ["multi"], "val"),
                   *_own(run, phantoms, "multi")],
            raw=(run.raw / MANUAL_FILE,), gpu=True, urgency=80,
        ),
    ]  # fmt: skip


def _training(run: Run, name: str, needs: list[Path], phantoms: bool) -> Step:
    """The training notebook, which is executed once for each experiment."""
    plan = experiments.EXPERIMENTS[name]
    # mining waits for the joint training; of the others the longest goes first, so that it is not alone at the end
    urgency = 80 if len(plan.datasets) > 1 else round(40 * plan.length)
    return _notebook(
        run, "04_training_lens", "grid network training inference",
        [*_selected(run, name), *_proposals(run, [name], "val", "test"), *_own(run, phantoms, name)],
        [f"{kind}_{name}" for kind in ("loss", "labels", "detections")],
        variant=name, needs=[*needs, *(_mined(run) if plan.labels == "mined" else [])],
        raw=(run.raw / MANUAL_FILE,), parameters={"experiment": name}, gpu=True, urgency=urgency,
    )  # fmt: skip


def _mining(run: Run, phantoms: bool, labelled: bool) -> list[Step]:
    store, labels, own_labels = _store(run, phantoms), _labels(run, phantoms), _label_files(run)
    found = []
    if labelled:  # LesaNet itself, and before it the labels of the phantoms' sentences: mining waits for its embedding
        makes = [*_model(run.lesanet()), run.lesanet() / NAMING, run.lesanet_answers(), *labels]
        found.append(
            _command(run, "lesanet", "phantom network training lesanet", makes, store, raw=own_labels, urgency=60)
        )
    # a simpler one: what mining used before, and what it uses where the data have nothing that LesaNet could learn from
    found.append(
        _command(
            run, "embedding", "network training lesanet", _model(run.embedding), [*store, *labels], raw=own_labels,
            urgency=60,
        )
    )  # fmt: skip
    embedding = [*_model(run.lesanet()), run.lesanet() / NAMING, *labels] if labelled else _model(run.embedding)
    answers = [run.lesanet_answers()] if labelled else []
    cross_slice = [run.mined("cross-slice"), run.mined("cross-slice", "val")]
    intra_patient = [run.mined("intra-patient"), run.mined("intra-patient", "val")]
    return [
        *found,
        _notebook(
            run, "06_cross_slice_mining", "inference mining",
            [*_tracklets(run), *cross_slice, run.audit("cross-slice")], ["cross_slice"],
            needs=[*store, *_proposals(run, ["multi"], "train", "val")], urgency=80,
        ),
        _notebook(
            run, "07_intra_patient_mining", "network training lesanet inference mining",
            [*intra_patient, run.audit("intra-patient")],
            ["loss_embedding", "intra_patient", *(["embedding_distances", "intra_patient_wrong"] if phantoms else [])],
            needs=[*store, *cross_slice, *_tracklets(run), *embedding, *answers], raw=own_labels, gpu=True, urgency=80,
        ),
        _notebook(
            run, "08_cross_dataset_mining", "inference mining",
            [run.mined("cross-dataset"), run.audit("cross-dataset"),
             *(run.table(name) for name in ("table4_counts", "uncertain_boxes"))],
            ["sigma", "fig4", *(["uncertain_wrong"] if phantoms else [])],
            needs=[*store, *cross_slice, *intra_patient, *_tracklets(run), *_proposals(run, ["multi"], "train", "val")],
            urgency=80,
        ),
    ]  # fmt: skip


def _results(run: Run, phantoms: bool) -> list[Step]:
    store, names, manual = _store(run, phantoms), _trained(run, phantoms), (run.raw / MANUAL_FILE,)
    rows = [row.name for row in table2.ROWS if row.experiment in names]
    scores = [run.fpr_scores("val"), run.fpr_scores("test")]
    logs = [run.experiment(name) / LOG for name in names]
    both = _proposals(run, names, "val", "test")
    folds = experiments.FOLDS if load_profile(run.profile).fpr.cross_fit else ()
    controls = _controls(run, phantoms)
    alone = tuple(experiments.ALONE.values()) if controls else ()
    return [
        *(_training(run, name, [*store, run.pretext], phantoms) for name in alone),
        _notebook(
            run, "09_retraining", "training inference",
            [run.table(name) for name in ("retraining", "specificity_mined", *(["specificity_alone"] * controls))],
            ["retraining", "retraining_examples"],
            needs=[*store, *_mined(run), *both, *_own(run, phantoms, "multi", "multi-mined", *alone), *logs],
            raw=manual,
        ),
        *(_training(run, name, [*store, run.pretext], phantoms) for name in folds),
        _notebook(
            run, "10_false_positive_reduction", "network training inference fpr",
            [*_model(run.fpr), *_proposals(run, folds or ["multi-mined"], "train"), *scores],
            ["fpr", "loss_fpr", "fpr_patches", "fpr_disagreements"],
            needs=[*store, *_mined(run), run.pretext,
                   *(file for name in ("multi-mined", *folds) for file in _model(run.experiment(name))),
                   *_proposals(run, ["multi-mined"], "val", "test")],
            raw=manual, gpu=True, urgency=80,
        ),
        _notebook(
            run, "11_froc_and_table2", "inference fpr",
            [*(run.detections(row) for row in rows), run.table("mining_audit"),
             *(run.table(name, kind) for name in ("table2", "claims") for kind in ("csv", "md"))],
            ["froc", "fig6", "table2_bars"],
            needs=[*store, *both, *scores, *(run.audit(strategy.name) for strategy in STRATEGIES)], raw=manual,
        ),
    ]  # fmt: skip


def _luna16(run: Run, phantoms: bool) -> Step:
    names = ("multi", "multi-mined")
    marks = [run.luna16(name, detector) for name in names for detector in DETECTORS]
    return _notebook(
        run, "12_luna16_cpm", "network inference",
        [*_proposals(run, names, "luna16"), *marks, run.luna16_scans, run.table("luna16_cpm")],
        ["luna16_froc", "luna16_examples"],
        needs=[*_store(run, phantoms), *(file for name in names for file in _model(run.experiment(name)))],
        raw=(run.raw / "LUNA16",), gpu=True,
    )  # fmt: skip


def _own_ct(run: Run, phantoms: bool, labelled: bool) -> Step:
    naming = [*_model(run.lesanet()), run.lesanet() / NAMING] if labelled else []
    return _notebook(
        run, "13_your_own_ct", "grid inference", [run.own_ct / name for name in DETECTED], ["own_ct"],
        needs=[*_store(run, phantoms), *_model(run.experiment("multi-mined")), *naming],
        raw=(run.raw / "NIH-LN",), gpu=True,
    )  # fmt: skip


def _lesanet(run: Run, phantoms: bool) -> list[Step]:
    store, labels, own_labels = _store(run, phantoms), _labels(run, phantoms), _label_files(run)
    splits = declared(NOTEBOOKS / "15_lesanet.ipynb") | load_profile(run.profile).notebooks.get("15_lesanet", {})
    trained = methods.runs(splits["splits"])
    rivals = [name for name in trained if name != "lesanet"]  # and ablations, controls, splits
    answers = [run.lesanet_answers(name) for name in trained]
    own = [*_model(run.lesanet()), run.lesanet() / NAMING]
    truth = (run.raw / "truth",) if phantoms else ()
    simpler = [*_selected(run, SIMPLER), *_proposals(run, [SIMPLER], "val", "test")]
    return [
        _notebook(
            run, "14_lesion_labels", "phantom lesanet", [],
            ["lesanet_by_hand", "lesanet_mentions", "lesanet_fig2", *(["lesanet_fig1"] if phantoms else [])],
            needs=[*store, *labels], raw=(*own_labels, *truth),
        ),
        _notebook(
            run, "15_lesanet", "network training lesanet",
            [*(file for name in rivals for file in _model(run.lesanet(name))),
             *(run.lesanet_answers(name) for name in rivals)],
            ["lesanet_losses", "lesanet_fig3"], needs=[*store, *labels, *own, run.lesanet_answers()], raw=own_labels,
            gpu=True, urgency=50,
        ),
        _notebook(
            run, "16_lesanet_tables", "network lesanet",
            [run.table(name, kind) for name in LESANET_TABLES for kind in ("csv", "md")], LESANET_FIGURES,
            needs=[*store, *labels, *answers, *own], raw=(*own_labels, *truth), gpu=True,
        ),
        # both embeddings in mining, and row (g) with the labels of each: the simpler one's are mined and learned here
        _notebook(
            run, "17_lesanet_in_mining", "grid network mining training inference lesanet",
            [*_simpler_mined(run), *simpler, run.table("lesanet_matching"), run.table("lesanet_mining"),
             run.table("lesanet_row_g"), run.table("lesanet_row_g", "md")],
            ["lesanet_matching", "lesanet_row_g"],
            needs=[*store, *labels, *_mined(run), run.mined("cross-slice", "val"), *_tracklets(run), run.pretext,
                   *_proposals(run, ["multi"], "train", "val"), *_proposals(run, ["multi-mined"], "val", "test"),
                   *_model(run.embedding), *own, run.lesanet_answers()],
            raw=(*own_labels, run.raw / MANUAL_FILE), gpu=True, urgency=50,
        ),
    ]  # fmt: skip
