"""A miniature of the four real datasets, in their own layouts, cut out of the real files in ../shared/data.

Pixels, spacings and lesions are real. Names are not where the real files have only one patient: one DeepLesion
sub-volume becomes parts of four patients, because training, validation and test need their own.
"""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from PIL import Image
from tiny import write_dicom, write_image

from lensnb.ct.read import read_array, read_ct

SERIES = "000062_01_01"  # the one complete sub-volume: slices 56 to 84, every 5 mm, three lesions
SIDE = 96  # pixels that are left of an image
# series, key slice of the real lesion that it shows, split (1 train, 2 validation, 3 test)
DEEPLESION = (("000062_01_01", 62, 1), ("000062_02_01", 71, 1), ("000063_01_01", 78, 1), ("000101_01_01", 78, 3),
              ("000102_01_01", 71, 3))  # fmt: skip
REACH = 1  # slices on each side of a key slice


def write(root: Path, shared: Path) -> None:
    """Write the miniature below `root`; `shared`: the folder of real test files."""
    real = shared / "real"
    _deeplesion(root / "DeepLesion", real / "DeepLesion")
    _text_labels(root / "DeepLesion", real / "lesanet")
    _luna(root / "LUNA16", real / "LUNA16")
    for number, pair in enumerate(sorted((real / "nifti_pairs").iterdir())):
        _lits(root / "LiTS" / "Training_Batch1", number, pair)
    _nih_ln(root / "NIH-LN", real / "dicom" / "chest_99_slices")


def _deeplesion(folder: Path, source: Path) -> None:
    """Sub-volumes of 3 slices around each lesion, images and coordinates cut; manual boxes for two of them."""
    info = pd.read_csv(source / "DL_info.csv")
    info = info[info["File_name"].str.startswith(SERIES)].set_index("Key_slice_index", drop=False)
    rows, manual = [], {"val": {}, "test": {}}
    for series, key, split in DEEPLESION:
        row = info.loc[key].copy()
        box = np.array([float(v) for v in row["Bounding_boxes"].split(",")])
        left, top = np.clip(np.rint((box[:2] + box[2:]) / 2 - SIDE / 2), 0, 512 - SIDE).astype(int)
        shift = np.array([left, top] * 2)
        start, end = max(56, key - REACH), min(84, key + REACH)
        for number in range(start, end + 1):
            path = folder / "Images_png" / series / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(source / "Images_png" / SERIES / path.name) as image:
                image.crop((left, top, left + SIDE, top + SIDE)).save(path)
        row["File_name"], row["Slice_range"] = f"{series}_{key:03d}.png", f"{start}, {end}"
        row["Bounding_boxes"] = ", ".join(f"{v:g}" for v in box - shift)
        points = np.array([float(v) for v in row["Measurement_coordinates"].split(",")])
        row["Measurement_coordinates"] = ", ".join(f"{v:g}" for v in points - np.tile(shift, 2))
        row["Image_size"], row["Train_Val_Test"] = f"{SIDE}, {SIDE}", split
        row["Patient_index"], row["Study_index"], row["Series_ID"] = map(int, series.split("_"))
        rows.append(row)
        if split == 3:
            boxes = [[*(box - shift - 1)[:2], key - 1, *(box - shift - 1)[2:], key + 1]]
            part = "test" if manual["val"] else "val"
            manual[part][f"{series}_{start:03d}-{end:03d}"] = np.array(boxes)
    pd.DataFrame(rows).to_csv(folder / "DL_info.csv", index=False)
    (folder / "DeepLesion_manual_1K_test_release.pkl").write_bytes(pickle.dumps(manual))


def _text_labels(folder: Path, source: Path) -> None:
    """The published text-mined labels of three real lesions, given to the three lesions of the training patients."""
    name = "text_mined_labels_171_and_split.json"
    labels = json.loads((source / name).read_text())
    chosen = [i for i, relevant in enumerate(labels["train_relevant_labels"]) if relevant][:3]
    cut = {"term_list": labels["term_list"]}
    for key, values in labels.items():
        if key != "term_list":
            cut[key] = [values[i] for i in chosen] if key.startswith("train") else []
    cut["train_lesion_idxs"] = [0, 1, 2]  # rows of the DL_info.csv beside it
    (folder / name).write_text(json.dumps(cut))


def _luna(folder: Path, source: Path) -> None:
    """Three scans cut around a nodule, or in their middle, and the csv files cut to them."""
    (folder / "CSVFILES").mkdir(parents=True)
    (folder / "subset0").mkdir()
    nodules = pd.read_csv(source / "CSVFILES" / "annotations.csv")
    names = sorted(path.stem for path in (source / "subset0").glob("*.mhd"))
    for name in names:
        image = sitk.ReadImage(str(source / "subset0" / f"{name}.mhd"))
        size = np.array(image.GetSize())
        mine = nodules.loc[nodules["seriesuid"] == name, ["coordX", "coordY", "coordZ"]].to_numpy(float)
        centre = image.TransformPhysicalPointToIndex(mine[-1].tolist()) if len(mine) else size // 2
        part = np.minimum(size, (96, 96, 24))
        start = np.clip(np.array(centre) - part // 2, 0, size - part)
        sitk.WriteImage(
            sitk.RegionOfInterest(image, part.tolist(), start.tolist()), str(folder / f"subset0/{name}.mhd")
        )
    nodules[nodules["seriesuid"].isin(names)].to_csv(folder / "CSVFILES" / "annotations.csv", index=False)
    (folder / "CSVFILES" / "seriesuids.csv").write_text("\n".join(names) + "\n")


def _lits(folder: Path, number: int, pair: Path) -> None:
    """A CT and its tumour, cut around the tumour's middle; label 2 as in LiTS."""
    ct, (mask, _) = read_ct(pair / "CT_image.nii.gz"), read_array(pair / "CT_mask.nii.gz")
    centre = np.argwhere(mask > 0).mean(axis=0).astype(int)
    part = np.minimum(mask.shape, (16, 96, 96))
    start = np.clip(centre - part // 2, 0, np.array(mask.shape) - part)
    where = tuple(slice(a, a + n) for a, n in zip(start, part, strict=True))
    matrix = ct.index_to_mm.copy()
    matrix[:3, 3] = (ct.index_to_mm @ [*start[::-1], 1])[:3]
    write_image(folder / f"volume-{number}.nii.gz", ct.hu[where], matrix)
    write_image(folder / f"segmentation-{number}.nii", ((mask[where] > 0) * 2).astype(np.uint8), matrix)


def _nih_ln(folder: Path, source: Path) -> None:
    """One case out of the chest CT: made-up nodes, since the real file has none, as mask and as annotation texts."""
    case = "MED_LYMPH_003"
    ct = read_ct(source)
    where = np.s_[40:56, 200:328, 200:328]
    matrix = ct.index_to_mm.copy()
    matrix[:3, 3] = (ct.index_to_mm @ [200, 200, 40, 1])[:3]
    nodes = np.zeros((16, 128, 128), np.uint8)
    nodes[4:8, 50:64, 60:76], nodes[9:12, 80:92, 30:40] = 1, 2
    write_dicom(folder / "CT Lymph Nodes" / case / "1.2.3" / "1.2.3.4", ct.hu[where], matrix)
    write_image(folder / "MED_ABD_LYMPH_MASKS" / case / f"{case}_mask.nii.gz", nodes, matrix)
    texts = folder / "MED_ABD_LYMPH_ANNOTATIONS" / case
    texts.mkdir(parents=True)
    points = np.array([np.argwhere(nodes == node).mean(axis=0)[::-1].astype(int) for node in (1, 2)])
    mm = (np.column_stack([points, [1, 1]]) @ matrix.T)[:, :3]
    for kind, rows in (("indices", points), ("physicalPoints", mm.round(4)), ("sizes", [[7.9], [5.6]])):
        text = "\n".join(" ".join(str(v) for v in row) for row in np.asarray(rows).tolist())
        (texts / f"{case}_lymphnodes_{kind}.txt").write_text(text + "\n")
