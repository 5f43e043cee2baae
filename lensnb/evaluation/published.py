"""The numbers that LENS (Yan et al., IEEE Trans. Med. Imaging 2020) and LesaNet (Yan et al., CVPR 2019) print, as
fractions, each with its place."""

import pandas as pd

FP_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)

# LENS Table I
TABLE1 = pd.DataFrame(
    [
        ("DeepLesion", "various", "whole body", "10,594 sub-volumes", 32735, "no"),
        ("LUNA16", "lung nodules", "lung", "888", 1186, "yes"),
        ("LiTS", "liver tumours", "liver", "130", 908, "yes"),
        ("NIH-LN", "lymph nodes", "lymph nodes", "176", 983, "yes"),
    ],
    columns=["dataset", "lesion types", "organs", "volumes", "lesions", "fully annotated"],
)

# LENS Table II: sensitivities at FP_RATES false positives per sub-volume, and the average as printed
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
# average sensitivities of LENS Table II, and of the FPR score alone (Sec. VI-D)
AVERAGES = {name: average for name, (_, average) in TABLE2.items()} | {"fpr-alone": 0.320}

# LENS Table IV: average sensitivity, boxes and slices in thousands
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
INTRA_PATIENT_PRECISION = 0.90  # LENS Sec. VI-D: 90 of 100 randomly checked new instances were true lesions
LUNA16_CPM = 0.898  # LENS Sec. VI-E, by the official rules; on which scans is not said

# LesaNet, Table 1: AUC, precision, recall and F1 on the text-mined and on the completely (hand-) labelled test set
LESANET_TABLE1 = {
    "cnn": ((0.9048, 0.2738, 0.5224, 0.2823), (0.9151, 0.3823, 0.5340, 0.3894)),
    "warp": ((0.9250, 0.2441, 0.6202, 0.3017), (0.9316, 0.6677, 0.3273, 0.3325)),
    "older": ((0.8933, 0.2290, 0.5767, 0.2610), (0.9017, 0.3496, 0.5776, 0.3615)),
    "lesanet": ((0.9344, 0.3593, 0.5327, 0.3423), (0.9398, 0.4737, 0.5274, 0.4344)),
    "without-propagation": ((0.9275, 0.3680, 0.4733, 0.3233), (0.9326, 0.4833, 0.4965, 0.4092)),
    "without-hard-examples": ((0.9338, 0.2983, 0.5550, 0.3178), (0.9374, 0.4341, 0.5327, 0.4303)),
    "without-expansion": ((0.9148, 0.3523, 0.5104, 0.3270), (0.9236, 0.4503, 0.5420, 0.4205)),
    "without-text-mining": ((0.9334, 0.3365, 0.5350, 0.3324), (0.9392, 0.4869, 0.5361, 0.4250)),
    "without-triplet": ((0.9312, 0.3201, 0.5394, 0.3274), (0.9335, 0.4645, 0.5624, 0.4337)),
}

# LesaNet, Table 2: AUC and F1 of labels on the text-mined test set, under the names of the published label file
LESANET_TABLE2 = {
    "chest": (0.962, 0.902),
    "lung": (0.986, 0.920),
    "liver": (0.986, 0.788),
    "lymph node": (0.937, 0.762),
    "adrenal gland": (0.995, 0.762),
    "right mid lung": (0.987, 0.566),
    "pancreatic tail": (0.975, 0.353),
    "paraspinal": (0.975, 0.098),
    "nodule": (0.891, 0.669),
    "cyst": (0.960, 0.407),
    "adenoma": (0.999, 0.308),
    "metastasis": (0.740, 0.107),
    "hypoattenuation": (0.877, 0.509),
    "sclerotic": (0.997, 0.754),
    "cavitary": (0.949, 0.250),
    "large": (0.806, 0.175),
}
LESANET_AUC_OF_KINDS = {"bodypart": 0.9656, "type": 0.9044, "attribute": 0.8384}  # LesaNet Sec. 5.4

# LesaNet, Table 3: as Table 1, mean and standard deviation over ten splits
LESANET_TABLE3 = {
    "lesanet": (
        ((0.9324, 0.0008), (0.3089, 0.0123), (0.5374, 0.0162), (0.3176, 0.0090)),
        ((0.9383, 0.0018), (0.4701, 0.0209), (0.5463, 0.0141), (0.4229, 0.0108)),
    ),
    "without-propagation": (
        ((0.9242, 0.0009), (0.3425, 0.0260), (0.4961, 0.0155), (0.3089, 0.0083)),
        ((0.9328, 0.0030), (0.5060, 0.0206), (0.5174, 0.0172), (0.4109, 0.0109)),
    ),
    "without-hard-examples": (
        ((0.9321, 0.0010), (0.2840, 0.0149), (0.5605, 0.0219), (0.3102, 0.0093)),
        ((0.9362, 0.0022), (0.4309, 0.0149), (0.5765, 0.0211), (0.4204, 0.0106)),
    ),
    "without-expansion": (
        ((0.9237, 0.0012), (0.3016, 0.0172), (0.5568, 0.0195), (0.3073, 0.0060)),
        ((0.9332, 0.0030), (0.4561, 0.0209), (0.5587, 0.0314), (0.4094, 0.0124)),
    ),
    "without-text-mining": (
        ((0.9327, 0.0009), (0.3079, 0.0143), (0.5377, 0.0190), (0.3194, 0.0116)),
        ((0.9368, 0.0023), (0.4616, 0.0205), (0.5405, 0.0268), (0.4149, 0.0065)),
    ),
    "without-triplet": (
        ((0.9303, 0.0007), (0.3065, 0.0194), (0.5391, 0.0186), (0.3160, 0.0119)),
        ((0.9356, 0.0018), (0.4629, 0.0130), (0.5473, 0.0153), (0.4184, 0.0122)),
    ),
}
LESANET_GAIN = {"lesanet": 2.36, "older": 2.25}  # LesaNet Sec. 7.3: common labels of a lesion and its five neighbours
