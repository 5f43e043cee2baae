"""A trained LesaNet's answer for any 2D boxes: embeddings and label scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lensnb.datasets.store import Store
from lensnb.files import read_json
from lensnb.lesanet.views import plain_views
from lensnb.models.lesanet import LesaNet
from lensnb.models.weights import build_trained, device_of_choice, require_finite
from lensnb.runfolder import CONFIG, WEIGHTS
from lensnb.settings import Lesanet, Network, from_dict
from lensnb.system import progress


def load_network(run_dir: Path, make: str) -> tuple[LesaNet, Lesanet]:
    """The trained network of a folder, in eval mode, and its settings.

    FileNotFoundError if it is not there, ValueError if its files are broken or do not fit together; `make` is the
    command that makes it, for the message.
    """
    if not (run_dir / CONFIG).exists():
        raise FileNotFoundError(f"{run_dir} has no trained network; {make} makes it")
    content = read_json(run_dir / CONFIG)
    about = ("labels", "method", "seed", "lesions")
    config = from_dict(Lesanet, {k: v for k, v in content.items() if k not in about}, f"{run_dir / CONFIG}")
    labels = content.get("labels", [])
    if not isinstance(labels, list):
        raise ValueError(f"{run_dir / CONFIG}: labels is {labels!r}; it must be a list of names")
    model = build_trained(
        lambda: LesaNet(config, len(labels)),
        run_dir / WEIGHTS,
        f"the network of {run_dir / CONFIG}",
        sum(config.convolutions),
    )
    return model.to(device_of_choice(), memory_format=torch.channels_last).eval(), config  # as in training


@torch.no_grad()
def predict(
    model: LesaNet,
    store: Store,
    table: pd.DataFrame,
    config: Lesanet,
    network: Network,
    *,
    batch: int = 128,
    label: str = "LesaNet",
    lines: int = 3,
) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings float32 (n, d) and label scores float64 (n, C) of the 2D boxes of `table`.

    table: volume, z, x1, y1, x2, y2. Scores are the sigmoid of the propagated logits; a network without labels has
    none (C = 0). `config` is the network's own (see `load_network`) and says how patches are cut; `network` is the
    profile's section, for its window of HU. `batch` boxes are looked at at once, so memory does not grow with n (about
    2 GB at full size). About `lines` lines of progress are printed, which begin with `label`. FloatingPointError if an
    answer is not finite.
    """
    device = next(model.parameters()).device
    embeddings = np.zeros((len(table), model.embedding.out_features), dtype=np.float32)
    scores = np.zeros((len(table), model.scores.out_features if model.scores else 0))
    order = np.argsort(table["volume"].astype(str).to_numpy(), kind="stable")  # a batch then opens few volumes
    for start in progress(range(0, len(table), batch), label, lines=lines):
        rows = order[start : start + batch]
        patches, boxes = plain_views(store, table.iloc[rows], config, network)
        embedding, _, propagated = model(patches.to(device), boxes.to(device))
        require_finite("embeddings or scores", embedding, *([] if propagated is None else [propagated]))
        embeddings[rows] = embedding.cpu().numpy()
        if propagated is not None:
            scores[rows] = torch.sigmoid(propagated.double()).cpu().numpy()
    return embeddings, scores
