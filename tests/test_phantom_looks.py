"""Lesions look like their type, have the published sizes, and normal things that look like them lie where they do."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lensnb.files.cells import read_csv
from lensnb.phantom import lookalikes, ontology, organs
from lensnb.phantom.anatomy import draw_anatomy, heart, lung_distance
from lensnb.phantom.audit import PUBLISHED
from lensnb.phantom.lesions import Lesion, draw_lesions
from lensnb.phantom.lookalikes import normal_nodes
from lensnb.phantom.looks import LOOKS, PHASES, conspicuity, look_of
from lensnb.phantom.painting import paint_lesion
from lensnb.phantom.rendering import _average, fine_planes, slice_profile
from lensnb.phantom.shapes import blank_canvas, ellipsoid_distance
from lensnb.phantom.sizes import LARGEST_MM, MARKED, TENTHS, diameter_mm, draw_size, rank_among_marks

RANGES = {"chest": (40.0, 120.0), "abdomen": (-150.0, -65.0), "base": (-40.0, 30.0)}


@pytest.fixture(scope="module")
def drawn() -> list[Lesion]:
    """The lesions of sixteen people."""
    found = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        person = draw_anatomy(rng)
        for region, z_range in RANGES.items():
            found += draw_lesions(rng, person, region, z_range)
    return found


def painted(look: tuple[str, str], phase: str, around: float = 0.0, edge: float = 3.5, **changes) -> tuple:
    """A lesion of a look in the middle of a uniform block of 3 mm voxels: (HU, index, share)."""
    voxels = np.arange(41) * 3.0
    canvas = blank_canvas(voxels, voxels, voxels, edge)
    canvas.hu[:] = around
    contrast = SimpleNamespace(phase=phase, liver=around, spleen=around, muscle=around)
    middle = look_of(*look).hu
    values = {"centre": (60.0, 60.0, 60.0), "radius": 15.0, "aspect": 1.0, "turn": 0.3, "depth": 1.0, "waves": ()}
    values |= {"contrast": tuple(np.mean(r) for r in middle), "attributes": look_of(*look).attributes}
    lesion = Lesion(identity=0, type=look[0], organ="", side="left", look=look[1], **(values | changes))
    where, share = paint_lesion(canvas, SimpleNamespace(scale=1.0), lesion, 1.0, contrast)
    return canvas.hu, where, share


def test_a_lesion_of_the_lung_lies_in_the_lung_and_not_in_the_heart_that_is_painted_over_it():
    number = 0
    for seed in range(16):
        rng = np.random.default_rng(seed)
        person = draw_anatomy(rng)
        for lesion in draw_lesions(rng, person, "chest", (0.0, 60.0)):
            centre = tuple(np.array(lesion.centre)[:, None])
            if lesion.type == "lung":
                assert lung_distance(person, *centre)[0] < 0 < ellipsoid_distance(centre, *heart(person))[0]
                number += 1
    assert number > 20


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_the_table_of_sizes_is_the_published_one():
    published = read_csv(PUBLISHED).set_index("statistic")["published"]
    for name, tenths in TENTHS.items():
        kind = {"LUNA16": "LUNA16 diameter", "NIH-LN": "NIH-LN short diameter"}.get(
            name, f"DeepLesion {name} long diameter"
        )
        assert tenths == pytest.approx([published[f"{kind}, p{p}"] for p in (10, 50, 90)], rel=1e-3)
    assert (MARKED[0], MARKED[2]) == pytest.approx(
        [published[f"marked, share of the {third} third"] for third in ("smallest", "largest")], abs=1e-4
    )
    assert np.mean(MARKED) == pytest.approx(published["marked, share of all lesions"], abs=1e-3)


def test_lesions_marked_with_the_published_shares_have_the_published_sizes():
    rng = np.random.default_rng(0)
    rank = rng.random(200_000)
    long_mm = diameter_mm(TENTHS["liver"], rank_among_marks(rank))
    marked = rng.random(len(rank)) < np.array(MARKED)[np.minimum((rank * 3).astype(int), 2)]
    assert np.quantile(long_mm[marked], (0.1, 0.5, 0.9)) == pytest.approx(TENTHS["liver"], rel=0.03)
    assert np.median(long_mm) < 0.8 * TENTHS["liver"][1]  # the small ones are left out more often


@pytest.mark.parametrize("sizes, kind, part", [("LUNA16", "lung", 1), ("NIH-LN", "node", None)])
def test_single_type_sets_have_sizes_of_their_own(sizes, kind, part):
    rng = np.random.default_rng(1)
    long_, aspect = np.array([draw_size(rng, kind, "chest", 3.0, sizes) for _ in range(3000)]).T
    found = long_ if part else long_ * aspect
    assert np.median(found) == pytest.approx(TENTHS[sizes][1], rel=0.06)


def test_no_lesion_is_smaller_than_asked_for(drawn):
    long_mm = np.array([2 * lesion.radius / np.sqrt(lesion.aspect) for lesion in drawn])
    assert long_mm.min() >= 9.0 - 1e-6
    assert all(size <= LARGEST_MM[lesion.type] + 1e-6 for size, lesion in zip(long_mm, drawn, strict=True))
    short = 2 * np.array([lesion.radius * np.sqrt(lesion.aspect) for lesion in drawn])
    assert 0.2 < (short < 10).mean() < 0.45  # published: 34 % of the marks
    with pytest.raises(ValueError, match="no lung lesion has a long diameter between 300"):
        draw_size(np.random.default_rng(0), "lung", "chest", 300.0, "")


# --- looks ----------------------------------------------------------------------------------------------------------


def test_every_look_has_a_range_for_each_phase():
    assert len({(look.type, look.name) for look in LOOKS}) == len(LOOKS)
    for look in LOOKS:
        assert len(look.hu) == len(PHASES) and all(low <= high for low, high in look.hu)


def test_contrast_follows_the_phase():
    def inside(look: tuple[str, str], phase: str, around: float) -> float:
        return float(painted(look, phase, around, radius=9.0)[0][20, 20, 20]) - around

    assert (
        inside(("liver", "hypervascular"), "arterial", 68) > 25 > 0 > inside(("liver", "hypervascular"), "portal", 106)
    )
    assert inside(("liver", "metastasis"), "portal", 106) < -25
    assert all(inside(("liver", "cyst"), phase, 90) + 90 < 20 for phase in PHASES)
    node = [inside(("node", "solid node"), phase, -103) for phase in PHASES]
    assert node[2] - node[0] > 35 and node[0] < node[1] < node[2]
    cortical = inside(("kidney", "clear cell carcinoma"), "arterial", 0)
    assert cortical > 1.6 * inside(("kidney", "papillary carcinoma"), "arterial", 0)
    adenoma = [inside(("adrenal", "adenoma"), phase, 0) for phase in PHASES]
    assert adenoma[0] < 20 < adenoma[2]


def test_cores_rims_and_hila_show():
    hu, *_ = painted(("liver", "target metastasis"), "portal", 106)
    assert hu[20, 20, 20] < hu[20, 20, 24] - 20 < 106  # the rim is between the core and the liver
    hu, *_ = painted(("node", "node with fatty hilum"), "portal", -103)
    assert hu[20].min() < -55 and hu[20, 20, 20] > hu[20, 15:26, 15:26].min() + 40  # to one side
    hu, *_ = painted(("lung", "cavitary nodule"), "none", -850)
    assert hu[20, 20, 20] < -900 and hu[20, 20, 24] > -100
    hu, *_ = painted(("node", "calcified node"), "none", -103, radius=4.5)
    assert hu.max() > 300


def test_a_faded_border_is_wider_than_a_sharp_one():
    def width(look: tuple[str, str]) -> int:
        share = painted(look, "portal", 0.0)[2]
        line = share[share.shape[0] // 2, share.shape[1] // 2]
        return int(((line > 0.05) & (line < 0.95)).sum())

    assert width(("liver", "isodense")) > width(("liver", "metastasis")) >= width(("liver", "cyst"))


def test_shapes_are_larger_than_a_pixel():
    """Lobes, spicules and axes that a label names change the picture by more than a pixel of 3 mm."""
    _, _, plain = painted(("node", "solid node"), "portal", radius=10.0)
    _, _, lobed = painted(("node", "solid node"), "portal", radius=10.0, lobes=(4, 0.4))
    middle = lobed[lobed.shape[0] // 2]
    y, x = np.nonzero(middle >= 0.5)
    far = np.hypot(y - (middle.shape[0] - 1) / 2, x - (middle.shape[1] - 1) / 2)
    border = [
        far[np.abs(np.arctan2(y - (middle.shape[0] - 1) / 2, x - (middle.shape[1] - 1) / 2) - a) < 0.2].max()
        for a in np.linspace(-3, 3, 40)
    ]
    assert max(border) - min(border) > 0.9
    assert abs(float((lobed >= 0.5).sum()) / (plain >= 0.5).sum() - 1) < 0.25  # about the same size
    hu, where, share = painted(("lung", "solid nodule"), "none", -850, spicules=8)
    outside = hu[where][(share < 0.01)]
    assert (outside > -600).sum() > 20  # strands that belong to no box
    with_oval = ontology.complete_labels(_lesion(aspect=0.6), 20, 12)
    assert "oval" in with_oval and "oval" not in ontology.complete_labels(_lesion(aspect=0.6), 10, 6)
    assert "round" in ontology.complete_labels(_lesion(), 20, 19)
    assert not {"round", "oval"} & ontology.complete_labels(_lesion(), 20, 16)


def _lesion(**changes) -> Lesion:
    values = {"centre": (0, 0, 0), "radius": 10.0, "aspect": 1.0, "turn": 0.0, "depth": 1.0, "waves": ()}
    return Lesion(0, "lung", "lung", "left", contrast=(0, 0, 0), attributes=(), **(values | changes))


def test_no_lesion_has_labels_that_exclude_each_other(drawn):
    known = ontology.read()
    number = {name: i for i, name in enumerate(known.labels)}
    for lesion in drawn:
        long_ = 2 * lesion.radius / np.sqrt(lesion.aspect)
        labels = ontology.complete_labels(lesion, long_, long_ * lesion.aspect)
        held = [number[name] for name in ontology.with_parents(labels, known)]
        assert not known.exclusive[np.ix_(held, held)].any(), labels


def test_conspicuity_is_low_where_a_radiologist_overlooks(drawn):
    of = {(look.type, look.name): conspicuity(look, float(np.mean(look.hu[2]))) for look in LOOKS}
    assert of["liver", "isodense"] < 0.3 < of["liver", "metastasis"] < of["liver", "cyst"]
    assert of["lung", "ground glass"] < of["lung", "solid nodule"]
    assert all(0 <= lesion.conspicuity <= 1 for lesion in drawn)


def test_bone_lesions_stay_in_their_bone():
    person = draw_anatomy(np.random.default_rng(3))
    x = y = np.arange(-60, 100, 3.0)
    for look, beyond in (("sclerotic", 0.0), ("lytic", 2.5)):
        canvas = blank_canvas(x, y, np.arange(-30, 31, 3.0), 3.5)
        lesion = _lesion(centre=(0.0, 52.0, 0.0), radius=30.0)
        lesion = replace(lesion, type="bone", organ="lumbar", look=look, attributes=(look,))
        (_, rows, columns), share = paint_lesion(canvas, person, lesion, 1.0, SimpleNamespace(phase="none"))
        seen = np.argwhere(share[share.shape[0] // 2] >= 0.5)
        wide = (np.ptp(seen[:, 1]) + 1) * 3.0
        assert wide <= 2 * (19.5 + beyond) + 3.5


# --- normal things --------------------------------------------------------------------------------------------------


def test_normal_nodes_are_small_and_lie_in_fat(monkeypatch):
    """At least 90 % of those in view have their centre in fat, in scans with bowel that lies elsewhere each time."""
    monkeypatch.setattr(lookalikes, "paint_normal_nodes", lambda *args: None)  # to see what lies below them
    voxels = np.arange(-165, 166, 3.0)
    in_fat = []
    for seed in range(6):
        person = draw_anatomy(np.random.default_rng(seed))
        low = 20.0 if seed % 2 else -165.0
        canvas = blank_canvas(voxels, voxels, np.arange(low, low + 96, 3.0), 1.0)
        rng = np.random.default_rng(seed + 100)
        organs.paint_body(canvas, person, organs.draw_contrast(rng), person.fat, rng)
        nodes = normal_nodes(person)
        assert (2 * nodes[:, 3] * nodes[:, 4] * person.scale < 10).all()  # RECIST: short axis
        for x, y, z, *_ in nodes[(nodes[:, 2] >= low) & (nodes[:, 2] < low + 94)]:
            place = (np.abs(canvas.z - z).argmin(), np.abs(canvas.y - y).argmin(), np.abs(canvas.x - x).argmin())
            in_fat.append(-135 < canvas.hu[place] < -60)
    assert len(in_fat) > 20 and np.mean(in_fat) >= 0.9


def test_nodes_enhance_whether_normal_or_not():
    phases = {}
    rng = np.random.default_rng(0)
    while len(phases) < 3:
        contrast = organs.draw_contrast(rng)
        phases.setdefault(contrast.phase, contrast)
    assert phases["portal"].node - phases["none"].node > 30


# --- slices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slice_mm", [1.0, 2.5, 5.0])
def test_a_slice_is_the_mean_over_its_thickness(slice_mm):
    z = 10.0 + slice_mm * np.arange(8)
    fine = fine_planes(z, slice_mm)
    profile = slice_profile(fine, z, slice_mm)
    assert profile.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    ramp = fine[:, None, None].astype(np.float32)
    assert _average(ramp, profile).ravel() == pytest.approx(z, abs=1e-3)  # a ramp keeps its values
    step = (fine > z[4] + 0.1).astype(np.float32)[:, None, None]
    spread = ((found := _average(step, profile).ravel()) > 0.02) & (found < 0.98)
    assert spread.any() if slice_mm == 5.0 else True
