"""The simulated archive, mined: every bookmark is what the truth says it is, in all three forms."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file

from lensnb.bookmarks.export import COLUMNS
from lensnb.bookmarks.judging import KINDS, forms, match, merges, rules
from lensnb.bookmarks.mine import mine
from lensnb.datasets import deeplesion
from lensnb.datasets.check import check
from lensnb.datasets.preparation import prepare
from lensnb.datasets.store import Store
from lensnb.files import read_table
from lensnb.models.build import build_lens
from lensnb.phantom import pacs
from lensnb.phantom.pacs import Pacs, write_pacs
from lensnb.phantom.pacs_bookmarks import TRUTH
from lensnb.runfolder import Run
from lensnb.settings import load_profile
from lensnb.training.detector import Batches, fit_lens
from lensnb.training.experiments import EXPERIMENTS, training_labels

SMALL = Pacs(
    patients=2,
    studies=3,
    pixels=80,
    spacing_mm=(4.2, 5.0),
    depth_mm=90.0,
    slice_mm=((5.0, 3.0), (0.7, 0.3)),
    smallest_mm=14.0,
    further_mark=0.5,
    forms_of_each=3,
    shares=dict.fromkeys(pacs.SHARES, 0.25),
)
# what a bookmark of the truth is called where it is left out, by what it is and the form that it is in
LEFT_OUT = {
    "arrow": {"structured report": "point", "presentation state": ("arrow", "drawing of 3 lines"), "csv": "arrow"},
    "line": "single line",
    "ellipse": "ellipse",
    "text": {"structured report": "point", "presentation state": "text", "csv": "text"},
    "MR": "modality MR",
    "PT": "modality PT",
    "coronal": "not axial",
    "sagittal": "not axial",
    "image not here": {"csv": "its series is not here"},
    "several images": "it names several images",
    "wrong series": {"csv": ("its series is not here", "outside of its image", "not axial")},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The folder of a small archive, and its truth."""
    folder = tmp_path_factory.mktemp("pacs") / "archive"
    return folder, write_pacs(folder, SMALL, 3)


@pytest.fixture(scope="module")
def mined(archive, tmp_path_factory):
    folder, _ = archive
    out = tmp_path_factory.mktemp("mined") / "data"
    return out, mine(folder / "dicom", out, folder / "vertices.csv", margin_px=1.0)


def called(row) -> tuple[str, ...]:
    names = LEFT_OUT[row.what]
    name = names.get(row.form, "its image is not here") if isinstance(names, dict) else names
    return name if isinstance(name, tuple) else (name,)


def test_the_archive_has_everything(archive):
    folder, truth = archive
    assert truth.columns.tolist() == TRUTH
    assert set(truth["what"]) == {"lesion", *pacs.SHARES} - {"second reader"} and (truth["reader"] == 2).any()
    written = read_table(folder / "truth.csv")
    pd.testing.assert_frame_equal(written.fillna({"type": ""}), truth, check_dtype=False)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in (folder / "dicom").rglob("*.dcm")]
    assert {header.Modality for header in headers} == {"CT", "MR", "PT", "PR", "SR"}
    ct = [header for header in headers if header.Modality == "CT"]
    turned = {tuple(np.rint(np.array(header.ImageOrientationPatient, float)).tolist()) for header in ct}
    assert len(turned) >= 5  # plain, both reversed, mirrored, transposed; coronal or sagittal
    tilts = [np.abs(np.array(h.ImageOrientationPatient, float) - np.rint(h.ImageOrientationPatient)).max() for h in ct]
    assert 0.1 < max(tilts) < np.sin(np.radians(20.01))
    by_name = sorted(path for path in (folder / "dicom").rglob("*.dcm") if "series_01" in str(path))[:12]
    along = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in by_name]
    assert along != sorted(along) and along != sorted(along, reverse=True)


def test_every_true_bookmark_is_found_in_every_form(archive, mined):
    _, truth = archive
    found = forms(match(mined[1].bookmarks, truth))
    assert found["lesions"].min() >= 10 and found["lesions"].nunique() == 1
    assert found["found_to_0.1_px"].tolist() == found["lesions"].tolist()
    assert found["largest_off_px"].max() < 1e-3
    pairs = match(mined[1].bookmarks, truth)
    assert (pairs["found"] >= 0).all()  # the wrong ones, too


def test_everything_else_is_read_named_and_counted(archive, mined):
    _, truth = archive
    left = mined[1].bookmarks[mined[1].bookmarks["left_out"] != ""]
    got = Counter(zip(left["form"], left["left_out"], strict=True))
    possible = [(row.form, called(row)) for row in truth[truth["what"].isin(list(LEFT_OUT))].itertuples()]
    for form, names in sorted(possible, key=lambda pair: len(pair[1])):  # those with one name first
        name = next((name for name in names if got[form, name]), None)
        assert name is not None, (form, names)
        got[form, name] -= 1
    assert sum(got.values()) == 0
    assert len(mined[1].bookmarks) == len(truth) == mined[1].counts["bookmarks"].sum()


def test_duplicates_are_merged_and_come_from_all_forms(archive, mined):
    """Each bookmark is there three times, and second readers' marks lie within a millimetre or two."""
    bookmarks = mined[1].bookmarks
    pairs = match(bookmarks, archive[1])
    found = bookmarks.loc[pairs["found"]]
    pairs["into"] = found["merged_into"].where(found["merged_into"] > 0, found["bookmark"]).to_numpy()
    assert (pairs.groupby("bookmark")["into"].nunique() == 1).all()
    assert len(mined[1].info) == pairs["into"].nunique() < pairs["bookmark"].nunique()
    merged = merges(pairs, bookmarks).iloc[0]
    assert merged["right"] > 20 and merged["wrong_with_right"] == 0 and merged["precision"] == 1
    assert merged["recall"] > 0.8
    lesions = pairs[pairs["what"] == "lesion"].groupby(["patient", "study", "identity"])
    assert lesions["reader"].nunique().max() == 2 and (lesions["into"].nunique() == 1).mean() > 0.8


def test_follow_up_numbers_are_those_of_the_lesions(archive, mined):
    _, truth = archive
    pairs = match(mined[1].bookmarks, truth)
    lesions = pairs[pairs["what"] == "lesion"]
    assert mined[1].bookmarks.loc[lesions["found"], "follow_up"].tolist() == lesions["follow_up"].tolist()
    sets = lesions.groupby(["patient", "follow_up"])["identity"].nunique()
    assert (sets == 1).all() and lesions.groupby(["patient", "identity"])["study"].nunique().max() >= 2


def test_the_rules_are_judged(archive, mined):
    """Where so many are wrong, percentiles tell little; what is outside of the body has no other HU, and is found."""
    found = rules(match(mined[1].bookmarks, archive[1]), mined[1].bookmarks).set_index("rule")
    there = archive[1]["what"].value_counts()
    kinds = {rule: int(there[what]) for rule, what in KINDS.items()}
    wrong = {"any": sum(int(there[what]) for what in set(KINDS.values()))}
    assert found["of_its_kind"].to_dict() == kinds | wrong and min(kinds.values()) > 0
    print(found.to_string())
    assert found.loc["faint", "recall"] > 0.3 and found.loc["any", "precision"] > 0.8
    assert found.loc["dark", "recall_of_any_rule"] == 1


def test_what_is_mined_is_read_as_deeplesion_is(mined, tmp_path):
    out, result = mined
    assert result.info.columns.tolist() == COLUMNS
    found = deeplesion.find(out)
    usable = found[found["problem"] == ""]
    assert set(found["problem"]) <= {"", "only possibly noisy lesions"} and len(usable) >= 3
    for _, row in found.iterrows():
        ct, boxes = deeplesion.read(out, row)
        assert not [note for note in ct.notes if "PNG" in note or "lesion" in note] and len(boxes) == row["lesions"]
    checked = check(out, read=True)
    problems = checked.problems[checked.problems["dataset"] == "DeepLesion"]
    assert len(problems) == 0 and checked.usable["DeepLesion"]["volumes"] == len(usable)
    prepare(out, tmp_path / "store", (5.0, 5.0, 5.0), workers=1, datasets=("DeepLesion",))
    prepared = pd.read_csv(tmp_path / "store" / "boxes.csv")
    assert len(prepared) == (result.info["Possibly_noisy"] == 0).sum()
    before, after = trained(Store(tmp_path / "store"), tmp_path / "detector")
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    log = pd.read_csv(tmp_path / "detector" / "log.csv")
    assert len(log) and np.isfinite(log.select_dtypes("number")).all(axis=None)


def trained(store: Store, folder: Path) -> tuple[dict, dict]:
    """A small detector's weights before and after two steps of training on the store's labels."""
    paper, experiment = load_profile("paper"), EXPERIMENTS["single"]
    training = replace(paper.training, epochs=0, iterations=2, batch_size=2, threads=1, loader_workers=0)
    network = replace(paper.network, imagenet=False, growth_rate=4, block_config=(1, 2, 2), stem_channels=8,
                      fpn_channels=8, afp_channels=4, fc_channels=16)  # fmt: skip
    torch.manual_seed(0)
    model = build_lens(network, experiment.datasets, experiment.proposal_network)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    profile = replace(paper, network=network, training=training)
    labels = training_labels(experiment, store, Run("smoke"))
    assert len(labels) and (labels["source"] == "annotated").all()
    batches = Batches(experiment, profile, store, labels, 0, model.backbone.multiple)
    fit_lens(model, batches, training, folder, {}, {"name": "mined"})
    return before, load_file(folder / "weights.safetensors")


def test_pictures_are_those_of_the_files_by_simpleitk(archive, mined):
    """A series in another reader, brought to LPS by it: the same HU on the same slice numbers."""
    out, result = mined
    uid, series = next(iter(result.series.items()))
    reader = sitk.ImageSeriesReader()
    folder = series.frames[0][0].parent
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    theirs = sitk.GetArrayFromImage(sitk.DICOMOrient(reader.Execute(), "LPS"))[::-1]
    names = result.bookmarks.loc[result.bookmarks["series_uid"] == uid, "File_name"]
    name = next(name for name in names if name)[:12]
    pictures = sorted((out / "DeepLesion" / "Images_png" / name).iterdir())
    assert len(pictures) > 5
    for path in pictures:
        assert np.array_equal(deeplesion.read_png(path), theirs[int(path.stem) - 1])


def test_no_name_leaves_the_archive(mined):
    out, _ = mined
    for path in (path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes() + path.name.encode()
        assert not [secret for secret in (b"Pia", b"PACS-", b"Rolf", b"Rita", b"ACC0", b"2.25.") if secret in content]


def test_the_same_seed_gives_the_same_archive(tmp_path):
    few = replace(SMALL, patients=1, studies=1, depth_mm=45.0, pixels=48, spacing_mm=(7.0, 8.0), forms_of_each=1)
    contents = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_pacs(tmp_path / name, few, seed)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(str(path.relative_to(tmp_path / name)), path.read_bytes()) for path in files])
    assert contents[0] == contents[1] != contents[2]
    assert sum(b"csv" in data for name, data in contents[0] if name == "truth.csv") <= 1


def test_an_archive_that_is_there_is_not_replaced(archive):
    with pytest.raises(ValueError, match="is there already; remove it"):
        write_pacs(archive[0], SMALL, 3)
    with pytest.raises(ValueError, match="forms_of_each is 4; a bookmark can be stored in 1, 2 or 3 forms"):
        write_pacs(archive[0] / "new", replace(SMALL, forms_of_each=4), 3)


def test_the_whole_archive_is_deep_enough_for_sub_volumes_to_be_parts():
    whole = Pacs()
    assert (whole.patients, whole.studies, whole.depth_mm) == (24, 3, 220.0)
    assert json.dumps(sorted(whole.shares)) == json.dumps(sorted(pacs.SHARES))
