"""A trained LesaNet's answer for any 2D boxes: embeddings and label scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lensnb.datasets.store import Store
from lensnb.files import read_json
from lensnb.lesanet.views import plain_views
from lensnb.models.lesanet import LesaNet
from lensnb.models.weights import device_of_choice, load_weights
from lensnb.runfolder import CONFIG, WEIGHTS
from lensnb.settings import Lesanet, Network, from_dict
from lensnb.system import progress


def load_network(run_dir: Path, make: str) -> tuple[LesaNet, Lesanet]:
    """The trained network of a folder, in eval mode, and its settings.

    FileNotFoundError if it is not there; `make` is the command that makes it, for the message.
    """
    if not (run_dir / CONFIG).exists():
        raise FileNotFoundError(f"{run_dir} has no trained network; {make} makes it")
    content = read_json(run_dir / CONFIG)
    about = ("labels", "method", "seed", "lesions")
    config = from_dict(Lesanet, {k: v for k, v in content.items() if k not in about}, f"{run_dir / CONFIG}")
    model = LesaNet(config, len(content.get("labels", ())))
    load_weights(model, run_dir / WEIGHTS)
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
    profile's section, for its window of HU. `batch` boxes are looked at at once. About `lines` lines of progress are
    printed, which begin with `label`.
    """
    device = next(model.parameters()).device
    embeddings = np.zeros((len(table), model.embedding.out_features), dtype=np.float32)
    scores = np.zeros((len(table), model.scores.out_features if model.scores else 0))
    order = np.argsort(table["volume"].astype(str).to_numpy(), kind="stable")  # a batch then opens few volumes
    for start in progress(range(0, len(table), batch), label, lines=lines):
        rows = order[start : start + batch]
        patches, boxes = plain_views(store, table.iloc[rows], config, network)
        embedding, _, propagated = model(patches.to(device), boxes.to(device))
        embeddings[rows] = embedding.cpu().numpy()
        if propagated is not None:
            scores[rows] = torch.sigmoid(propagated.double()).cpu().numpy()
    return embeddings, scores
