"""Weights: read, written, taken from ImageNet; and the one rule for the device that networks run on."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lensnb.files import atomic_write

Network = TypeVar("Network", bound=nn.Module)


def read_weights(path: Path, network: str, advice: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    ValueError says why a file cannot be `network`, and gives `advice`: it is no such file or cut off, holds a value
    that is not finite, or a matrix or kernel whose values are all the same, as a hole in a file of zeros is.
    """
    try:
        weights = load_file(path)
    except Exception as error:
        raise ValueError(f"{path} does not hold {network} ({first_words(error)}); {advice}") from error
    require_sound(weights, path, advice)
    return weights


def require_sound(weights: Mapping[str, Tensor], source: Path | str, advice: str) -> None:
    """ValueError, which names `source` and a tensor and gives `advice`, if values are not finite or all the same.

    Comparisons with such numbers are false, so a damaged network would say that there is nothing. Biases and norms may
    be all the same, but no random start or training makes a weight of two or more dimensions so.
    """
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        wrong = value.numel() - int(torch.isfinite(value).sum())
        if wrong:
            raise ValueError(f"{source}: {wrong} of {value.numel()} values of {name} are not finite; {advice}")
        if value.ndim > 1 and value.numel() > 1 and bool((value == value.flatten()[0]).all()):
            raise ValueError(f"{source}: all values of {name} are {float(value.flatten()[0]):g}; {advice}")


def require_finite(what: str, *parts: Tensor) -> None:
    """FloatingPointError if a number that a network computed is not finite; `what` are these numbers."""
    if not all(bool(torch.isfinite(part).all()) for part in parts):
        raise FloatingPointError(
            f"the network's {what} are not finite; its weights are damaged or do not fit the grey values "
            "(network.hu, network.grey): take other weights, or train again"
        )


def build_trained(
    build: Callable[[], Network], path: Path, network: str, layers: int, advice: str = "delete it to have it made again"
) -> Network:
    """The network that `build` makes, with the weights of a file. `layers`: how many `build` makes at least.

    The weights are compared with a network without memory first, because a config.json may ask for layers of any size.
    ValueError says what is wrong with the file, as `read_weights` does, or that it is of another network.
    """
    weights = read_weights(path, network, advice)
    if layers > len(weights):
        raise ValueError(f"{path} does not hold {network} ({len(weights)} tensors for {layers} layers); {advice}")
    try:
        with torch.device("meta"):
            build().load_state_dict(weights, assign=True)
        model = build()
        model.load_state_dict(weights)
    except Exception as error:
        raise ValueError(f"{path} does not hold {network} ({first_words(error)}); {advice}") from error
    return model


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
        weights = published.get_state_dict(progress=True)
    except Exception as error:
        raise RuntimeError(
            f"the ImageNet weights of {network} cannot be had ({error}); download {published.url.rsplit('/', 1)[-1]} "
            "from the PyTorch model zoo into the folder `checkpoints` below torch.hub.get_dir(), or set "
            f"{switch}: false in the profile"
        ) from error
    file = published.url.rsplit("/", 1)[-1]
    require_sound(weights, file, f"delete it from `checkpoints` below torch.hub.get_dir() ({torch.hub.get_dir()})")
    return weights


def weights_fingerprint(model: nn.Module) -> str:
    """A short text that is the same only for the same weights."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def initialise(model: nn.Module, weights: Path) -> None:
    """Start from the initial weights that all experiments share: ImageNet's or the pretext task's (see pretext.py).

    FileNotFoundError if they are missing, ValueError if they are no sound weights of this network.
    """
    advice = "delete it to make it again"
    if not weights.exists():
        raise FileNotFoundError(f"{weights} is missing; `python -m lensnb pretext` makes it")
    start = read_weights(weights, "the weights to start from", advice)
    try:
        unexpected = model.load_state_dict(start, strict=False).unexpected_keys
    except Exception as error:  # of another size
        raise ValueError(f"{weights}: {first_words(error)}; {advice}") from error
    if unexpected:
        raise ValueError(f"{weights} does not fit the network, which has no {unexpected[0]}; {advice}")


def save_weights(model: nn.Module, path: Path, prefixes: tuple[str, ...] = ("",)) -> None:
    """Write the weights whose names start with one of `prefixes` as safetensors, atomically."""
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if k.startswith(prefixes)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(weights))  # safetensors' own writing has an error of its own for a full disk
