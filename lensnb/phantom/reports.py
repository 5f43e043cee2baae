"""Labels of a lesion in LesaNet's vocabulary, and the sentence in which a radiologist mentions it."""

import numpy as np

from lensnb.phantom.lesions import Lesion

PARENTS = {
    "right upper lobe": "right lung",
    "right mid lung": "right lung",
    "right lower lobe": "right lung",
    "left upper lung": "left lung",
    "left lower lobe": "left lung",
    "right hilum lymph node": "hilum lymph node",
    "left hilum lymph node": "hilum lymph node",
    "hilum lymph node": "mediastinum lymph node",
    "right lung": "lung",
    "left lung": "lung",
    "lung": "chest",
    "mediastinum lymph node": "mediastinum",
    "mediastinum": "chest",
    "pretracheal lymph node": "mediastinum lymph node",
    "subcarinal lymph node": "mediastinum lymph node",
    "aorticopulmonary window": "mediastinum lymph node",
    "superior mediastinum lymph node": "mediastinum lymph node",
    "anterior mediastinum": "mediastinum lymph node",
    "cardiophrenic": "mediastinum lymph node",
    "paraaortic": "retroperitoneum lymph node",
    "paracaval lymph node": "retroperitoneum lymph node",
    "retrocrural lymph node": "retroperitoneum lymph node",
    "retroperitoneum lymph node": "abdomen lymph node",
    "porta Hepatis lymph node": "abdomen lymph node",
    "mesentery lymph node": "abdomen lymph node",
    "peripancreatic lymph node": "abdomen lymph node",
    "abdomen lymph node": "abdomen",
    "liver": "upper abdomen",
    "upper abdomen": "abdomen",
    "spleen": "upper abdomen",
    "right kidney": "kidney",
    "left kidney": "kidney",
    "kidney": "abdomen",
    "right adrenal gland": "adrenal gland",
    "left adrenal gland": "adrenal gland",
    "adrenal gland": "upper abdomen",
    "thoracic spine": "spine",
    "lumbar": "spine",
    "spine": "bone",
    "rib": "bone",
    "chest wall": "chest",
    "abdominal wall": "body wall",
    "body wall": "abdomen",
    "lung nodule": "nodule",
    "lung mass": "mass",
    "liver mass": "mass",
    "kidney cyst": "cyst",
}
TYPES = (
    "nodule",
    "lung nodule",
    "mass",
    "lung mass",
    "liver mass",
    "lymph node",
    "lymphadenopathy",
    "cyst",
    "kidney cyst",
    "soft tissue",
    "metastasis",
)
ATTRIBUTES = (
    "solid",
    "ground-glass opacity",
    "calcified",
    "cavitary",
    "spiculated",
    "circumscribed",
    "hypoattenuation",
    "indistinct",
    "necrosis",
    "exophytic",
    "sclerotic",
    "lytic",
    "subcutaneous",
    "large",
    "enlargement",
)
TERMS = tuple(dict.fromkeys([*PARENTS, *PARENTS.values(), *TYPES, *ATTRIBUTES]))
COARSE_TYPE = {"lung": 5, "liver": 4, "kidney": 6, "bone": 1, "soft tissue": 7, "adrenal": 2, "spleen": 2}
LARGE_MM = 40.0


def labels(lesion: Lesion, diameter_mm: float) -> list[str]:
    """Terms that hold for a lesion of this long diameter, with their parents, each once."""
    terms = [lesion.organ, *lesion.attributes]
    if lesion.type == "lung":
        terms.append("lung mass" if diameter_mm >= 30 else "lung nodule")
    elif lesion.type == "liver":
        terms.append("liver mass" if diameter_mm >= 30 else "nodule")
    elif lesion.type == "node":
        terms += ["lymph node", "enlargement"] + (["lymphadenopathy"] if diameter_mm >= 25 else [])
    elif lesion.type == "kidney":
        terms.append("kidney cyst" if "cyst" in lesion.attributes else "mass")
    elif lesion.type == "soft tissue":
        terms += ["soft tissue", "nodule"]
    elif lesion.type in ("adrenal", "spleen"):
        terms.append("nodule" if diameter_mm < 30 else "mass")
    if diameter_mm >= LARGE_MM:
        terms.append("large")
    for term in terms:  # grows while it is walked: parents of parents come too
        if term in PARENTS:
            terms.append(PARENTS[term])
    return [term for term in TERMS if term in terms]


def coarse_type(lesion: Lesion) -> int:
    """DeepLesion's coarse type: 1 bone, 2 abdomen, 3 mediastinum, 4 liver, 5 lung, 6 kidney, 7 soft tissue."""
    if lesion.type == "node":
        return 3 if "mediastinum" in labels(lesion, 10) else 2
    return COARSE_TYPE[lesion.type]


def sentence(
    lesion: Lesion, long_mm: float, short_mm: float, study: int, rng: np.random.Generator
) -> tuple[str, list[str]]:
    """Write the sentence of the report that mentions a marked lesion; returns it and the terms it leaves uncertain."""
    noun = {
        "lung": "mass" if long_mm >= 30 else "nodule",
        "liver": "lesion",
        "node": "lymph node",
        "bone": "lesion",
        "kidney": "cyst" if "cyst" in lesion.attributes else "mass",
        "soft tissue": "soft tissue nodule",
        "adrenal": "nodule",
        "spleen": "lesion",
    }[lesion.type]
    looks = [a for a in lesion.attributes if a not in ("cyst", "necrosis", "hypoattenuation", "subcutaneous")]
    looks += ["necrotic"] * ("necrosis" in lesion.attributes) + ["hypoattenuating"] * (
        "hypoattenuation" in lesion.attributes
    )
    size = f"{long_mm / 10:.1f} x {short_mm / 10:.1f} cm"
    thing = f"{lesion.organ.removesuffix(' lymph node')} {noun}"
    adjectives = ["large"] * (long_mm >= LARGE_MM) + ["enlarged"] * (lesion.type == "node") + looks
    change = str(rng.choice(["stable", "slightly larger", "slightly smaller"])) if study > 1 else "new"
    forms = (
        " ".join([*adjectives, thing]) + f" BOOKMARK measuring {size}.",
        " ".join([change, *adjectives, thing]) + f", BOOKMARK, {size}.",
        " ".join(
            [
                ("there is an" if adjectives and adjectives[0][0] in "aeiou" else "there is a"),
                *adjectives,
                thing,
            ]
        )
        + f" (BOOKMARK), {size}.",
    )
    text = forms[int(rng.integers(3))]
    uncertain = []
    if lesion.type in ("liver", "bone", "adrenal") and rng.random() < 0.3:
        text, uncertain = text[:-1] + ", suspicious for metastasis.", ["metastasis"]
    return text[0].upper() + text[1:], uncertain
