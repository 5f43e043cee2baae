"""Several processes compute what one does: torchrun with gloo, the paper's settings at a small size."""

import os
import subprocess
import sys
from pathlib import Path

import parallel_training
import pytest
import torch
from safetensors.torch import load_file

from lensnb import runfolder
from lensnb.files import read_table
from lensnb.models.norm import SharedBatchNorm2d
from lensnb.training.parallel import part_of_batch

LOOKS = {"multi": [23, 30], "baseline": [15, 20]}  # iterations; the joint training has half as many on top
TRAINING = Path(parallel_training.__file__)


def run(*command: str | Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(runfolder.repository()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("experiment", ["multi", "baseline"])
def test_two_and_four_processes_agree_with_one(tiny_store, tmp_path, experiment):
    """Equal to 1e-6 after 15 steps or more; also three, whose parts of a batch differ in size. The best are kept.

    Two are started by torchrun, as a user does, the others here.
    """
    worlds = [1, 2, 4] if experiment == "multi" else [1, 3]
    run(TRAINING, tmp_path, experiment, *(str(world) for world in worlds if world != 2))
    if 2 in worlds:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        run(*launch, TRAINING, tmp_path, experiment)
    weights, logs = {}, {}
    for world in worlds:
        folder = tmp_path / str(world)
        weights[world], logs[world] = load_file(folder / "weights.safetensors"), (folder / "log.csv").read_text()
        looks = read_table(folder / "validation.csv")
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
