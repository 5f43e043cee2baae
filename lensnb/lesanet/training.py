"""Training of LesaNet, of its ablations and of its rivals: one function; `methods` says what is switched on.

LesaNet, Sec. 4 and 5.2, Tables 1 and 3. Everything that is random follows from the seed, so a stopped training goes
on to the same weights.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lensnb.datasets.store import Store
from lensnb.files import write_json
from lensnb.lesanet import losses
from lensnb.lesanet.lesions import LabelledLesions
from lensnb.lesanet.methods import METHODS, Method
from lensnb.lesanet.ontology import Ontology
from lensnb.lesanet.rivals import coarse_parts, cues, likeness, sequence_loss, warp_loss
from lensnb.lesanet.targets import Targets, most_specific, training_targets
from lensnb.lesanet.views import random_views
from lensnb.models.lesanet import LesaNet, load_imagenet
from lensnb.models.weights import best_device
from lensnb.settings import to_dict
from lensnb.training.loop import fit, stepped, without_decay


def train_method(
    name: str, lesions: LabelledLesions, ontology: Ontology, store: Store, profile: SimpleNamespace, seed: int,
    out_dir: Path,
) -> Path:  # fmt: skip
    """Train one of METHODS on `lesions` and write weights, config.json and log.csv into `out_dir`.

    Lesions without any true label are left out (Sec. 5.2). A finished training is left alone. The profile's section
    `lesanet` has the numbers. Raises ValueError if no lesion is left.
    """
    if (out_dir / "config.json").exists() and (out_dir / "weights.safetensors").exists():
        print(f"{out_dir.name}: already trained")
        return out_dir
    config, method = profile.lesanet, METHODS[name]
    torch.set_num_threads(profile.training.threads or torch.get_num_threads())
    targets = targets_of(lesions, method, ontology)
    used = targets.labels.any(1)
    if not used.any():
        raise ValueError(f"{out_dir.name}: none of {len(lesions)} lesions has a label to learn from")
    lesions, targets = lesions.select(used), targets.select(used)
    torch.manual_seed(seed)
    model = LesaNet(config, len(ontology.labels))
    if config.imagenet:
        load_imagenet(model)
    model.to(best_device(), memory_format=torch.channels_last)  # the faster layout for convolutions, on CPUs too
    batch = Batch.of_all(lesions, targets, ontology)
    weights = losses.label_weights(batch.labels)
    optimizer = torch.optim.SGD(without_decay(model, config.weight_decay, bias_factor=2.0), lr=0, momentum=0.9)

    def loss_of(t: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, 13, t))
        rows = np.tile(rows_of_batch(t, len(lesions), config.batch_size // config.views, seed), config.views)
        patches, boxes = random_views(store, lesions.table.iloc[rows], config, profile.network, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        return method_losses(model, patches, boxes, batch.select(rows), weights, method, config, generator)

    fit(
        model, optimizer, loss_of, stepped(config.learning_rate, config.iterations, config.drops), config.iterations,
        out_dir, out_dir.name, config.gradient_clip, config.checkpoint_every, quiet_s=20.0,
    )  # fmt: skip
    about = {"labels": list(ontology.labels), "method": name, "seed": seed, "lesions": len(lesions)}
    write_json(about | to_dict(config), out_dir / "config.json")
    return out_dir


def targets_of(lesions: LabelledLesions, method: Method, ontology: Ontology) -> Targets:
    """What a method takes for true of training lesions (Sec. 4.2 and 5.1); see `training_targets`.

    Published labels come with their parents, and do not say which parents the sentence itself had named. Without
    label expansion only the most specific ones are kept, about half of them; the paper's authors lost 40%.
    """
    relevant, uncertain, parents = lesions.relevant, lesions.uncertain, ontology.parents
    if not method.text_mining:  # every label in the sentence counts, whatever it is said of
        relevant = relevant | uncertain | lesions.irrelevant
    if not method.expansion:
        relevant, uncertain = most_specific(relevant, parents), most_specific(uncertain, parents)
        parents = np.zeros_like(parents)
    return training_targets(relevant, uncertain, parents, ontology.exclusive)


def rows_of_batch(t: int, lesions: int, size: int, seed: int) -> np.ndarray:
    """Rows of the t-th batch of at most `size`: every lesion once an epoch in random order, the rest left over."""
    size = min(size, lesions)
    epoch, place = divmod(t, lesions // size)
    return np.random.default_rng((seed, 14, epoch)).permutation(lesions)[place * size : (place + 1) * size]


@dataclass(frozen=True)
class Batch:
    """Lesions as tensors: labels (n, C) 0/1; unknown, reliable (n, C) bool; numbers of patient, volume and part (n,).

    parents: (C, C) bool. place (n, 3) and size (n, 2) of the older embedding's likeness; see `rivals`.
    """

    labels: Tensor
    unknown: Tensor
    reliable: Tensor
    patient: Tensor
    volume: Tensor
    part: Tensor
    place: Tensor
    size: Tensor
    parents: Tensor

    @staticmethod
    def of_all(lesions: LabelledLesions, targets: Targets, ontology: Ontology) -> "Batch":
        """All lesions in their order."""
        patient, volume = (pd.factorize(lesions.table[name].astype(str))[0] for name in ("patient", "volume"))
        part = coarse_parts(targets.labels, list(ontology.labels))
        labels = torch.from_numpy(targets.labels.astype(np.float32))
        known = (targets.unknown, targets.reliable, patient, volume, part)
        return Batch(labels, *map(torch.from_numpy, known), *cues(lesions.table), torch.from_numpy(ontology.parents))

    def select(self, rows: np.ndarray) -> "Batch":
        """The lesions of some rows."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Batch(**{name: value if name == "parents" else value[rows] for name, value in fields.items()})


def method_losses(
    model: LesaNet, patches: Tensor, boxes: Tensor, batch: Batch, weights: tuple[Tensor, Tensor], method: Method,
    config: SimpleNamespace, generator: torch.Generator,
) -> dict[str, Tensor]:  # fmt: skip
    """The losses of a batch, by name; their sum is what the method minimises (Eq. 5)."""
    device = next(model.parameters()).device
    labels, unknown, reliable = (x.to(device) for x in (batch.labels, batch.unknown, batch.reliable))
    weights = tuple(weight.to(device) for weight in weights)
    combined = model.combine(patches.to(device), boxes.to(device))
    if method.rival == "older embedding":
        level = likeness(batch.part, batch.place, batch.size, config)
        sequence = sequence_loss(model.embed(combined), level, config.triplets, generator)
        # the labels are read from features that they do not shape
        scores = model.scores(combined.detach())
        return {"sequence": sequence, "scores": losses.weighted_cross_entropy(scores, labels, weights, unknown)}
    scores = model.scores(combined)
    if method.rival == "warp":
        return {"scores": warp_loss(scores, labels, batch.parents.to(device), unknown)}
    result = {"scores": losses.weighted_cross_entropy(scores, labels, weights, unknown)}
    if method.hard_examples:
        settings = (config.hard_examples, config.gamma, generator)
        result["hard_examples"] = losses.hard_example_loss(scores, labels, reliable, *settings)
    if method.propagation:
        propagated = model.propagate(scores)
        result["propagated"] = losses.weighted_cross_entropy(propagated, labels, weights, unknown)
    if method.triplet:
        similarity = losses.label_similarity(batch.labels)
        triplets = losses.sample_triplets(
            similarity, comparable(batch, config.same_patient), config.triplets, config.theta, generator
        )
        triplet = losses.triplet_loss(model.embed(combined), triplets, config.margin)
        result["triplet"] = config.triplet_weight * triplet
    return result


def comparable(batch: Batch, same_patient: bool) -> Tensor:
    """Pairs of a batch that may be in a triplet: (n, n) bool, no row with itself.

    Without `same_patient`, lesions of one patient in two volumes are left out: they may be one lesion at two times,
    of which two reports mention different things.
    """
    pairs = ~torch.eye(len(batch.labels), dtype=torch.bool)
    if not same_patient:
        one_patient = batch.patient[:, None] == batch.patient[None, :]
        pairs &= ~(one_patient & (batch.volume[:, None] != batch.volume[None, :]))
    return pairs
