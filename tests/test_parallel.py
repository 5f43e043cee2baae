"""Several processes compute what one does: torchrun with gloo, the paper's settings at a small size."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lensnb import runfolder
from lensnb.files import read_table
from lensnb.models.norm import SharedBatchNorm2d
from lensnb.training.parallel import part_of_batch

STEPS = 20
LOOKS = {"multi": [23, 30], "baseline": [15, 20]}  # iterations; the joint training has half as many on top
# in float64, where rounding cannot tip a choice among proposals: what differs then differs by design
TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from lensnb import runfolder
from lensnb.datasets.store import Store
from lensnb.models.build import build_lens
from lensnb.models.targets import Target
from lensnb.settings import load_profile
from lensnb.training.detector import Batches, fit_lens
from lensnb.training.experiments import EXPERIMENTS, training_labels
from lensnb.training.loop import Validation
from lensnb.training.parallel import start_processes

turn = iter(range(9))

class Doubles(torch.utils.data.Dataset):
    def __init__(self, batches):
        self.batches = batches
    def __len__(self):
        return len(self.batches)
    def __getitem__(self, t):
        batch = self.batches[t]
        targets = [Target(target.lesions.double(), target.uncertain.double()) for target in batch.targets]
        return replace(batch, slices=batch.slices.double(), targets=targets)

paper = load_profile("paper")
small = dict(growth_rate=4, block_config=(1, 2, 2), stem_channels=8, fpn_channels=8, afp_channels=4, fc_channels=16)
training = replace(paper.training, epochs=0, iterations=STEPS, others=0.5, threads=1, loader_workers=0)
profile = replace(paper, network=replace(paper.network, imagenet=False, hard_negatives=0.5, **small), training=training)
assert not profile.network.freeze_batch_norm and training.batch_size == 4
rank, world = start_processes(1)
store = Store(runfolder.prepared("smoke"))
experiment = EXPERIMENTS[sys.argv[2]]
labels = training_labels(experiment, store, runfolder.Run("smoke"))
torch.manual_seed(0)
model = build_lens(profile.network, experiment.datasets, experiment.proposal_network).double()
batches = Batches(experiment, profile, store, labels, 0, model.backbone.multiple, rank, world)

def score(model):  # worse the second time
    return -float(sum(p.abs().sum() for p in model.parameters())) * 10.0 ** next(turn)

validation = Validation(score, 2, {})
fit_lens(model, Doubles(batches), training, Path(sys.argv[1]), {}, {"name": "test"}, validation=validation)
"""


@pytest.mark.parametrize("experiment", ["multi", "baseline"])
def test_two_and_four_processes_agree_with_one(tiny_store, tmp_path, experiment):
    """Equal to 1e-6 after 15 steps or more; also three, whose parts of a batch differ in size. The best are kept."""
    script = tmp_path / "run.py"
    script.write_text(TRAIN.replace("STEPS", str(STEPS)))
    environment = {**os.environ, "PYTHONPATH": str(runfolder.repository()), "OMP_NUM_THREADS": "1"}
    weights, logs = {}, {}
    for world in (1, 2, 4) if experiment == "multi" else (1, 3):
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"] if world > 1 else []
        run = tmp_path / str(world)
        subprocess.run([sys.executable, *launch, script, run, experiment], env=environment, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        weights[world], logs[world] = load_file(run / "weights.safetensors"), (run / "log.csv").read_text()
        looks = read_table(run / "validation.csv")
        assert looks["iteration"].tolist() == LOOKS[experiment] and looks["kept"].tolist() == [True, False]
    one = weights.pop(1)
    moved = one["backbone.stem.1.running_mean"]
    assert moved.abs().max() > 1e-3, "batch norm learns in these settings"
    for world, several in weights.items():
        for name, value in one.items():
            torch.testing.assert_close(several[name], value, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert logs[world].splitlines()[0] == logs[1].splitlines()[0]
        ours, theirs = (list(map(float, logs[w].splitlines()[1].split(","))) for w in (1, world))
        assert ours == pytest.approx(theirs, abs=2e-6)


def test_parts_of_a_batch():
    assert [part_of_batch(4, rank, 3) for rank in range(3)] == [slice(0, 1), slice(1, 2), slice(2, 4)]
    assert [part_of_batch(8, rank, 2) for rank in range(2)] == [slice(0, 4), slice(4, 8)]
    with pytest.raises(ValueError, match="a batch of 4 images cannot be shared by 5 processes; start 4 at most"):
        part_of_batch(4, 0, 5)


def test_shared_batch_norm_is_torchs_in_one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        ours, torchs = SharedBatchNorm2d(3).double(), torch.nn.BatchNorm2d(3).double()
        x = torch.randn(4, 3, 5, 6, dtype=torch.float64) * 3 + 1
        for norm in (ours, torchs):
            norm.weight.data[:], norm.bias.data[:] = torch.tensor([1.0, 2, 3]), torch.tensor([0.5, 0, -1])
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        first, second = ours(a), torchs(b)
        torch.testing.assert_close(first, second)
        (first**3).sum().backward()
        (second**3).sum().backward()
        torch.testing.assert_close(a.grad, b.grad)
        torch.testing.assert_close(ours.weight.grad, torchs.weight.grad)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(ours, name), getattr(torchs, name))
        torch.testing.assert_close(ours.eval()(x), torchs.eval()(x))
    finally:
        torch.distributed.destroy_process_group()
