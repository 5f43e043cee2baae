"""LesaNet's network: parameter counts, losses worked out by hand, patches, and what mining asks of it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import map_coordinates

from lensnb import runfolder
from lensnb.lesanet import label_files, prediction, recognition, report_labels
from lensnb.lesanet.losses import label_similarity, label_weights, sample_triplets, triplet_loss
from lensnb.models.lesanet import LesaNet
from lensnb.settings import load_profile
from lensnb.training.loop import Course, fit
from lensnb.training.patches import box_centres, crop, to_patch

SMALL = SimpleNamespace(
    patch_mm=96, patch_px=32, slice_gap_mm=4.0, widths=[4, 6, 8, 8, 8], convolutions=[1, 1, 1, 1, 1], pooled=3,
    features=8, embedding=16,
)  # fmt: skip
NETWORK = load_profile("paper").network


class TinyStore:
    """Ten volumes of two patients with two bright blobs each, all annotated; what lesanet asks of a Store."""

    def __init__(self):
        rng = np.random.default_rng(0)
        names = [f"{i % 2}_{i}" for i in range(10)]
        self.volumes = pd.DataFrame(
            {
                "volume": names,
                "patient": [n[0] for n in names],
                "split": "train",
                "spacing_x_mm": 3.0,
                "spacing_y_mm": 3.0,
                "spacing_z_mm": 4.0,
            }
        ).set_index("volume", drop=False)
        rows, self._hu = [], {}
        for v, name in enumerate(names):
            hu = rng.normal(0, 20, (9, 48, 48))
            for k, (x, y) in enumerate([(14, 14), (32, 30)]):
                hu[3:6, y - 3 : y + 4, x - 2 : x + 3] += 300 * (k + 1)
                rows.append((name, name[0], f"dl{2 * v + k:05d}", 4, x - 2.5, y - 3.5, x + 2.5, y + 3.5))
            self._hu[name] = hu.astype(np.int16)
        self.boxes = pd.DataFrame(rows, columns=["volume", "patient", "lesion", "z", "x1", "y1", "x2", "y2"])
        self.boxes["dataset"] = "DeepLesion"

    def contents(self, volumes):
        return list(volumes)

    def hu(self, volume):
        return self._hu[volume]


def test_full_size_has_the_parameters_of_the_published_network():
    full = SimpleNamespace(
        widths=[64, 128, 256, 512, 512], convolutions=[2, 2, 3, 3, 3], pooled=5, features=256, embedding=256
    )
    model = LesaNet(full, labels=171)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count == {
        "stages": 14_723_136,
        "project": 9_422_080,
        "embedding": 327_936,
        "scores": 219_051,
        "propagate": 29_412,
    }
    model.eval()
    with torch.no_grad():
        embedding, scores, propagated = model(torch.zeros(1, 3, 120, 120), torch.tensor([[50.0, 50.0, 70.0, 75.0]]))
    assert embedding.shape == (1, 256) and scores.shape == propagated.shape == (1, 171)
    assert embedding.norm().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(scores, propagated), "score propagation begins as the identity"


def test_details_come_from_the_box_and_context_from_the_patch():
    torch.manual_seed(0)
    model = LesaNet(SMALL, labels=0).eval()
    captured = {}
    for level, layer in enumerate(model.project):
        layer.register_forward_hook(lambda _, inputs, out, level=level: captured.__setitem__(level, inputs[0].clone()))
    patch = torch.rand(1, 3, 32, 32)
    model(patch, torch.tensor([[13.0, 13.0, 18.0, 18.0]]))
    before = dict(captured)
    model(patch, torch.tensor([[2.0, 2.0, 12.0, 12.0]]))
    assert [torch.equal(before[level], captured[level]) for level in range(5)] == [False, False, False, True, True]


def test_similarity_of_label_sets():
    labels = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    sim = label_similarity(labels)
    assert sim[0, 0] == 3 and sim[0, 1] == pytest.approx(4 / 3) and sim[0, 2] == 0
    assert sim[3, 3] == 0, "two lesions without labels have nothing in common"


def test_triplets_respect_similarity_and_unknown_pairs():
    sim = torch.tensor([[3.0, 2.0, 0.5, 0.0], [2.0, 3.0, 0.5, 0.0], [0.5, 0.5, 3.0, 0.2], [0.0, 0.0, 0.2, 3.0]])
    comparable = ~torch.eye(4, dtype=torch.bool)
    comparable[0, 3] = comparable[3, 0] = False
    anchor, positive, negative = sample_triplets(sim, comparable, 2000, 1.0, torch.Generator().manual_seed(0))
    drawn = set(zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True))
    # row 2 has no sim >= 1: its most similar ones serve; row 3 can only see 1 and 2
    assert drawn == {(0, 1, 2), (1, 0, 2), (1, 0, 3), (2, 0, 3), (2, 1, 3), (3, 2, 1)}


def test_triplet_loss_by_hand():
    angles = torch.tensor([0.0, 60.0, 90.0]).deg2rad()
    embedding = torch.stack([angles.cos(), angles.sin()], dim=1)
    triplets = tuple(torch.tensor([i]) for i in (0, 1, 2))
    # distances 2 sin 30 = 1 and 2 sin 45 = sqrt 2: satisfied by more than the margin; turned round it is violated
    assert triplet_loss(embedding, triplets, 0.1).item() == 0
    turned = (triplets[0], triplets[2], triplets[1])
    assert triplet_loss(embedding, turned, 0.1).item() == pytest.approx(2**0.5 - 1 + 0.1, abs=1e-5)


def test_label_weights_by_hand():
    labels = torch.zeros(1000, 2)
    labels[:250, 0] = 1
    labels[:1, 1] = 1
    positive, negative = label_weights(labels)
    assert positive.tolist() == [2.0, 300.0]  # 1000 / 500; 1000 / 2 is cut at 300
    assert negative.tolist() == pytest.approx([1000 / 1500, 1000 / 1998])


def test_crop_puts_the_centre_in_the_middle_and_repeats_the_border():
    hu = np.arange(3 * 8 * 10).reshape(3, 8, 10).astype(np.int16)  # hu[z, y, x] = 80 z + 10 y + x
    patch = crop(hu, np.array([[4.0, 3.0, 1.0]]), (3, 3, 5), np.array([[1.0, 1.0, 1.0]]))[0]
    assert np.array_equal(patch, hu[0:3, 2:5, 2:7])
    between = crop(hu, np.array([[4.5, 3.25, 1.0]]), (1, 1, 1), np.array([[1.0, 1.0, 1.0]]))[0]
    assert between.item() == pytest.approx(80 + 32.5 + 4.5)
    corner = crop(hu, np.array([[0.0, 0.0, 0.0]]), (1, 3, 3), np.array([[2.0, 2.0, 1.0]]))[0, 0]
    assert corner.tolist() == [[0, 0, 2], [0, 0, 2], [20, 20, 22]]


def test_crop_interpolates_as_scipy_does():
    rng = np.random.default_rng(0)
    hu = rng.integers(-1024, 3000, (5, 30, 40)).astype(np.int16)
    centres, step = rng.uniform(-3, 43, (6, 3)), rng.uniform(0.3, 2.5, (6, 3))
    centres[:, 2] = [0, 2, 4, 1, 3, 2]
    step[:, 2] = 1
    patches = crop(hu, centres, (3, 16, 20), step)
    assert patches.dtype == np.float32
    for patch, (x, y, z), (step_x, step_y, _) in zip(patches, centres, step, strict=True):
        grid = np.meshgrid([z - 1, z, z + 1], y + step_y * (np.arange(16) - 7.5), x + step_x * (np.arange(20) - 9.5),
                           indexing="ij")  # fmt: skip
        expected = map_coordinates(hu.astype(float), grid, order=1, mode="nearest")
        np.testing.assert_allclose(patch, expected, atol=0.01)


def test_crop_takes_every_slice_once_where_the_centre_lies_between_two():
    hu = np.repeat(np.arange(9, dtype=np.int16), 4).reshape(9, 2, 2)
    centre = np.array([[0.0, 0.0, 3.5]])
    for size, expected in ((3, [3, 4, 5]), (4, [2, 3, 4, 5])):
        assert crop(hu, centre, (size, 1, 1), np.ones((1, 3)))[0, :, 0, 0].tolist() == expected


def test_boxes_in_their_patches():
    table = pd.DataFrame({"x1": [10.0], "y1": [20.0], "x2": [14.0], "y2": [30.0], "z": [2]})
    centres = box_centres(table)
    assert centres.tolist() == [[12.0, 25.0, 2.0]]
    # 21 pixels, two grid pixels apart: the centre is pixel 10
    assert to_patch(table, centres, np.array([[2.0, 2.0, 1.0]]), 21).tolist() == [[9.0, 7.5, 11.0, 12.5]]


def test_a_missing_network_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m lensnb lesanet"):
        prediction.load_network(tmp_path, "`python -m lensnb lesanet`")


def test_a_short_training_says_little(tmp_path, capsys):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0)

    for quiet_s, lines in ((0.0, 10), (60.0, 1)):
        course = Course(lambda t: 0.0, gradient_clip=1.0, checkpoint_every=1000, quiet_s=quiet_s)
        ones = [torch.ones(1, 1)] * 100
        fit(
            model,
            ones,
            lambda module, x: {"loss": module(x).sum()},
            optimizer,
            course,
            tmp_path / str(lines) / "x",
            {},
            {},
        )
        said = capsys.readouterr().out.splitlines()
        assert len(said) == lines and said[-1].startswith("x: iteration 100/100")


def test_lesanet_needs_an_ontology_and_something_to_learn_from(tmp_path, monkeypatch, capsys):
    """Without one of the two, mining uses the simpler embedding, and says so."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    folder = runfolder.raw("smoke") / "DeepLesion"
    folder.mkdir(parents=True)
    monkeypatch.setattr(recognition, "_load", lambda name, command, *rest: (name, command))
    monkeypatch.setattr(recognition.study, "train_for_profile", lambda *arguments: None)
    monkeypatch.setattr(recognition, "train_simpler", lambda *arguments: None)
    found = [recognition.for_mining("smoke")]
    assert "lacks LesaNet's ontology or labels" in capsys.readouterr().out
    for name in ("lesion_ontology.csv", "sentences.csv"):
        (folder / name).touch()
        found.append(recognition.for_mining("smoke"))
    assert [name for name, _ in found] == ["simpler", "simpler", "LesaNet"]
    capsys.readouterr()
    (folder / "lesion_ontology.csv").unlink()
    assert not label_files.has_labels(folder)
    assert report_labels.find_labels("smoke") is None, "sentences are of no use without the words to look for"
    (folder / "lesion_ontology_181022.xlsx").touch()
    (folder / "sentences.csv").rename(folder / label_files.PUBLISHED)
    assert recognition.for_mining("smoke") == ("LesaNet", "lesanet") and not capsys.readouterr().out
    (folder / label_files.PUBLISHED).unlink()
    assert report_labels.find_labels("smoke") is None and recognition.for_mining("smoke")[0] == "simpler"
