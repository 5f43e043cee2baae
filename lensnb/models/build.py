"""LENS from its settings: which part is made of which numbers, and a trained one from its files.

A part is added by a line in BACKBONES or PROPOSAL_NETWORKS, and chosen by `network.backbone` and
`network.proposal_network` of the profile, the latter also by an experiment of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from lensnb.datasets import NAMES, SINGLE_TYPE
from lensnb.files import read_json
from lensnb.models.afp import AFP
from lensnb.models.backbone import Backbone
from lensnb.models.centernet import CenterNet
from lensnb.models.fcos import FCOS
from lensnb.models.heads import DetectionHead
from lensnb.models.lens import LENS
from lensnb.models.one_stage import OneStage
from lensnb.models.rpn import RPN
from lensnb.models.weights import build_trained, device_of_choice
from lensnb.runfolder import CONFIG, WEIGHTS
from lensnb.settings import Network, from_dict


def densenet(network: Network) -> Backbone:
    """The paper's backbone."""
    return Backbone(
        network.slices, network.growth_rate, network.block_config, network.stem_channels, network.fpn_channels,
        network.freeze_batch_norm, network.stride,
    )  # fmt: skip


def afp(backbone: nn.Module, network: Network) -> AFP:
    """The paper's anchor-free proposal network."""
    return AFP(backbone.channels, backbone.stride, network.afp_channels)


def rpn(backbone: nn.Module, network: Network) -> RPN:
    """The baseline's proposal network with anchors."""
    return RPN(backbone.channels, backbone.stride, network.rpn_sizes)


def centernet(backbone: nn.Module, network: Network) -> CenterNet:
    """A rival of the AFP in LENS Table III; as many channels in its branches."""
    return CenterNet(backbone.channels, backbone.stride, network.afp_channels)


def fcos(backbone: nn.Module, network: Network) -> FCOS:
    """A rival of the AFP in LENS Table III and row (d) of Table II; as many channels in its branches."""
    return FCOS(backbone.channels, backbone.stride, network.afp_channels)


BACKBONES = {"densenet": densenet}
PROPOSAL_NETWORKS = {"afp": afp, "rpn": rpn, "centernet": centernet, "fcos": fcos, "fcos-one-stage": fcos}
ONE_STAGE = ("fcos-one-stage",)  # without the detection head


def build_lens(network: Network, experts: Sequence[str], proposal_network: str = "") -> LENS | OneStage:
    """An untrained LENS; experts: the names of its datasets; proposal_network: in place of the settings' one.

    A OneStage, which is called in the same way, for those of ONE_STAGE.
    Raises ValueError for the name of a part that does not exist.
    """
    proposal_network = proposal_network or network.proposal_network
    for name, known, asked_by in (
        (network.backbone, BACKBONES, "network.backbone"),
        (proposal_network, PROPOSAL_NETWORKS, "proposal_network"),
    ):
        if name not in known:
            raise ValueError(f"{asked_by} is {name!r}; choose one of {', '.join(known)}")
    backbone = BACKBONES[network.backbone](network)
    proposal_networks = {expert: PROPOSAL_NETWORKS[proposal_network](backbone, network) for expert in experts}
    if proposal_network in ONE_STAGE:
        return OneStage(backbone, proposal_networks, network)
    # only where every lesion is marked: elsewhere what looks most like a lesion, and is not marked, often is one
    hard = [network.hard_negatives if expert in SINGLE_TYPE else 0.0 for expert in experts]
    head = DetectionHead(
        backbone.channels, backbone.stride, len(experts), network.fc_channels, network.roi_size, network.roi_points,
        network.sampled, hard,
    )  # fmt: skip
    return LENS(backbone, proposal_networks, head, network)


def weights_file(path: Path | str) -> Path:
    """The weights file of a trained LENS, which may be named by its run's folder."""
    path = Path(path)
    return path / WEIGHTS if path.is_dir() or not path.suffix else path


def load_lens(path: Path | str, device: torch.device | str | None = None) -> LENS | OneStage:
    """A trained LENS in eval mode, by its run's folder or its weights file, which config.json lies beside.

    device: None for `weights.device_of_choice`. Raises FileNotFoundError naming the file that is missing, ValueError
    if one is broken or the two do not fit together.
    """
    path = weights_file(path)
    config_path = path.with_name(CONFIG)
    for needed in (path, config_path):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{needed} is {'a folder' if needed.is_dir() else 'missing'}; a finished training run has it as a file"
            )
    config = read_json(config_path)
    try:
        experts = config["datasets"]
        if not isinstance(experts, list) or not experts or len(set(map(str, experts))) < len(experts):
            raise ValueError(f"datasets is {experts!r}; it must list the experts, each once")
        unknown = [expert for expert in experts if expert not in NAMES]
        if unknown:
            raise ValueError(f"datasets has {unknown[0]!r}, which is none of {', '.join(NAMES)}")
        network = from_dict(Network, config["network"], "network")
        with torch.device("meta"):  # without memory and random numbers
            build_lens(replace(network, block_config=(1, 1, 1)), experts, config["proposal_network"])
        layers = sum(network.block_config)
    except Exception as error:
        raise ValueError(f"{config_path} does not describe a network: {type(error).__name__}, {error}") from error
    model = build_trained(
        lambda: build_lens(network, experts, config["proposal_network"]),
        path,
        f"the network that {config_path} describes",
        layers,
        advice="copy both again from the run that made them, or train again",
    )
    # the faster layout for convolutions, as in training
    return model.to(device or device_of_choice(), memory_format=torch.channels_last).eval()
