"""A table of changes, and what each makes again: steps of the story, and the slow products inside them.

The run is made up: every file that a step makes holds its own name, with the receipt that the step would have left. The
code is a copy, so that it can be changed. What is really made again, by real steps, is in test_chain.py.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import pytest

from lensnb import runfolder
from lensnb.datasets import NAMES
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.files import read_json, write_json
from lensnb.lesanet import label_files
from lensnb.provenance import recipe
from lensnb.run import provenance, receipts, story
from lensnb.runfolder import Run
from lensnb.settings import load_profile

REPOSITORY = Path(__file__).resolve().parents[1]
# the entrances of what takes long, by what it makes
PRODUCTS = {
    "detectors": ["lensnb.detection.selection"],  # which of a training's weights are kept follows from detection, too
    "start": ["lensnb.training.pretext"],
    "detections": ["lensnb.detection.inference", "lensnb.models.build"],  # the latter makes the network
    "classifier": ["lensnb.training.false_positives"],
    "lesanet": ["lensnb.lesanet.training"],
    "answers": ["lensnb.lesanet.prediction"],
    "labels": ["lensnb.lesanet.report_labels"],
    "phantoms": ["lensnb.phantom"],
}
ALL = "everything"


@dataclass
class Made:
    """A finished run, the copy of the code it was made by, and its steps."""

    run: Run
    package: Path
    notebooks: Path

    @property
    def steps(self) -> list[story.Step]:
        return [
            replace(step, notebook=self.notebooks / step.notebook.name if step.notebook else None)
            for step in story.steps("smoke")
        ]

    def out_of_date(self) -> dict[str, list[str]]:
        """The steps that must run for a reason of their own, with it."""
        receipts._checksum.cache_clear()
        recipe._version.cache_clear()
        why = {step.name: receipts.reasons(self.run, step) for step in self.steps}
        return {name: reasons for name, reasons in why.items() if reasons}

    def products(self) -> dict[str, recipe.Recipe]:
        """The recipe of the code of each slow product."""
        return {name: recipe.code(modules) for name, modules in PRODUCTS.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("run")
    patch.setenv("LENSNB_ROOT", str(root))
    patch.delenv("LENSNB_DATA", raising=False)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "lensnb", root / "code" / "lensnb", ignore=ignore)
    shutil.copytree(REPOSITORY / "notebooks", root / "code" / "notebooks", ignore=shutil.ignore_patterns(".*"))
    patch.setattr(recipe, "PACKAGE", root / "code" / "lensnb")
    made = Made(Run("smoke"), root / "code" / "lensnb", root / "code" / "notebooks")
    for path in (*(made.run.raw / name / "scan" for name in NAMES), made.run.raw / "truth" / "lesions.csv",
                 made.run.raw / MANUAL_FILE, made.run.raw / "pretext" / "train-0001.npz",
                 *label_files.files(made.run.raw / "DeepLesion"),
                 made.run.prepared / "store" / "LiTS" / "volume-1.npy"):  # fmt: skip
        write(path)
    for step in made.steps:
        for path in step.makes:
            write(path)
    for step in made.steps:
        receipts.write_receipt(made.run, step, receipts.recipe_of(made.run, step))
    yield made
    patch.undo()


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{path.name}\n")


# changes: each gets the run and pytest's patch; files that it names are put back by `finished_again`


def edit(name: str, old: str, new: str) -> Callable:
    """Replace a text in a file of the package."""

    def change(made: Made, patch: pytest.MonkeyPatch) -> list[Path]:
        path = made.package / name
        text = path.read_text()
        assert old in text, f"{name} no longer says {old!r}"
        path.write_text(text.replace(old, new, 1))
        return [path]

    return change


def append(name: str, text: str) -> Callable:
    def change(made: Made, patch: pytest.MonkeyPatch) -> list[Path]:
        path = made.package / name
        path.write_text(path.read_text() + text)
        return [path]

    return change


def cell(name: str, kind: str, text: str) -> Callable:
    """Put a text behind the last cell of this kind in a notebook."""

    def change(made: Made, patch: pytest.MonkeyPatch) -> list[Path]:
        path = made.notebooks / name
        notebook = json.loads(path.read_text())
        own = [one for one in notebook["cells"] if one["cell_type"] == kind]
        own[-1]["source"] = [*own[-1]["source"], f"\n{text}"]
        path.write_text(json.dumps(notebook))
        return [path]

    return change


def number(section: str, **values: object) -> Callable:
    """A profile with another number."""

    def change(made: Made, patch: pytest.MonkeyPatch) -> list[Path]:
        profile = load_profile("smoke")
        other = replace(profile, **{section: replace(getattr(profile, section), **values)})
        patch.setattr(receipts, "load_profile", lambda name: other)
        return []

    return change


def of_notebook(made: Made, patch: pytest.MonkeyPatch) -> list[Path]:
    """The profile gives a notebook another parameter."""
    other = replace(load_profile("smoke"), notebooks={"15_lesanet": {"splits": 2}, "16_lesanet_tables": {"x": 1}})
    patch.setattr(receipts, "load_profile", lambda name: other)
    return []


def version(library: str) -> Callable:
    def change(made: Made, patch: pytest.MonkeyPatch) -> list[Path]:
        installed = metadata.version
        patch.setattr(metadata, "version", lambda name: "0.0.1" if name == library else installed(name))
        return []

    return change


def result(where: Callable[[Run], Path], change: Callable[[Path], object]) -> Callable:
    """Do something to a file of the run or of the datasets."""

    def act(made: Made, patch: pytest.MonkeyPatch) -> list[Path]:
        path = where(made.run)
        change(path)
        return [path]

    return act


def flip(path: Path) -> None:
    """Another byte, the same size and the same time of change."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2])


def date(seconds: float) -> Callable[[Path], None]:
    return lambda path: os.utime(path, (time.time() + seconds,) * 2)


def same_again(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def add(name: str) -> Callable[[Path], object]:
    return lambda folder: write(folder / name)


LENS = "03 04 05 10 12 13 17 pretext"
WITH_CHARTS = "00 01 03 04 05 07 08 09 10 11 12 15"
# what was changed | how | the steps out of date | the slow products that are made again
CHANGES = [
    ("a chart", edit("show/charts.py", "def ", "X = 1\n\n\ndef "), WITH_CHARTS, ""),
    ("the code of FROC: its rates", edit("evaluation/froc.py", "RATES = (", "RATES = (1 / 16, "),
     "00 01 03 04 05 07 08 09 10 11 12 15 16 17", "detectors"),
    ("the rows of Table II", edit("evaluation/table2.py", "ROWS = ", "ROWS = () + "), "04 05 09 10 11 12 17", ""),
    ("what makes an expert specific", append("evaluation/specificity.py", "X = 1\n"), "04 05 09 10 11 12 17", ""),
    ("how experts' scores are calibrated", append("evaluation/calibration.py", "X = 1\n"), "05", ""),
    ("a claim", append("evaluation/claims.py", "X = 1\n"), "09 11 16", ""),
    ("the head of the network", append("models/heads.py", "X = 1\n"), LENS, "detectors start detections"),
    ("the proposal network's constant", edit("models/afp.py", "CENTER_RATIO", "CENTRE = 1\nCENTER_RATIO"), LENS,
     "detectors start detections"),
    ("a comment in it", append("models/afp.py", "# words\n"), "", ""),
    ("its docstring", edit("models/afp.py", '"""', '"""Words. '), "", ""),
    ("its layout", append("models/afp.py", "\n\n\n"), "", ""),
    ("the training loop", append("training/loop.py", "X = 1\n"), "03 04 07 10 14 15 16 17 embedding lesanet pretext",
     "detectors start classifier lesanet"),
    ("LENS's batches", append("training/augment.py", "X = 1\n"), "03 04 17 pretext", "detectors start"),
    ("detection", append("detection/inference.py", "X = 1\n"), "04 05 10 12 13 17", "detectors detections"),
    ("how experts are fused", append("detection/fusion.py", "X = 1\n"), "04 05 06 09 10 11 12 13 17", "detectors"),
    ("the 3D classifier", append("models/fpr.py", "X = 1\n"), "10", "classifier"),
    ("LesaNet's losses", append("lesanet/losses.py", "X = 1\n"), "07 14 15 16 17 embedding lesanet", "lesanet"),
    ("text mining", append("lesanet/text_mining.py", "X = 1\n"), "07 14 15 16 17 embedding lesanet", "labels"),
    ("a lesion of the phantoms", append("phantom/lesions.py", "X = 1\n"), "01", "phantoms"),
    ("the phantoms' audit", append("phantom/audit.py", "X = 1\n"), "01", ""),
    ("the chart of the audit", append("show/audit_charts.py", "X = 1\n"), "01", ""),
    ("the shares by kind", append("evaluation/by_kind.py", "X = 1\n"), "04 05 09 10 11 12 17", ""),
    ("the words of verdicts", append("evaluation/verdicts.py", "X = 1\n"), "09 11 16", ""),
    ("how seeds are put together", append("evaluation/seeds.py", "X = 1\n"), "", ""),
    ("a table of the phantoms", append("phantom/phrases.yml", "\n"), "01", "phantoms"),
    ("the reader of LiTS", append("datasets/lits.py", "X = 1\n"), "01 02", ""),
    ("data check, which no step uses", append("datasets/check.py", "X = 1\n"), "", ""),
    ("the runner", append("run/step.py", "X = 1\n"), "", ""),
    ("the boxes, which all use", append("boxes.py", "X = 1\n"), ALL,
     "detectors start detections classifier lesanet answers"),
    ("a new experiment", edit("training/experiments.py", '    Experiment("single", ',
                              '    Experiment("more", "more"),\n    Experiment("single", '),
     "00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 pretext", ""),
    ("words of a notebook", cell("06_cross_slice_mining.ipynb", "markdown", "More words."), "", ""),
    ("a comment in its code", cell("06_cross_slice_mining.ipynb", "code", "# more"), "", ""),
    ("its code", cell("06_cross_slice_mining.ipynb", "code", "x = 1"), "06", ""),
    ("what a notebook imports", cell("06_cross_slice_mining.ipynb", "code", "import scipy"), "06", ""),
    ("iterations of the training", number("training", iterations=41),
     "04 07 09 10 15 17 embedding lesanet pretext", ""),
    ("a rule of mining", number("mining", overlap=0.31), "06 07 08 17", ""),
    ("a number of the classifier", number("fpr", epochs=9), "10 11", ""),
    ("the grid", number("grid", box_padding_mm=9.0), "01 02 03 04 13 17 pretext", ""),
    ("the phantoms' numbers", number("phantom", growth_sd=0.9), "01 02 14 lesanet", ""),
    ("a notebook's parameter in the profile", of_notebook, "15 16", ""),
    ("torch's version", version("torch"), "03 04 05 07 10 12 13 14 15 16 17 embedding lesanet pretext",
     "detectors start detections classifier lesanet answers labels"),
    ("matplotlib's version", version("matplotlib"), "00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17", ""),
    ("pydicom's version", version("pydicom"), "01 02 13", "phantoms"),
    ("the table of the audit deleted", result(lambda run: run.table("phantom_audit"), Path.unlink), "01", ""),
    ("a table deleted", result(lambda run: run.table("table2"), Path.unlink), "11", ""),
    ("a table cut", result(lambda run: run.table("table2"), cut), "11", ""),
    ("a figure flipped", result(lambda run: run.figure("fig6"), flip), "11", ""),
    ("an executed notebook cut", result(lambda run: run.folder / "11_froc_and_table2.ipynb", cut), "11", ""),
    ("weights flipped", result(lambda run: run.weights("multi"), flip), "04-multi 05 12", ""),
    ("config.json deleted", result(lambda run: run.experiment("multi") / "config.json", Path.unlink), "04-multi 05 12",
     ""),
    ("a test truth deleted", result(lambda run: run.prepared / "manual.csv", Path.unlink),
     "02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 embedding lesanet", ""),
    ("an input older, same bytes", result(lambda run: run.audit("cross-dataset"), date(-1e8)), "", ""),
    ("an input newer, same bytes", result(lambda run: run.audit("cross-dataset"), date(1e8)), "", ""),
    ("an input written again, same bytes", result(lambda run: run.audit("cross-dataset"), same_again), "", ""),
    ("an input with other bytes", result(lambda run: run.audit("cross-dataset"), flip), "08 11", ""),
    ("a volume deleted", result(lambda run: run.prepared / "store/LiTS/volume-1.npy", Path.unlink), "02", ""),
    ("a raw scan repaired", result(lambda run: run.raw / "LiTS" / "scan", cut), "01 02", ""),
    ("a scan of the pretext task replaced", result(lambda run: run.raw / "pretext" / "train-0001.npz", cut),
     "01 03 pretext", ""),
    ("a raw scan added", result(lambda run: run.raw / "LUNA16", add("more")), "01 02 12", ""),
    ("the manual boxes replaced", result(lambda run: run.raw / MANUAL_FILE, cut), "01 02 04 05 09 10 11 17", ""),
    ("a receipt lost", result(lambda run: run.folder / "made" / "09_retraining.json", Path.unlink), "09", ""),
    ("a receipt damaged", result(lambda run: run.folder / "made" / "09_retraining.json", cut), "09", ""),
]  # fmt: skip


@pytest.fixture
def finished_again(finished, monkeypatch):
    """The finished run, which is put back as it was when the test is over."""
    kept = {path: (path.read_bytes(), path.stat()) for path in finished.run.raw.parents[2].rglob("*") if path.is_file()}
    yield finished
    for path in finished.run.raw.parents[2].rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    for path, (content, status) in kept.items():
        if not path.exists() or path.read_bytes() != content or path.stat().st_mtime_ns != status.st_mtime_ns:
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_finished_run_is_up_to_date(finished):
    assert finished.out_of_date() == {}


@pytest.mark.parametrize(("what", "change", "steps", "products"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_change_makes_again_what_depends_on_it_and_nothing_else(
    finished_again, monkeypatch, what, change, steps, products
):
    made = finished_again
    recipe._version.cache_clear()
    before = made.products()
    change(made, monkeypatch)
    found = made.out_of_date()
    assert {short(name) for name in found} == wanted(steps, [step.name for step in made.steps], short), found
    again = {name for name, code in made.products().items() if code != before[name]}
    assert again == set(products.split())


def short(name: str) -> str:
    """The number of a notebook, which stands for all its executions."""
    return name[:2] if name[0].isdigit() else name


def wanted(steps: str, names: list[str], short: Callable[[str], str]) -> set[str]:
    if steps == ALL:
        return {short(name) for name in names}
    return {short(name) for name in steps.split()}


def test_reasons_name_what_is_wrong(finished_again, monkeypatch):
    made = finished_again
    made.run.table("table2").unlink()
    cut(made.run.figure("fig6"))
    edit("evaluation/froc.py", "RATES = (", "RATES = (1 / 16, ")(made, monkeypatch)
    version("pandas")(made, monkeypatch)
    reasons = "; ".join(made.out_of_date()["11_froc_and_table2"])
    for text in ("figures/table2.csv is missing", "figures/fig6.png is not as it was written",
                 "lensnb/evaluation/froc.py changed", "pandas is 0.0.1, it was "):  # fmt: skip
        assert text in reasons


def test_what_follows_waits_for_what_is_made_again(finished_again):
    made = finished_again
    cut(made.run.mined("cross-dataset"))
    receipts._checksum.cache_clear()
    recipe._version.cache_clear()
    why = receipts.survey(made.run, made.steps)
    assert why["08_cross_dataset_mining"] == ["mined/cross-dataset.csv is not as it was written"]
    assert why["06_cross_slice_mining"] == [] and why["04_training_lens-single"] == []
    assert why["04_training_lens-multi-mined"] == ["input mined/cross-dataset.csv changed"]
    assert why["12_luna16_cpm"] == ["follows from 04_training_lens-multi-mined"]


def test_a_variant_begins_up_to_date_but_for_its_change(finished_again, monkeypatch):
    """Receipts name files by their place in a run, so that they hold for a run that has borrowed the files."""
    made, variant = finished_again, Run("smoke+low")
    path = runfolder.root() / "data" / "variants" / "smoke+low.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("base: smoke\nmining:\n  sigmas: [0.05]\n")
    for place in (runfolder.runs, runfolder.prepared, runfolder.figures):
        runfolder.borrow(place("smoke+low"), place("smoke"))
    receipts._checksum.cache_clear()
    recipe._version.cache_clear()
    steps = [
        replace(step, notebook=made.notebooks / step.notebook.name if step.notebook else None)
        for step in story.steps("smoke+low")
    ]
    stale = {step.name for step in steps if receipts.reasons(variant, step)}
    assert stale == {
        "00_start_here", "06_cross_slice_mining", "07_intra_patient_mining", "08_cross_dataset_mining",
        "17_lesanet_in_mining",
    }  # fmt: skip


def test_what_is_noted_of_another_runs_files_is_kept_while_they_are_as_noted(tmp_path, monkeypatch):
    """A fresh checkout has tables and their record, but no run: one step made there takes no other note away."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    run = Run("smoke")
    run.figures.mkdir(parents=True)
    notes = {}
    for name in ("kept.csv", "edited.csv", "own.csv", "gone.csv"):
        (run.figures / name).write_text(name)
        notes[name] = {"step": "other", "sha256": hashlib.sha256(name.encode()).hexdigest()}
    write_json(notes, run.figures / "made.json")
    (run.figures / "edited.csv").write_text("by hand")
    (run.figures / "gone.csv").unlink()
    (run.figures / "own.csv").write_text("made here")
    of_own = hashlib.sha256(b"made here").hexdigest()
    about = {"commit": "c", "profile": "smoke", "seed": 0, "date": "d"}
    write_json({**about, "outputs": {"figures/own.csv": of_own}}, run.folder / "made" / "09_retraining.json")
    # a step that began again between the listing of the receipts and their reading
    (run.folder / "made" / "06_cross_slice_mining.json").symlink_to(tmp_path / "removed")
    provenance.write(run)
    own = {"step": "09_retraining", **about, "sha256": of_own}
    assert read_json(run.figures / "made.json") == {"kept.csv": notes["kept.csv"], "own.csv": own}
    (run.figures / "made.json").write_text("{")
    provenance.write(run)
    assert read_json(run.figures / "made.json") == {"own.csv": own}
    write_json({"kept.csv": notes["kept.csv"], "edited.csv": 5}, run.figures / "made.json")  # broken in one place
    provenance.write(run)
    assert read_json(run.figures / "made.json") == {"own.csv": own}
