"""The store: what is prepared, in which coordinates, and that interruptions and the number of workers do not
matter."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from tiny import ball, info_row, write_deeplesion, write_lits, write_luna, write_nih

from lensnb.boxes import BOX, COLUMNS
from lensnb.ct.grid import grid_to_mm, normalise
from lensnb.ct.grid_boxes import clip_to_image, key_boxes_to_grid, slice_boxes_to_grid
from lensnb.ct.grid_shapes import DIAMETERS
from lensnb.ct.volume import CT, affine
from lensnb.datasets import preparation, shapes, store_writing
from lensnb.datasets.preparation import prepare, split_by_patient
from lensnb.datasets.readers import READERS
from lensnb.datasets.store import Store
from lensnb.files import write_array

SPACING = (1.0, 1.0, 2.0)
SIZE = 40


def write_all(root, seed: int = 0) -> None:
    """A tissue block with a bright ball in every dataset; real layouts, awkward orientations."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(0, 40, (8, SIZE, SIZE))
    mark = ball(hu.shape, (4, 18, 24), 3.2)
    hu[mark] = 800
    manual = {
        "val": {"000003_01_01_005-012": np.array([[21.0, 15, 7, 27, 21, 11]])},
        "test": {
            "000004_01_01_005-012": np.zeros((0, 6)),
            "000007_01_01_001-009": np.array([[1.0, 1, 1, 2, 2, 2]]),
        },
    }
    rows = [info_row(f"00000{p}_01_01", 9, (20, 14, 30, 24), (5, 12), (1.25, 1.25, 3), split=s, size=SIZE)
            for p, s in ((1, 1), (2, 2), (3, 3), (4, 3))]  # fmt: skip
    write_deeplesion(root, rows, manual, hu=lambda number: hu[number - 5], size=SIZE)
    flipped = affine(np.diag([-1.25, -1.25, 3.0]), np.array([20.0, 30.0, -40.0]))
    centre = (flipped @ [24, 18, 4, 1])[:3]
    scans = {f"1.2.{n}": (hu, flipped) for n in range(5)}
    write_luna(root, scans, [("1.2.0", *centre, 8.0)])
    write_lits(root, 3, hu, mark * 2, affine(np.diag([1.25, -1.25, -3.0]), np.array([1.0, 2.0, 3.0])))
    write_nih(root, "ABD_LYMPH_003", hu, mark * 2, affine(np.diag([1.25, 1.25, 3.0]), np.array([1.0, 2.0, 3.0])))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    write_all(root)
    truth = root / "truth" / "lesions.csv"
    truth.parent.mkdir()
    head = "dataset,patient,study,series,volume,lesion,identity,type,organ,marked,z,x1,y1,x2,y2\n"
    lines = [
        f"DeepLesion,000001,000001_01,000001_01_01,000001_01_01_005-012,t000001,7,node,abdomen,True,{z},21,15,27,21\n"
        for z in (3, 4, 5)
    ]
    truth.write_text(head + "".join(lines) + lines[0].replace("005-012", "099-101").replace("t000001", "t000002"))
    return root


@pytest.fixture(scope="module")
def store(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    prepare(raw, out, SPACING, seed=3, workers=1)
    return Store(out)


def tables(folder) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".csv", ".npy", ".npz") or p.name == "report.json"
    }


def test_tables_have_the_schema_and_the_splits(store):
    assert list(store.boxes.columns) == COLUMNS == list(store.manual.columns)
    deep = store.volumes[store.volumes["dataset"] == "DeepLesion"]
    assert deep["split"].tolist() == ["train", "official-val", "val", "test"]
    assert deep["patient"].tolist() == ["000001", "000002", "000003", "000004"]
    assert sorted(store.volumes.loc[store.volumes["dataset"] == "LUNA16", "split"]) == ["train"] * 4 + ["val"]
    assert store.volumes["dataset"].drop_duplicates().tolist() == ["DeepLesion", "LUNA16", "LiTS", "NIH-LN"]
    assert (store.boxes["source"] == "annotated").all() and (store.boxes["expert"] == store.boxes["dataset"]).all()
    with pytest.raises(ValueError, match="volumes.csv has no volume 'x'"):
        store.hu("x")


def test_volumes_are_mapped_and_the_ball_lies_at_its_millimetres(store):
    for name, row in store.volumes.iterrows():
        hu = store.hu(name)
        assert isinstance(hu, np.memmap) and hu.dtype == np.int16
        assert hu.shape == (row["depth"], row["height"], row["width"]) == (11, 49, 49)
        z, y, x = np.argwhere(hu > 500).mean(axis=0)
        geometry = store.geometry(name)
        mm = geometry.original_to_mm @ [24, 18, 4, 1]
        assert np.abs(grid_to_mm([[x, y, z]], geometry)[0] - mm[:3]).max() < 0.6, name


def test_a_volume_that_was_prepared_again_is_read_again(store, tmp_path):
    """Maps stay open, but not those of files that have been replaced since."""
    name = store.volumes.index[0]
    path = tmp_path / "volume.npy"
    own = Store(store.root)
    own.volumes.loc[name, "file"] = str(path)
    for value in (1, 2):
        write_array(np.full((2, 3, 4), value, np.int16), path)
        os.utime(path, ns=(value, value))
        assert (own.hu(name) == value).all() and own.hu(name) is own.hu(name)


def test_boxes_lie_around_the_ball(store):
    for dataset, count in (("LUNA16", 1), ("LiTS", 1), ("NIH-LN", 1)):
        boxes = store.boxes[store.boxes["dataset"] == dataset]
        assert boxes["lesion"].nunique() == count
        hu = store.hu(boxes["volume"].iloc[0])
        z, y, x = np.argwhere(hu > 500).T
        middle = boxes.loc[(boxes["x2"] - boxes["x1"]).idxmax()]
        np.testing.assert_allclose([middle.x1, middle.x2], [x.min() - 0.5, x.max() + 0.5], atol=0.8)
        np.testing.assert_allclose([middle.y1, middle.y2], [y.min() - 0.5, y.max() + 0.5], atol=0.8)
        assert boxes["z"].tolist() == list(range(int(middle.z1), int(middle.z2) + 1))
        assert abs((middle.z1 + middle.z2) / 2 - z.mean()) <= 0.5
        if dataset != "LUNA16":  # there the nodule is a sphere of 8 mm, but the ball is longer along z
            assert abs(middle.z1 - z.min()) <= 1 and abs(middle.z2 - z.max()) <= 1


def test_key_boxes_manual_boxes_and_truth(store):
    box = store.boxes[store.boxes["volume"] == "000001_01_01_005-012"].iloc[0]
    # 1-based 20..30 is 0-based 19..29, times 1.25 mm; slice 9 is index 4 of 8, 9 mm above the lowest: grid
    # slice 4.5
    np.testing.assert_allclose([box.x1, box.y1, box.x2, box.y2], [23.75, 16.25, 36.25, 28.75])
    assert box.z in (4, 5) and np.isnan(box.z1)
    manual = store.manual
    assert manual["volume"].tolist() == ["000003_01_01_005-012"] and manual["source"].tolist() == ["truth"]
    # slices 7 to 11 are the indices 2 to 6: 3 to 15 mm above the lowest, and 1.5 mm more on both sides
    np.testing.assert_allclose(
        manual[["x1", "x2", "z1", "z2"]].to_numpy(float)[0], [26.25, 33.75, 0.75 + 0.5, 8.25 - 0.5]
    )
    truth = store.truth
    assert (
        truth["lesion"].unique().tolist() == ["t000001"]
        and truth["identity"].iloc[0] == 7
        and bool(truth["marked"].iloc[0])
    )
    assert truth["z"].tolist() == [
        3,
        4,
        5,
        6,
    ]  # indices 3 to 5 with half a slice: 4.5 to 13.5 mm, 2.25 to 6.75 slices
    np.testing.assert_allclose(truth["x1"], 26.25)


def test_report_counts_what_is_left_out(store):
    report = json.loads((store.root / "report.json").read_text())
    deep = report["datasets"]["DeepLesion"]
    assert (deep["found"], deep["prepared"], deep["skipped"]) == (5, 4, 1)
    assert deep["reasons"] == {"of the manual test set, not in DL_info.csv": 1}
    assert list(deep["skipped_volumes"]) == ["000007_01_01_001-009"]
    assert report["manual"] == {"boxes": 1, "boxes_of_absent_volumes": {"test": 1}}
    assert report["truth_lesions"] == 1


def test_workers_do_not_matter_and_a_second_start_does_nothing(raw, store, tmp_path, monkeypatch):
    prepare(raw, tmp_path, SPACING, seed=3, workers=2)
    assert tables(tmp_path) == tables(store.root)
    monkeypatch.setattr(store_writing, "normalise", None)  # whatever would prepare a volume again fails
    prepare(raw, tmp_path, SPACING, seed=3, workers=1)
    with pytest.raises(TypeError):
        prepare(raw, tmp_path, (1.0, 1.0, 4.0), seed=3, workers=1)


def test_interrupted_work_is_continued(raw, store, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(store.root, half)
    for name in ("volumes.csv", "boxes.csv", "store/LiTS/volume-3.npy", "store/NIH-LN/ABD_LYMPH_003.json"):
        (half / name).unlink()
    ours, killed = half / f"store/LUNA16/.1.2.0.{os.getpid()}.part.npy", half / "store/LUNA16/.1.2.0.999999999.part.npy"
    for path in (ours, killed):
        path.write_bytes(b"half a file")
    before = {path: path.stat().st_mtime_ns for path in half.rglob("*.np[yz]")}
    prepare(raw, half, SPACING, seed=3, workers=1)
    assert {path.name for path in half.rglob("*.np[yz]") if path.stat().st_mtime_ns != before.get(path)} == {
        "volume-3.npy",
        "volume-3.mask.npz",
        "ABD_LYMPH_003.npy",
        "ABD_LYMPH_003.mask.npz",
    }
    assert ours.exists() and not killed.exists()  # a process that is alive may be writing the one
    ours.unlink()
    assert tables(half) == tables(store.root)


def test_changed_source_is_prepared_again(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_all(raw)
    prepare(raw, out, SPACING, workers=1, datasets=("LiTS",))
    before = (out / "store" / "LiTS" / "volume-3.npy").read_bytes()
    write_all(raw, seed=1)
    prepare(raw, out, SPACING, workers=1, datasets=("LiTS",))
    assert (out / "store" / "LiTS" / "volume-3.npy").read_bytes() != before


def test_padding_widens_boxes_of_masks_and_spheres_only(raw, store, tmp_path):
    prepare(raw, tmp_path, SPACING, seed=3, workers=1, box_padding_mm=2.0)
    padded = Store(tmp_path).boxes
    wider = (padded["x2"] - padded["x1"]) - (store.boxes["x2"] - store.boxes["x1"])
    expected = np.where(padded["dataset"] == "DeepLesion", 0.0, 4.0)
    np.testing.assert_allclose(wider, expected, atol=1e-6)


def test_broken_volumes_are_counted_and_a_full_disk_is_not_hidden(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    write_all(raw)
    (raw / "LUNA16" / "subset0" / "1.2.4.raw").write_bytes(b"short")
    (raw / "LiTS" / "Training_Batch1" / "volume-3.nii").write_bytes(b"short")
    report = prepare(raw, tmp_path / "out", SPACING, workers=1)
    assert report["datasets"]["LUNA16"]["skipped"] == 1
    assert "is cut off" in report["datasets"]["LUNA16"]["skipped_volumes"]["1.2.4"]
    assert report["datasets"]["LiTS"] | {"skipped_volumes": 0} == {
        "found": 1, "prepared": 0, "skipped": 1, "splits": {}, "patients": 0, "lesions": 0,
        "boxes": 0, "notes": {}, "skipped_volumes": 0,
        "reasons": report["datasets"]["LiTS"]["reasons"],
    }  # fmt: skip
    assert not list((tmp_path / "out" / "store").rglob("volume-3*"))
    with pytest.raises(
        ValueError, match="none of the 1 volumes .* can be used; the first: .*volume-3.nii can not be read"
    ):
        prepare(raw, tmp_path / "other", SPACING, workers=1, datasets=("LiTS",))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_writing, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(raw, tmp_path / "third", SPACING, workers=1, datasets=("NIH-LN",))
    assert [p for p in (tmp_path / "third").rglob("*") if p.is_file()] == []


def test_an_unreadable_disk_is_no_reason_to_skip(raw, tmp_path, monkeypatch):
    def unreadable(root, row):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(READERS["LiTS"], "read_with_masks", unreadable)
    with pytest.raises(OSError, match="Input/output error") as caught:
        prepare(raw, tmp_path, SPACING, workers=1, datasets=("LiTS",))
    assert "while preparing volume-3 of LiTS" in caught.value.__notes__[0]


def test_missing_dataset_is_named_with_its_source(raw, tmp_path):
    shutil.copytree(raw / "LUNA16", tmp_path / "LUNA16")
    with pytest.raises(FileNotFoundError, match="DeepLesion does not exist; DeepLesion comes from the NIH"):
        prepare(tmp_path, tmp_path / "out", SPACING)
    assert (
        prepare(tmp_path, tmp_path / "out", SPACING, workers=1, datasets=("LUNA16",))["datasets"]["LUNA16"]["prepared"]
        == 5
    )
    with pytest.raises(ValueError, match="no dataset CIFAR"):
        prepare(tmp_path, tmp_path / "out", SPACING, datasets=("CIFAR",))


def test_split_keeps_patients_together_and_depends_on_the_seed_only():
    patients = pd.Series([f"p{i // 2:02d}" for i in range(40)])
    splits = pd.Series(split_by_patient(patients, np.random.default_rng(5)))
    assert (splits == "val").sum() == 8 and splits.groupby(patients).nunique().max() == 1
    shuffled = patients.sample(frac=1, random_state=0)
    again = pd.Series(split_by_patient(shuffled, np.random.default_rng(5)), index=shuffled.index).sort_index()
    assert again.tolist() == splits.tolist()


def test_the_seed_draws_the_split(raw):
    def validation(seed):
        found = preparation.find_all(raw, ("LUNA16",), seed)
        return found.loc[found["split"] == "val", "volume"].item()

    drawn = [validation(seed) for seed in range(8)]
    assert len(set(drawn)) > 1 and drawn == [validation(seed) for seed in range(8)]


def test_slice_boxes_are_interpolated_between_thick_slices():
    _, geometry = normalise(CT(np.zeros((4, 20, 20), np.int16), np.diag([1.0, 1, 6, 1])), (1.0, 1.0, 2.0), crop=False)
    boxes = pd.DataFrame(
        [["a", 1, 4, 4, 8, 8], ["a", 2, 1, 4, 8, 11], ["b", 3, 2, 2, 3, 3]],
        columns=["lesion", "z", "x1", "y1", "x2", "y2"],
    )
    grid = slice_boxes_to_grid(boxes, geometry, 10)
    a = grid[grid["lesion"] == "a"]
    # original 0.5 to 2.5 is grid 1.5 to 7.5; beyond the outer slices' centres the box stays
    assert a["z"].tolist() == [2, 3, 4, 5, 6, 7] and a["z1"].unique() == [2.0] and a["z2"].unique() == [7.0]
    np.testing.assert_allclose(a["x1"], [4, 4, 3, 2, 1, 1])
    np.testing.assert_allclose(a["y2"], [8, 8, 9, 10, 11, 11])
    assert grid.loc[grid["lesion"] == "b", "z"].tolist() == [8, 9]
    key = key_boxes_to_grid(boxes.iloc[[2]], geometry, 10)
    assert key["z"].tolist() == [9] and key["z1"].isna().all()


def test_thin_lesions_between_grid_slices_go_to_the_nearer():
    _, geometry = normalise(CT(np.zeros((9, 20, 20), np.int16), np.diag([1.0, 1, 1, 1])), (1.0, 1.0, 4.0), crop=False)
    boxes = pd.DataFrame([["a", 3, 4, 4, 8, 8]], columns=["lesion", "z", "x1", "y1", "x2", "y2"])
    grid = slice_boxes_to_grid(boxes, geometry, 3)
    assert grid["z"].tolist() == [1] and grid["x1"].tolist() == [4.0]


def test_boxes_are_cut_at_the_image():
    boxes = pd.DataFrame(
        [["a", 0, -3.0, 2, 5, 9], ["b", 0, 30.0, 2, 35, 9]], columns=["lesion", "z", "x1", "y1", "x2", "y2"]
    )
    kept, lost = clip_to_image(boxes, 8, 20)
    assert kept[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[-0.5, 2, 5, 7.5]] and lost.tolist() == ["b"]


def test_real_files_go_through(shared_data, tmp_path):
    report = prepare(shared_data / "real", tmp_path, (0.8, 0.8, 2.0), workers=1, datasets=("DeepLesion", "LUNA16"))
    assert report["datasets"]["DeepLesion"]["prepared"] == 1 and report["datasets"]["LUNA16"]["prepared"] == 3
    assert report["datasets"]["DeepLesion"]["lesions"] == 3 and report["datasets"]["LUNA16"]["lesions"] == 4
    assert report["datasets"]["LUNA16"]["reasons"] == {"missing scan": 885}
    assert report["manual"]["boxes_of_absent_volumes"] == {"val": 1292, "test": 4155}
    store = Store(tmp_path)
    ends, boxes = shapes.recist(store), store.boxes[store.boxes["dataset"] == "DeepLesion"]
    assert ends[["lesion", "z"]].to_numpy().tolist() == boxes[["lesion", "z"]].to_numpy().tolist()
    points = ends[DIAMETERS].to_numpy().reshape(-1, 4, 2)
    hull = np.column_stack([points.min(axis=1), points.max(axis=1)])
    pixel_mm = abs(store.geometry(boxes["volume"].iloc[0]).original_to_mm[0, 0])
    margin = np.array([-5, -5, 5, 5]) * pixel_mm / 0.8  # of 5 pixels of the files
    np.testing.assert_allclose(hull + margin, boxes[BOX].to_numpy(float), atol=1e-3)
    assert shapes.mask_numbers(store).empty and shapes.mask(store, boxes["volume"].iloc[0]) is None
