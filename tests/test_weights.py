"""Weights are looked at when they are read: damaged ones are refused, whichever network they are for."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lensnb.datasets import NAMES
from lensnb.files import write_json
from lensnb.lesanet.prediction import load_network
from lensnb.models import weights as weights_module
from lensnb.models.build import build_lens, load_lens
from lensnb.models.fpr import FPR
from lensnb.models.lesanet import LesaNet
from lensnb.models.weights import imagenet_weights, initialise, require_sound, save_weights
from lensnb.settings import load_profile, to_dict
from lensnb.training.false_positives import load_fpr
from lensnb.training.loop import Progress, restore, save_checkpoint

PROFILE = load_profile("smoke")


def lens(folder):
    config = {"datasets": list(NAMES), "proposal_network": "afp", "network": to_dict(PROFILE.network)}
    return build_lens(PROFILE.network, NAMES), config, lambda: load_lens(folder)


def fpr(folder):
    return FPR(PROFILE.fpr), {"proposals": {}, "seed": 0, **to_dict(PROFILE.fpr)}, lambda: load_fpr(folder)


def lesanet(folder):
    content = {"labels": ["a", "b"], **to_dict(PROFILE.lesanet)}
    return LesaNet(PROFILE.lesanet, 2), content, lambda: load_network(folder, "x")


def embedding(folder):
    return LesaNet(PROFILE.lesanet, 0), to_dict(PROFILE.lesanet), lambda: load_network(folder, "x")


def pretext(folder):
    model = build_lens(PROFILE.network, NAMES)
    return model, {}, lambda: initialise(model, folder / "weights.safetensors")


NETWORKS = {"LENS": lens, "FPR": fpr, "LesaNet": lesanet, "embedding": embedding, "pretext": pretext}


def saved(make, folder):
    model, config, load = make(folder)
    save_weights(model, folder / "weights.safetensors")
    write_json(config, folder / "config.json")
    load()
    return load


def damaged(folder, change) -> str:
    """Change the last kernel or matrix of the weights; return its name."""
    path = folder / "weights.safetensors"
    content = load_file(path)
    name = [name for name, value in content.items() if value.ndim > 1][-1]
    content[name] = change(content[name].clone())
    save_file(content, path)
    return name


def one(value):
    def change(tensor):
        tensor.view(-1)[tensor.numel() // 2] = value
        return tensor

    return change


DAMAGE = {
    "NaN": (one(float("nan")), "1 of [0-9]+ values of NAME are not finite"),
    "infinite": (one(float("inf")), "1 of [0-9]+ values of NAME are not finite"),
    "all NaN": (lambda tensor: tensor * float("nan"), "values of NAME are not finite"),
    "zeros": (torch.zeros_like, "all values of NAME are 0"),
    "another shape": (lambda tensor: torch.randn(3, 5), "does not .*size mismatch|size mismatch for NAME"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("network", NETWORKS)
def test_damaged_weights_are_refused(network, damage, tmp_path):
    load = saved(NETWORKS[network], tmp_path)
    change, message = DAMAGE[damage]
    name = damaged(tmp_path, change)
    with pytest.raises(ValueError, match=message.replace("NAME", re.escape(name))) as raised:
        load()
    assert "weights.safetensors" in str(raised.value)
    assert re.search("; delete it to |; copy both again .* or train again", str(raised.value))


@pytest.mark.parametrize("content", [b"", b"volume,x1\na,1\n", b"\x89PNG\r\n\x1a\n" * 9, b"\xff" * 64])
@pytest.mark.parametrize("network", NETWORKS)
def test_files_that_are_no_weights_are_refused(network, content, tmp_path):
    load = saved(NETWORKS[network], tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="weights.safetensors does not hold the (network|weights)"):
        load()


def huge(folder, **numbers):
    """A config.json that asks for layers which no memory holds, or more of them than there is time for."""
    network = to_dict(replace(PROFILE.network, **numbers))
    write_json({"datasets": list(NAMES), "proposal_network": "afp", "network": network}, folder / "config.json")


@pytest.mark.parametrize(
    "numbers",
    [
        {"fc_channels": 10**8}, {"fpn_channels": 10**9}, {"roi_size": 10**6}, {"block_config": (10**9, 10**9, 10**9)},
        {"growth_rate": 10**7}, {"stem_channels": 0}, {"afp_channels": -3}, {"block_config": (1, 1)},
    ],
)  # fmt: skip
def test_layers_that_the_weights_do_not_have_take_no_memory(numbers, tmp_path):
    saved(lens, tmp_path)
    huge(tmp_path, **numbers)
    with pytest.raises(ValueError, match="config.json"):
        load_lens(tmp_path)


def test_a_second_network_may_not_be_huge_either(tmp_path):
    load = saved(fpr, tmp_path)
    for change in ({"widths": [10**9] * 4}, {"blocks": [10**9] * 4}):
        write_json({"proposals": {}, "seed": 0, **to_dict(PROFILE.fpr)} | change, tmp_path / "config.json")
        with pytest.raises(ValueError, match="does not hold the network of .*config.json"):
            load()


def test_a_damaged_checkpoint_is_refused(tmp_path):
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.RAdam(model.parameters())
    model.weight.data[1, 1] = float("nan")
    save_checkpoint(tmp_path / "checkpoint.pt", model, optimizer, Progress(done=1), "this")
    with pytest.raises(ValueError, match="1 of 9 values of weight are not finite.* delete it to start this training"):
        restore(tmp_path / "checkpoint.pt", model, optimizer, "this")


def test_damaged_imagenet_weights_are_refused():
    class Published:
        url = "https://download.pytorch.org/models/densenet121-a639ec97.pth"

        @staticmethod
        def get_state_dict(progress):
            return {"features.conv0.weight": torch.full((2, 2), float("nan"))}

    with pytest.raises(ValueError, match="densenet121-a639ec97.pth: 4 of 4 values of .*delete it from"):
        imagenet_weights(Published, "DenseNet-121", "network.imagenet")


def test_biases_and_counters_may_be_all_the_same():
    sound = {"bias": torch.zeros(5), "norm": torch.ones(5), "number": torch.tensor(0), "one": torch.ones(1, 1)}
    require_sound(sound, "file", "advice")
    require_sound({"integers": torch.zeros(3, 3, dtype=torch.long)}, "file", "advice")


def test_numbers_that_overflow_are_an_error_and_not_an_empty_result(tmp_path):
    """Finite weights, so large that what the network computes with them is not finite."""
    model = build_lens(PROFILE.network, NAMES).eval()
    slices = torch.randn(1, 9, 32, 32) * 30
    model(slices)
    for part in (model.backbone.fuse_final, model.proposal_networks[0].size[0], model.head.fc1):
        kept = part.weight.data.clone()
        part.weight.data *= 1e38
        part.weight.data *= 1e2
        part.weight.data.clamp_(-3e38, 3e38)
        with pytest.raises(FloatingPointError, match="are not finite; its weights are damaged"):
            model(slices)
        part.weight.data.copy_(kept)
    model(slices)
    assert weights_module.require_finite("x", torch.zeros(2)) is None
