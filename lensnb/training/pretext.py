"""The initial weights that all experiments share: ImageNet's, or a stand-in for them on phantoms.

The paper starts from DenseNet-121 trained on ImageNet, and so does the `paper` profile. A network small enough for
two CPU cores has no such weights, and would spend most of a short training on learning to see at all. What takes their
place must know as little of lesions as photographs do (`pretext.task`):

* `organs`: which organ is where and how high a slice lies, on scans of people without a lesion (`organs.py`);
* `blobs`: where a soft blob was pasted in, on the training volumes (`blobs.py`); close to the detector's own task, and
  so no neutral start: to be compared with;
* `none`: nothing. Weights stay random; batch norm alone learns its statistics, which the detectors keep
  (`network.freeze_batch_norm`).

The backbone starts every row of every table; after `blobs` the shared FC layers do, too.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from lensnb.datasets import organ_maps
from lensnb.datasets.store import Store
from lensnb.files import read_json
from lensnb.models.build import BACKBONES, build_lens
from lensnb.models.organs import OrganNetwork
from lensnb.models.weights import build_trained, device_of_choice, save_weights
from lensnb.provenance.product import is_made, write_record
from lensnb.provenance.recipe import Recipe, code, values
from lensnb.runfolder import CONFIG, WEIGHTS, Run
from lensnb.settings import Network, Profile, Training, from_dict, load_profile, to_dict
from lensnb.training.blobs import PastedBlobs
from lensnb.training.detector import fit_lens
from lensnb.training.loop import remove_checkpoint
from lensnb.training.norms import learn_statistics
from lensnb.training.organs import OrganSlices, fit_organs
from lensnb.training.parallel import use_threads

STATISTICS_BATCHES = 50  # for batch norm where nothing else is learned


def train_pretext(profile_name: str, seed: int = 0) -> Path:
    """Write the weights `Run.pretext`, resuming an interrupted training; return the folder.

    Raises RuntimeError if the profile asks for ImageNet weights and they cannot be had, ValueError for a task that is
    none, FileNotFoundError if the data of the task are missing.
    """
    profile = load_profile(profile_name)
    run = Run(profile_name, seed)
    use_threads(profile.training.threads)
    torch.manual_seed(seed)
    if profile.network.imagenet:
        from_imagenet(profile.network, run.pretext)
    elif profile.pretext.task not in TASKS:
        raise ValueError(f"pretext.task is {profile.pretext.task!r}; choose one of {', '.join(TASKS)}")
    else:
        TASKS[profile.pretext.task](profile, run)
    return run.pretext.parent


def command(profile_name: str, seed: int) -> Path:
    """The command `pretext`: `train_pretext`, and nothing left to continue from."""
    folder = train_pretext(profile_name, seed)
    for place in (folder, Run(profile_name, seed).organs):
        remove_checkpoint(place)
    return folder


def from_imagenet(network: Network, path: Path) -> None:
    """Write the ImageNet weights of the backbone's trunk.

    Raises ValueError if the backbone knows none, RuntimeError if they cannot be had.
    """
    model = build_lens(network, ["pretext"])
    if not hasattr(model.backbone, "load_imagenet"):
        raise ValueError(
            f"network.imagenet is true, but the backbone {network.backbone} knows no ImageNet weights; set it to "
            "false, and pretext.iterations to the length of the training that takes their place"
        )
    model.backbone.load_imagenet()
    trunk = tuple(f"backbone.{part}" for part in model.backbone.imagenet_parts)
    write_start(path, code([__name__]) | values(network=to_dict(network)), lambda: model, trunk)


def learn_organs(profile: Profile, run: Run) -> None:
    """Train an OrganNetwork until its loss on people held out has settled; its best backbone is the start."""
    network, training, spacing_mm = learning(profile.network), training_of(profile), profile.grid.spacing_mm
    names = organ_maps.organ_names(run.raw)
    model = OrganNetwork(BACKBONES[network.backbone](network), len(names))
    scans, unseen = (organ_maps.read_scans(run.raw, split, spacing_mm, len(names)) for split in ("train", "val"))
    batches = OrganSlices(
        scans, network, training, spacing_mm, run.seed, model.backbone.stride, model.backbone.multiple
    )
    config = {
        "profile": run.profile, "seed": run.seed, "organs": list(names), "network": to_dict(network),
        "pretext": to_dict(profile.pretext),
    }  # fmt: skip
    recipe = code([__name__]) | values(
        network=config["network"], pretext=config["pretext"], training=to_dict(training), spacing_mm=list(spacing_mm),
        seed=run.seed, scans=organ_maps.contents(run.raw),
    )  # fmt: skip
    fit_organs(model, batches, unseen, profile.pretext, run.organs, config, recipe)
    write_start(run.pretext, recipe, lambda: load_organ_network(run.organs)[0], ("backbone.",))


def find_blobs(profile: Profile, run: Run) -> None:
    """Train a detector of pasted blobs for `pretext.iterations`."""
    store, network, training = Store(run.prepared), learning(profile.network), training_of(profile)
    model = build_lens(network, ["pretext"])
    spacing_mm = profile.grid.spacing_mm
    batches = PastedBlobs(network, training, spacing_mm, store, run.seed, model.backbone.multiple)
    config = {"profile": run.profile, "seed": run.seed, "network": to_dict(profile.network)}
    recipe = code([__name__]) | _of_volumes(profile, run, training, batches)
    fit_lens(model, batches, training, run.pretext.parent, config, recipe, kept=("backbone.", "head.fc1.", "head.fc2."))


def learn_nothing(profile: Profile, run: Run) -> None:
    """Random weights with batch norm's statistics on training slices, into which nothing is pasted."""
    store, network, training = Store(run.prepared), learning(profile.network), training_of(profile)
    backbone = BACKBONES[network.backbone](network)
    slices = PastedBlobs(network, training, profile.grid.spacing_mm, store, run.seed, backbone.multiple, most=0)
    recipe = code([__name__]) | _of_volumes(profile, run, training, slices)

    def made() -> nn.Module:
        model = nn.ModuleDict({"backbone": backbone})
        learn_statistics(backbone, (slices[t].slices for t in range(STATISTICS_BATCHES)))
        return model

    write_start(run.pretext, recipe, made, ("backbone.",))


TASKS: dict[str, Callable[[Profile, Run], None]] = {
    "organs": learn_organs, "blobs": find_blobs, "none": learn_nothing
}  # fmt: skip


def learning(network: Network) -> Network:
    """The network as the start is learned: with batch norm that learns, too."""
    return replace(network, freeze_batch_norm=False)


def training_of(profile: Profile) -> Training:
    """The numbers of the detectors' training, with the start's own in place of three of them."""
    own = profile.pretext
    return replace(
        profile.training, iterations=own.iterations, batch_size=own.batch_size, learning_rate=own.learning_rate
    )


def _of_volumes(profile: Profile, run: Run, training: Training, slices: PastedBlobs) -> Recipe:
    return values(
        task=profile.pretext.task, network=to_dict(profile.network), training=to_dict(training),
        spacing_mm=list(profile.grid.spacing_mm), seed=run.seed, volumes=slices.store.contents(slices.volumes),
    )  # fmt: skip


def write_start(path: Path, recipe: Recipe, made: Callable[[], nn.Module], kept: tuple[str, ...]) -> None:
    """Write the start unless it is there and follows from `recipe`; `made` gives the network, `kept` its parts."""
    if not is_made([path], recipe):
        save_weights(made(), path, kept)
        write_record([path], recipe)


def load_organ_network(folder: Path) -> tuple[OrganNetwork, tuple[str, ...]]:
    """The trained OrganNetwork in eval mode, and the names of the organs. Raises ValueError if its files are broken."""
    config = read_json(folder / CONFIG)
    network, names = from_dict(Network, config["network"], "network"), tuple(config["organs"])
    model = build_trained(
        lambda: OrganNetwork(BACKBONES[network.backbone](network), len(names)), folder / WEIGHTS,
        "the network that learned organs", layers=2,
    )  # fmt: skip
    return model.to(device_of_choice(), memory_format=torch.channels_last).eval(), names
