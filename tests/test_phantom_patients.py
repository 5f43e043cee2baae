"""Who is scanned, how often, what changes in between, and which lesions are marked: beside published numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
from test_phantom import spec

from lensnb.files.cells import read_csv
from lensnb.phantom import follow_up, marking
from lensnb.phantom.audit import PUBLISHED
from lensnb.phantom.patients import deeplesion_patients, held_out_patients, single_type_patients, training_patients
from lensnb.phantom.scanning import COLLECTIONS, SCANNING, in_turn
from lensnb.settings import load_profile


@pytest.fixture(scope="module")
def published() -> dict[str, float]:
    table = read_csv(PUBLISHED)
    return dict(zip(table["statistic"], table["published"], strict=True))


@pytest.fixture(scope="module")
def patients() -> list:
    return deeplesion_patients(spec(), 0, "train")


def test_shares_in_turn():
    assert in_turn([0.5, 0.5], 4) == [0, 1, 0, 1]
    assert in_turn({"a": 0.75, "b": 0.25}, 8).count(1) == 2
    counts = np.bincount(in_turn(spec().studies, 188))
    assert np.abs(counts - 188 * np.array(spec().studies)).max() < 1
    assert in_turn(spec().studies, 188)[:50] == in_turn(spec().studies, 50)  # so the first patients stay the same


def test_half_of_the_patients_have_one_study(patients, published):
    studies = np.array([len(p.studies) for p in patients])
    assert (studies == 1).mean() == pytest.approx(published["DeepLesion patients with one study, share"], abs=0.01)
    assert studies.sum() == pytest.approx(400, abs=4) and studies.max() == 5
    assert [p.studies for p in training_patients(spec(), 0, 3)] == [p.studies for p in patients[:3]]
    assert sum(len(p.studies) for p in deeplesion_patients(spec(), 0, "val")) == pytest.approx(96, abs=2)


def test_time_goes_by_and_another_region_is_scanned(patients, published):
    apart = np.concatenate([np.diff([s.months for s in p.studies]) for p in patients])
    assert (apart > 0).all()
    assert apart.mean() == pytest.approx(published["DeepLesion months from study to study"], rel=0.1)
    other = [study.region != p.studies[0].region for p in patients for study in p.studies[1:]]
    assert np.mean(other) == pytest.approx(published["DeepLesion follow-ups of another region, share"], abs=0.05)


def test_lesions_come_go_and_stay_themselves(patients):
    """A lesion lies in its study's region, most are in all studies of it, some are new, some gone."""
    kinds = {"stays": 0, "new": 0, "gone": 0}
    for patient in patients:
        assert [lesion.identity for lesion in patient.lesions] == list(range(len(patient.lesions)))
        for study in patient.studies:
            assert study.present and len(study.growth) == len(patient.lesions)
            z = [patient.lesions[i].centre[2] - study.z_low for i in study.present]
            assert min(z) > 0 and max(z) < 96
        same = [study for study in patient.studies if study.region == patient.studies[0].region]
        for before, after in zip(same, same[1:], strict=False):
            kinds["stays"] += len(set(before.present) & set(after.present))
            kinds["new"] += len(set(after.present) - set(before.present))
            kinds["gone"] += len(set(before.present) - set(after.present))
    assert 0.02 < kinds["new"] / kinds["stays"] < 0.25 and 0.02 < kinds["gone"] / kinds["stays"] < 0.2


def test_lesions_change_as_repeated_marks_do(published):
    rng = np.random.default_rng(0)
    factors = []
    for _ in range(400):
        when = follow_up.months(rng, 2)
        factors.append(follow_up.growth(rng, when, np.ones((2, 200), bool), spec().growth_sd)[1])
    factors = np.concatenate(factors)
    grown = published["DeepLesion repeated marks grown by 20 %, share"]
    shrunk = published["DeepLesion repeated marks shrunk by 30 %, share"]
    assert (factors >= 1.2).mean() == pytest.approx(grown, abs=0.015)
    assert (factors <= 0.7).mean() == pytest.approx(shrunk, abs=0.01)


def test_a_trend_goes_on():
    rng = np.random.default_rng(0)
    there = np.ones((3, 4000), bool)
    there[0, 0] = False  # its first study is the second
    sizes = follow_up.growth(rng, np.array([0.0, 4, 8]), there, 0.0)
    assert sizes[1, 0] == 1 and (sizes[0] == 1).all()
    np.testing.assert_allclose(sizes[2, 1:], sizes[1, 1:] ** 2)
    assert np.isclose(sizes[2].max(), 2 ** (8 / 3 / follow_up.DOUBLING_MONTHS))
    assert (sizes[2] > 1.01).mean() == pytest.approx(follow_up.GROWING, abs=0.02)
    assert (sizes[2] < 0.99).mean() == pytest.approx(follow_up.SHRINKING, abs=0.02)


def test_marked_shares_follow_the_published_ones(published):
    """On other patients than those that the slope was solved on."""
    patients = deeplesion_patients(spec(), 1, "train")
    slope, further = spec().marking_slope, spec().further_mark
    marks = [marking.mark(p, slope, further) for p in patients]
    shares = marking.shares(patients, marks)
    assert shares["marked_share"] == pytest.approx(published["marked, share of all lesions"], abs=0.05)
    assert 0.1 <= shares["recoverable_share"] <= 0.35
    size, marked = [], []
    for patient, chosen in zip(patients, marks, strict=True):
        for study, own in zip(patient.studies, chosen, strict=True):
            assert set(own) <= set(study.present) and len(set(own)) == len(own) >= 1
            size += [patient.lesions[i].radius * study.growth[i] for i in study.present]
            marked += [i in own for i in study.present]
    size, marked = np.array(size), np.array(marked)
    small, large = np.quantile(size, (1 / 3, 2 / 3))
    assert marked[size <= small].mean() == pytest.approx(published["marked, share of the smallest third"], abs=0.05)
    assert marked[size > large].mean() == pytest.approx(published["marked, share of the largest third"], abs=0.06)


def test_the_profiles_slope_is_the_solved_one(published):
    profile = load_profile("phantom").phantom
    # patients of one seed solve it to .3, those of eight to .1
    many = [patient for seed in range(8) for patient in training_patients(profile, seed, 188)]
    assert marking.fit(many, profile.further_mark) == pytest.approx(profile.marking_slope, abs=0.2)
    ratio = published["marked, share of the largest third"] / published["marked, share of the smallest third"]
    assert pytest.approx(ratio) == marking.LARGEST_OVER_SMALLEST
    share, lesions = published["marked, share of all lesions"], published["all lesions of a sub-volume"]
    assert profile.further_mark == pytest.approx((share * lesions - 1) / (lesions - 1), abs=0.005)


def test_what_draws_a_radiologist():
    """By hand, with a slope of 1: a node of 15 mm counts as much as a nodule of 10 mm, an indistinct one a fifth."""
    nodule = SimpleNamespace(type="lung", radius=5.0, aspect=1.0, conspicuity=1.0)
    node = SimpleNamespace(type="node", radius=7.5, aspect=1.0, conspicuity=1.0)
    hidden = SimpleNamespace(type="liver", radius=10.0, aspect=1.0, conspicuity=0.0)
    patient = SimpleNamespace(lesions=(nodule, node, hidden))
    study = SimpleNamespace(present=(0, 1, 2), growth=(1.0, 1.0, 1.0))
    np.testing.assert_allclose(marking.weights(patient, study, 1.0), [1, 1, 0.4])
    # one mark: by weight; with a second one for certain: 1 - the chance of being left out of the two
    np.testing.assert_allclose(marking.expected(np.array([2.0, 1, 1]), 0.0), [0.5, 0.25, 0.25])
    np.testing.assert_allclose(marking.expected(np.array([2.0, 1, 1]), 0.5), [5 / 6, 7 / 12, 7 / 12])
    studies = [SimpleNamespace(present=(0, 1), growth=(1.0, 1.0), seed=(n,)) for n in range(2000)]
    alone = SimpleNamespace(lesions=(nodule, hidden), studies=studies)
    first = [chosen[0] for chosen in marking.mark(alone, 1.0, 0.0)]
    assert np.mean(np.array(first) == 0) == pytest.approx(1 / 1.4, abs=0.03)


def test_single_type_scans_have_the_published_numbers(published):
    screening = 0
    named = (("LUNA16", "nodules a scan", 0), ("LiTS", "tumours a scan", 0), ("NIH-LN", "nodes a case", 1))
    for dataset, name, least in named:
        drawn = single_type_patients(spec(luna_volumes=150, lits_volumes=60, nihln_volumes=80), 0, dataset)
        own = np.array([sum(lesion.type == COLLECTIONS[dataset].type for lesion in p.lesions) for p in drawn])
        assert own.mean() == pytest.approx(published[f"{dataset} {name}"], rel=0.25) and own.min() >= least
        if dataset == "LUNA16":
            screening = np.mean([len(p.lesions) for p in drawn]) - own.mean()
            assert (own == 0).mean() == pytest.approx(published["LUNA16 scans without a nodule, share"], abs=0.08)
        if dataset == "LiTS":
            assert (own == 0).mean() == pytest.approx(published["LiTS scans without a tumour, share"], abs=0.01)
    assert 0 < screening < 0.2


def test_no_dataset_has_a_texture_of_its_own():
    ranges = [scanning.smooth for scanning in SCANNING.values()]
    common = min(high for _, high in ranges) - max(low for low, _ in ranges)
    assert common > 0.5 * max(high - low for low, high in ranges)


def test_slices_of_the_universal_dataset(published):
    share = dict(zip(*SCANNING["DeepLesion"].slice_mm, strict=True))
    thin, thick = share[1.0], share[5.0]
    assert sum(share.values()) == pytest.approx(1)
    assert thin == pytest.approx(published["DeepLesion marks on slices of at most 1.25 mm, share"], abs=0.01)
    assert thick == pytest.approx(published["DeepLesion marks on slices of at least 4.5 mm, share"], abs=0.01)


def test_held_out_volumes_do_not_follow_the_seed_and_are_others():
    held_out = held_out_patients(spec(held_out=3), "LiTS")
    assert [p.number for p in held_out] == [800, 801, 802]
    assert {p.studies[0].seed[0] for p in held_out} == {spec().test_seed}
    drawn = single_type_patients(spec(), spec().test_seed, "LiTS")[:3]
    assert [p.lesions for p in held_out] != [p.lesions for p in drawn]
