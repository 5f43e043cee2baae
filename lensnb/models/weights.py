"""Weights: read, written, taken from ImageNet; and the one rule for the device that networks run on."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

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


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
