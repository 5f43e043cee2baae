"""Tiny CTs and datasets in the real layouts, written by the tests that read them."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

INFO_COLUMNS = ["File_name", "Patient_index", "Study_index", "Series_ID", "Key_slice_index", "Measurement_coordinates",
                "Bounding_boxes", "Lesion_diameters_Pixel_", "Normalized_lesion_location", "Coarse_lesion_type",
                "Possibly_noisy", "Slice_range", "Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender",
                "Patient_age", "Train_Val_Test"]  # fmt: skip


def field(mm: np.ndarray) -> np.ndarray:
    """A HU field that is linear in patient mm, so that linear interpolation is exact: (..., 3) -> (...)."""
    return 3.0 * mm[..., 0] - 5.0 * mm[..., 1] + 7.0 * mm[..., 2] + 40.0


def sample(matrix: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The field at the voxels of an array (z, y, x) that `matrix` puts into the patient."""
    z, y, x = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return field(np.stack([x, y, z], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3])


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """Mask (z, y, x) of the voxels within `radius` voxels of `centre` (z, y, x)."""
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=False)) <= radius**2


def write_image(path: Path, array: np.ndarray, matrix: np.ndarray) -> None:
    """Write an array (z, y, x) as NIfTI, MetaImage or NRRD with its matrix from index to LPS mm."""
    image = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_dicom(folder: Path, hu: np.ndarray, matrix: np.ndarray, names=None, slope=1.0, intercept=-1024.0, edit=None):
    """Write one CT series; names are shuffled against position. `edit(dataset, k)` may change slice k or
    return False to leave it out."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid(entropy_srcs=[str(folder)])
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    for k in range(len(hu)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(folder), str(k)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        name = names[k] if names else f"{(k * 7919) % 1000:04d}.dcm"
        data = FileDataset(name, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.Modality = series, "CT"
        data.Rows, data.Columns = hu.shape[1:]
        data.ImagePositionPatient = [f"{v:.6g}" for v in (matrix @ [0, 0, k, 1])[:3]]
        data.ImageOrientationPatient = [
            f"{v:.8g}" for v in np.r_[matrix[:3, 0] / spacing[0], matrix[:3, 1] / spacing[1]]
        ]
        data.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        data.SliceThickness = 1.0
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.PixelData = np.rint((hu[k] - intercept) / slope).astype("<i2").tobytes()
        if edit is None or edit(data, k) is not False:
            pydicom.dcmwrite(folder / name, data)


def write_png(path: Path, hu: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((hu.astype(np.int32) + 32768).astype(np.uint16)).save(path)


def info_row(series: str, key: int, box, slices, spacing=(0.8, 0.8, 2.0), noisy=0, split=1, age="62", size=48) -> list:
    """A row of DL_info.csv; `box` as in the file, 1-based."""
    text = [
        ", ".join(str(v) for v in cell)
        for cell in (box * 2, box, (10, 5), (0.5, 0.5, 0.5), slices, spacing, (size, size))
    ]
    patient, study, number = (int(part) for part in series.split("_"))
    return [
        f"{series}_{key:03d}.png",
        patient,
        study,
        number,
        key,
        *text[:4],
        -1,
        noisy,
        *text[4:],
        "-175, 275",
        "F",
        age,
        split,
    ]


def write_deeplesion(
    root: Path, rows: list[list], manual: dict | None = None, hu=None, size: int = 48, gender="Patient_gender"
):
    """DL_info.csv with `rows`, the PNGs of their ranges (`hu(number)` -> (y, x); tissue by default), manual
    boxes."""
    folder = root / "DeepLesion"
    folder.mkdir(parents=True, exist_ok=True)
    columns = [gender if name == "Patient_gender" else name for name in INFO_COLUMNS]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "DL_info.csv", index=False)
    for row in rows:
        start, end = (int(v) for v in row[11].split(","))
        for number in range(start, end + 1):
            image = hu(number) if hu else np.full((size, size), number)
            write_png(folder / "Images_png" / row[0].rsplit("_", 1)[0] / f"{number:03d}.png", image)
    if manual is not None:
        (folder / "DeepLesion_manual_1K_test_release.pkl").write_bytes(pickle.dumps(manual))


def write_luna(root: Path, scans: dict[str, tuple[np.ndarray, np.ndarray]], nodules: list[tuple], listed=None):
    """Scans uid -> (hu, matrix) in subset0, nodules (uid, x, y, z, diameter) in mm."""
    folder = root / "LUNA16"
    for uid, (hu, matrix) in scans.items():
        write_image(folder / "subset0" / f"{uid}.mhd", hu.astype(np.int16), matrix)
    (folder / "CSVFILES").mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(nodules, columns=["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"])
    table.to_csv(folder / "CSVFILES" / "annotations.csv", index=False)
    (folder / "CSVFILES" / "seriesuids.csv").write_text("\n".join(listed or scans) + "\n")


def write_lits(root: Path, number: int, hu: np.ndarray, labels: np.ndarray, matrix, labels_matrix=None, suffix=".nii"):
    folder = root / "LiTS" / "Training_Batch1"
    write_image(folder / f"volume-{number}{suffix}", hu.astype(np.int16), matrix)
    write_image(
        folder / f"segmentation-{number}{suffix}",
        labels.astype(np.uint8),
        matrix if labels_matrix is None else labels_matrix,
    )


def write_nih(root: Path, case: str, hu: np.ndarray, nodes: np.ndarray, matrix: np.ndarray, mask_matrix=None):
    folder = root / "NIH-LN"
    write_dicom(folder / "CT Lymph Nodes" / case / "1.2.3" / "1.2.3.4", hu, matrix)
    write_image(folder / "MED_ABD_LYMPH_MASKS" / case / f"{case}_mask.nii.gz", nodes.astype(np.uint8),
                matrix if mask_matrix is None else mask_matrix)  # fmt: skip
    text = folder / "MED_ABD_LYMPH_ANNOTATIONS" / case / f"{case}_lymphnodes_indices.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    centres = [np.argwhere(nodes == n)[0] for n in np.unique(nodes[nodes > 0])]
    text.write_text("".join(f"{x} {y} {z}\n" for z, y, x in centres))
