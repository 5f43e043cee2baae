"""Weights: read, written, taken from ImageNet; and the one rule for the device that networks run on."""

import hashlib
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lensnb.files import atomic_write


def load_weights(model, path: Path, network: str = "its network", advice: str = "; delete it to make it again") -> None:
    """Load a safetensors file into a network (torch's).

    ValueError names a file that is cut off or of another network than `network`, and gives `advice`.
    """

    try:
        model.load_state_dict(load_file(path))
    except Exception as error:
        raise ValueError(f"{path} does not hold {network} ({first_words(error)}){advice}") from error


def first_words(error: Exception, length: int = 160) -> str:
    """What an error of torch begins with; all of it can be pages."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]}..."


def device_of_choice() -> torch.device:
    """The one rule for where networks run: on the GPU if there is one, of several on the process' own.

    torchrun numbers the processes of a machine by LOCAL_RANK, from 0 on each machine.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def imagenet_weights(published, network: str, switch: str) -> dict[str, Tensor]:
    """The state dict of one of torchvision's weights; `switch` is the profile's entry that asks for them.

    Raises RuntimeError, which says what to do, if they cannot be had.
    """
    try:
        return published.get_state_dict(progress=True)
    except Exception as error:
        raise RuntimeError(
            f"the ImageNet weights of {network} cannot be had ({error}); download {published.url.rsplit('/', 1)[-1]} "
            "from the PyTorch model zoo into the folder `checkpoints` below torch.hub.get_dir(), or set "
            f"{switch}: false in the profile"
        ) from error


def weights_fingerprint(model: nn.Module) -> str:
    """A short text that is the same only for the same weights."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def initialise(model: nn.Module, weights: Path) -> None:
    """Start from the initial weights that all experiments share: ImageNet's or the pretext task's (see pretext.py)."""
    if not weights.exists():
        raise FileNotFoundError(f"{weights} is missing; `python -m lensnb pretext` makes it")
    try:
        unexpected = model.load_state_dict(load_file(weights), strict=False).unexpected_keys
    except Exception as error:  # cut off, no weights, or of another size
        raise ValueError(f"{weights}: {first_words(error)}; delete it to make it again") from error
    if unexpected:
        raise ValueError(
            f"{weights} does not fit the network, which has no {unexpected[0]}; delete it to make it again"
        )


def save_weights(model: nn.Module, path: Path, prefixes: tuple[str, ...] = ("",)) -> None:
    """Write the weights whose names start with one of `prefixes` as safetensors, atomically."""
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if k.startswith(prefixes)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(weights))  # safetensors' own writing has an error of its own for a full disk
