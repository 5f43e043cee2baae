"""A simpler embedding of lesions than LesaNet's: the same network, fewer losses, and no ontology.

Every label that a sentence names for its lesion counts as true and every other one as false; lesions with similar
label sets, and views of one lesion, are drawn together. Mining uses it where LesaNet cannot be trained, since a data
folder lacks the ontology or the labels, and notebook 17 compares the two.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lensnb import runfolder
from lensnb.datasets import UNIVERSAL
from lensnb.datasets.store import Store
from lensnb.files import write_json
from lensnb.lesanet.label_files import read_mined
from lensnb.lesanet.losses import label_similarity, label_weights, sample_triplets, triplet_loss, weighted_cross_entropy
from lensnb.lesanet.report_labels import find_labels
from lensnb.lesanet.views import random_views
from lensnb.models.lesanet import LesaNet
from lensnb.models.weights import best_device
from lensnb.settings import load_profile, to_dict
from lensnb.training.loop import fit, stepped, without_decay


def train_for_profile(profile_name: str, seed: int = 0) -> Path:
    """Train the embedding of a profile into runs/embedding and return that folder; a finished one is left alone.

    It learns from the labels that LesaNet learns from.
    """
    profile = load_profile(profile_name)
    store = Store(runfolder.prepared(profile_name, seed))
    out_dir = runfolder.runs(profile_name, seed) / "embedding"
    return train_embedding(profile, seed, out_dir, store, find_labels(profile_name, seed))


def train_embedding(profile: SimpleNamespace, seed: int, out_dir: Path, store: Store, labels_file: Path | None) -> Path:
    """Train on the marked lesions of DeepLesion's training volumes; write weights, config.json and log.csv.

    A batch holds each of its lesions twice, in two random views; LesaNet has no augmentation, but it has nineteen
    thousand lesions with labels, and a phantom benchmark some hundred. `labels_file`: see `read_labels`.
    """
    if (out_dir / "weights.safetensors").exists():
        print("embedding: already trained")
        return out_dir
    config = profile.embedding
    torch.set_num_threads(profile.training.threads or torch.get_num_threads())
    lesions = store.boxes[store.boxes["volume"].isin(store.volumes.index[store.volumes["split"] == "train"])]
    lesions = lesions[lesions["dataset"] == UNIVERSAL].reset_index(drop=True)
    names, labels = read_labels(labels_file, lesions["lesion"])
    if names and config.labels_required:
        lesions, labels = lesions[labels.any(1)].reset_index(drop=True), labels[labels.any(1)]
    labels = torch.from_numpy(labels.astype("float32"))
    torch.manual_seed(seed)
    model = LesaNet(config, len(names)).to(best_device(), memory_format=torch.channels_last)  # as in LesaNet's
    optimizer = torch.optim.SGD(without_decay(model, config.weight_decay, bias_factor=2.0), lr=0, momentum=0.9)

    def loss_of(t: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, 3, t))
        half = rng.choice(len(lesions), min(config.batch_size // 2, len(lesions)), replace=False)
        rows = np.concatenate([half, half])
        patches, boxes = random_views(store, lesions.iloc[rows], config, profile.network, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        return losses(model, patches, boxes, lesions.iloc[rows], labels[rows], label_weights(labels), config, generator)

    fit(
        model, optimizer, loss_of, stepped(config.learning_rate, config.iterations, config.drops), config.iterations,
        out_dir, "embedding", config.gradient_clip, config.checkpoint_every,
    )  # fmt: skip
    write_json({"labels": names, "seed": seed, "lesions": len(lesions), **to_dict(config)}, out_dir / "config.json")
    return out_dir


def losses(
    model: LesaNet, patches: Tensor, boxes: Tensor, lesions: pd.DataFrame, labels: Tensor,
    weights: tuple[Tensor, Tensor], config: SimpleNamespace, generator: torch.Generator,
) -> dict[str, Tensor]:  # fmt: skip
    """The losses of a batch: the triplet loss, and the cross-entropy before and after score propagation."""
    device = next(model.parameters()).device
    embedding, scores, propagated = model(patches.to(device), boxes.to(device))
    patient, volume, lesion = (
        torch.from_numpy(pd.factorize(lesions[name].astype(str))[0]) for name in ("patient", "volume", "lesion")
    )
    views = (lesion[:, None] == lesion[None, :]).float()
    similarity = label_similarity(labels) if labels.shape[1] else views
    # two lesions of one volume are different; those of two volumes of a patient may be one lesion at two times
    unknown = (patient[:, None] == patient[None, :]) & (volume[:, None] != volume[None, :])
    comparable = ~unknown & ~torch.eye(len(lesions), dtype=torch.bool)
    triplets = sample_triplets(similarity, comparable, config.triplets, config.theta, generator)
    result = {"triplet": config.triplet_weight * triplet_loss(embedding, triplets, config.margin)}
    if scores is not None:
        labels, weights = labels.to(device), tuple(weight.to(device) for weight in weights)
        result["scores"] = weighted_cross_entropy(scores, labels, weights)
        result["propagated"] = weighted_cross_entropy(propagated, labels, weights)
    return result


def read_labels(path: Path | None, lesions: pd.Series) -> tuple[list[str], np.ndarray]:
    """Text-mined labels (LesaNet, Sec. 3) of lesions "dl00042" (row 42 of DL_info.csv): names, 0/1 matrix.

    Reads the relevant and uncertain labels of the training split of a label file (see `label_files`). A lesion that
    the file does not list has no labels. Without a file there are none at all, and two views of one lesion are the
    only pairs that are drawn together; a line says so.
    """
    if path is None:
        print("there are no text-mined labels: the embedding learns from views of lesions alone")
        return [], np.zeros((len(lesions), 0), dtype=bool)
    mined = read_mined(path)
    said = mined.relevant | mined.uncertain
    row_of = {lesion: i for i, lesion in enumerate(lesions)}
    labels = np.zeros((len(lesions), len(mined.labels)), dtype=bool)
    for split, index, own in zip(mined.lesions["split"], mined.lesions["row"], said, strict=True):
        row = row_of.get(f"dl{index:05d}")
        if split == "train" and row is not None:
            labels[row] = own
    used = labels.any(0)
    return [name for name, keep in zip(mined.labels, used, strict=True) if keep], labels[:, used]
