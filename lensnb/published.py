"""The numbers that LENS (Yan et al., IEEE Trans. Med. Imaging 2020) prints, as fractions, each with its place."""

import pandas as pd

FP_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)

# Table I
TABLE1 = pd.DataFrame(
    [
        ("DeepLesion", "various", "whole body", "10,594 sub-volumes", 32735, "no"),
        ("LUNA16", "lung nodules", "lung", "888", 1186, "yes"),
        ("LiTS", "liver tumours", "liver", "130", 908, "yes"),
        ("NIH-LN", "lymph nodes", "lymph nodes", "176", 983, "yes"),
    ],
    columns=["dataset", "lesion types", "organs", "volumes", "lesions", "fully annotated"],
)

# Table II: sensitivities at FP_RATES false positives per sub-volume, and the average as printed
TABLE2 = {
    "baseline": ((0.112, 0.163, 0.243, 0.328, 0.416, 0.509, 0.601), 0.339),
    "a": ((0.158, 0.214, 0.279, 0.359, 0.434, 0.520, 0.609), 0.368),
    "b": ((0.143, 0.215, 0.282, 0.351, 0.444, 0.539, 0.634), 0.373),
    "c": ((0.159, 0.228, 0.301, 0.377, 0.467, 0.566, 0.661), 0.394),
    "d": ((0.183, 0.263, 0.341, 0.448, 0.555, 0.654, 0.754), 0.457),
    "e": ((0.220, 0.284, 0.366, 0.452, 0.550, 0.655, 0.750), 0.468),
    "f": ((0.213, 0.283, 0.371, 0.467, 0.555, 0.662, 0.759), 0.473),
    "g": ((0.216, 0.299, 0.376, 0.467, 0.567, 0.658, 0.753), 0.476),
    "h": ((0.237, 0.316, 0.403, 0.500, 0.596, 0.695, 0.780), 0.504),
}
# average sensitivities of Table II, and of the FPR score alone (Sec. VI-D)
AVERAGES = {name: average for name, (_, average) in TABLE2.items()} | {"fpr-alone": 0.320}

# Table IV: average sensitivity, boxes and slices in thousands
TABLE4 = pd.DataFrame(
    [
        ("No mining", 0.368, 22.8, 22.8, 0.0, 22.4),
        ("+ Cross-slice", 0.377, 22.8, 186.0, 0.0, 163.0),
        ("+ Intra-patient", 0.407, 34.3, 250.0, 0.0, 192.0),
        ("+ Cross-dataset", 0.446, 34.3, 250.0, 117.0, 192.0),
        ("+ Unlabeled", 0.468, 34.3, 250.0, 442.0, 646.0),
    ],
    columns=["method", "average", "gt_3d_k", "gt_2d_k", "uncertain_2d_k", "slices_k"],
)
INTRA_PATIENT_PRECISION = 0.90  # Sec. VI-D: 90 of 100 randomly checked new instances were true lesions
LUNA16_CPM = 0.898  # Sec. VI-E, by the official rules; on which scans is not said
