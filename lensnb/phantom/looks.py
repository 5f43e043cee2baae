"""What lesions of each type look like: density in each contrast phase, margin, core and texture.

A row of LOOKS is a kind of lesion that a radiologist can name. HU are ranges without contrast agent, in the arterial
and in the portal venous phase; one number drawn for the lesion picks its place in all three. Where `beside` is set,
they are differences from that organ's HU of the scan. A name beside a row says where such a density is described; the
ranges were written down from general knowledge of it and not measured on scans, so all numbers here are guesses, as are
the frequencies (`weight`), margins and sizes of cores.
"""

from dataclasses import dataclass

import numpy as np

PHASES = ("none", "arterial", "portal")
Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """A kind of lesion.

    hu: ranges by phase. margin_mm: width of the fading border beside the scanner's own. core: what lies inside lesions
    of a radius of at least `core_from` (mm): solid tissue, air, water, calcium, the fat of a hilum, or what a rim
    leaves. Its radius is `core_size` of the lesion's, `core_hu` its HU, for a rim against the lesion's. texture: HU of
    the mottle. spiculated: share with spicules. smallest_radius, largest_radius (mm): of lesions that may
    look like this.
    """

    name: str
    type: str
    weight: float
    hu: tuple[Range, Range, Range]
    beside: str = ""
    margin_mm: float = 0.0
    core: str = ""
    core_hu: float = 0.0
    core_size: float = 0.55
    core_from: float = 0.0
    texture: float = 0.0
    attributes: tuple[str, ...] = ()
    spiculated: float = 0.0
    smallest_radius: float = 0.0
    largest_radius: float = np.inf


LOOKS = (
    # lung. Solid nodules enhance by 15 to 60 HU if malignant, by less if not (Swensen et al., Radiology 2000);
    # pure ground glass -700 to -450 HU (Fleischner terms: denser than lung, vessels seen through it)
    Look("solid nodule", "lung", 0.46, ((15, 40), (35, 75), (35, 85)), attributes=("solid",), spiculated=0.15,
         texture=5),
    Look("spiculated mass", "lung", 0.18, ((20, 40), (40, 75), (45, 85)), attributes=("solid",), spiculated=1.0,
         smallest_radius=7, margin_mm=1, texture=8),
    Look("ground glass", "lung", 0.12, ((-700, -500), (-700, -500), (-700, -500)), margin_mm=5, texture=45,
         attributes=("ground-glass opacity",)),
    Look("part-solid nodule", "lung", 0.08, ((-650, -480), (-650, -480), (-650, -480)), margin_mm=4, texture=40,
         core="solid", core_hu=35, core_size=0.5, core_from=6, attributes=("ground-glass opacity",),
         smallest_radius=6),
    Look("cavitary nodule", "lung", 0.09, ((20, 45), (35, 70), (40, 80)), core="air", core_hu=-930, core_size=0.55,
         core_from=6, attributes=("cavitary",), smallest_radius=7, margin_mm=1),
    # calcified throughout: over 200 HU (Zerhouni et al., Radiology 1986: 264 as the threshold)
    Look("calcified nodule", "lung", 0.07, ((280, 650), (280, 650), (280, 650)), attributes=("calcified",)),
    # liver, against it. Hypovascular metastases are seen best in the portal phase, 30 to 60 HU below; without
    # contrast agent 5 to 20 below (textbook). Hypervascular ones and HCC: 20 to 60 above in the arterial phase,
    # washed out in the portal one. The rim of a target lesion enhances.
    Look("metastasis", "liver", 0.36, ((-22, -10), (-36, -16), (-62, -30)), "liver", margin_mm=2.5, texture=6,
         attributes=("hypoattenuation",)),
    Look("target metastasis", "liver", 0.2, ((-20, -8), (-18, -4), (-40, -22)), "liver", margin_mm=2, core="rim",
         core_hu=-34, core_size=0.6, core_from=7, attributes=("hypoattenuation",), smallest_radius=7),
    # water, under 20 HU in every phase (ACR incidental findings committee)
    Look("cyst", "liver", 0.2, ((0, 14), (0, 14), (2, 16)), attributes=("cyst", "hypoattenuation")),
    Look("hypervascular", "liver", 0.14, ((-14, -5), (28, 60), (-28, -10)), "liver", margin_mm=1.5, texture=6),
    Look("isodense", "liver", 0.1, ((-12, 2), (-16, 16), (-20, -10)), "liver", margin_mm=7),
    # nodes: 30 to 45 HU, enhancing by some 35 to 65 in the portal phase (textbook: 70 to 110)
    Look("solid node", "node", 0.58, ((30, 45), (52, 78), (70, 108)), attributes=("solid",), texture=4),
    Look("node with fatty hilum", "node", 0.12, ((28, 42), (48, 70), (68, 100)), core="hilum", core_hu=-60,
         core_size=0.4, core_from=6),
    Look("necrotic node", "node", 0.18, ((30, 42), (50, 75), (70, 105)), core="water", core_hu=16, core_size=0.62,
         core_from=6, attributes=("necrosis",), smallest_radius=7),
    Look("calcified node", "node", 0.12, ((35, 48), (52, 78), (70, 105)), core="calcium", core_hu=420, core_size=0.45,
         core_from=0, attributes=("calcified",)),
    # kidney. Simple cysts -10 to 20 HU (Bosniak I). Clear cell carcinoma 30 to 45 HU, 100 to 170 in the cortical phase,
    # 80 to 125 later; papillary 30 to 45, 45 to 70, 50 to 80 (Kim et al., AJR 2002; Young et al., Radiology 2013)
    Look("cyst", "kidney", 0.5, ((-2, 14), (-2, 14), (0, 16)), attributes=("cyst", "hypoattenuation")),
    Look("clear cell carcinoma", "kidney", 0.3, ((30, 44), (110, 165), (85, 122)), texture=14, margin_mm=1,
         core="water", core_hu=14, core_size=0.5, core_from=11),
    Look("papillary carcinoma", "kidney", 0.2, ((30, 44), (45, 70), (50, 80)), texture=4, attributes=("solid",)),
    # adrenal: lipid-rich adenoma under 10 HU, at most 20 (Boland et al., AJR 1998); metastasis 25 to 45
    Look("adenoma", "adrenal", 0.6, ((-4, 18), (30, 58), (42, 72))),
    Look("metastasis", "adrenal", 0.4, ((28, 42), (48, 72), (66, 98)), texture=8, core="water", core_hu=22,
         core_size=0.5, core_from=13, attributes=("solid",)),
    # spleen: lymphoma and metastases below it, cysts of water
    Look("hypodense", "spleen", 0.7, ((-14, -6), (-60, -35), (-58, -32)), "spleen", margin_mm=2,
         attributes=("hypoattenuation",)),
    Look("cyst", "spleen", 0.3, ((2, 16), (2, 16), (2, 16)), attributes=("cyst", "hypoattenuation")),
    # bone: sclerotic metastases some 400 to 900 HU, enostoses above (Ulano et al., AJR 2016)
    Look("lytic", "bone", 0.5, ((28, 55), (40, 80), (45, 90)), attributes=("lytic",)),
    Look("sclerotic", "bone", 0.5, ((520, 900), (520, 900), (520, 900)), margin_mm=2, texture=60,
         attributes=("sclerotic",)),
    # soft tissue: beside fat any density of soft tissue shows; in muscle only the enhancement does
    Look("subcutaneous nodule", "soft tissue", 0.6, ((24, 45), (40, 70), (48, 95)), texture=4,
         attributes=("subcutaneous",), largest_radius=14),
    Look("muscle metastasis", "soft tissue", 0.4, ((-14, -2), (12, 40), (20, 52)), "muscle", margin_mm=2,
         core="water", core_hu=25, core_size=0.5, core_from=8),
)  # fmt: skip

# HU around a lesion in the portal phase and the width of the window it is looked at in, for its conspicuity
SURROUNDINGS = {
    "lung": (-850, 2000), "liver": (106, 450), "node": (-103, 450), "kidney": (160, 450), "bone": (220, 1500),
    "soft tissue": (-103, 450), "adrenal": (-103, 450), "spleen": (118, 450),
}  # fmt: skip
ORGAN_PORTAL = {"liver": 106, "spleen": 118, "muscle": 60}
VISIBLE = 0.12  # share of the window that makes a lesion 63 % conspicuous: a guess


def draw_look(rng: np.random.Generator, kind: str, radius: float) -> Look:
    """Pick a look for a lesion of a type and an in-plane radius (mm)."""
    fitting = [look for look in LOOKS if look.type == kind and look.smallest_radius <= radius <= look.largest_radius]
    weights = np.array([look.weight for look in fitting])
    return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]


def look_of(kind: str, name: str) -> Look:
    """The look of a type and a name, without a name a plain one; KeyError if there is none."""
    return _BY_NAME[kind, name] if name else Look("", kind, 0, ((0, 0),) * 3)


def conspicuity(look: Look, portal: float) -> float:
    """How clearly a lesion stands out in the portal phase: 0 indistinct, 1 clear.

    The contrast to its surroundings as a share of the window it is looked at in (DeepLesion's DICOM_windows: 2000 HU
    for lung, 450 for soft tissue), saturating, and less where the border fades. `portal`: the lesion's HU, or against
    its organ, as in Lesion.contrast. A lung nodule has .97, ground glass .6, a liver metastasis .5, an isodense one .1.
    """
    around, window = SURROUNDINGS[look.type]
    around = ORGAN_PORTAL.get(look.beside, around)
    contrast = abs(portal if look.beside else portal - around) / window
    return float((1 - np.exp(-contrast / VISIBLE)) / (1 + look.margin_mm / 10))


_BY_NAME = {(look.type, look.name): look for look in LOOKS}
