"""Training of LesaNet, of its ablations and of its rivals: one function; `methods` says what is switched on.

LesaNet Sec. 4 and 5.2, Tables 1 and 3. Everything that is random follows from the seed, so a stopped training goes
on to the same weights.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lensnb.datasets.store import Store
from lensnb.lesanet import losses
from lensnb.lesanet.lesions import LabelledLesions
from lensnb.lesanet.methods import METHODS, Method
from lensnb.lesanet.ontology import Ontology
from lensnb.lesanet.rivals import coarse_parts, cues, likeness, sequence_loss, warp_loss
from lensnb.lesanet.targets import Targets, most_specific, training_targets
from lensnb.lesanet.views import random_views
from lensnb.models.lesanet import LesaNet, load_imagenet
from lensnb.models.weights import device_of_choice, weights_fingerprint
from lensnb.provenance.recipe import code, values
from lensnb.settings import Lesanet, Network, Profile, to_dict
from lensnb.streams import Stream, generator
from lensnb.training.loop import Course, fit, stepped, without_decay
from lensnb.training.parallel import use_threads


def train_method(
    name: str, lesions: LabelledLesions, ontology: Ontology, store: Store, profile: Profile, seed: int,
    out_dir: Path,
) -> Path:  # fmt: skip
    """Train one of METHODS on `lesions` and write weights, config.json and log.csv into `out_dir`.

    Lesions without any true label are left out (LesaNet Sec. 5.2). An ontology without labels trains the embedding
    alone, on all lesions (see `method_losses`). A finished training is left alone. The profile's section `lesanet`
    has the numbers, but for those that the method fixes. Raises ValueError if no lesion is left.
    """
    method = METHODS[name]
    config = replace(profile.lesanet, **method.settings)
    use_threads(profile.training.threads)
    targets = targets_of(lesions, method, ontology)
    used = targets.labels.any(1) if ontology.labels else np.ones(len(lesions), dtype=bool)
    if not used.any():
        raise ValueError(f"{out_dir.name}: none of {len(lesions)} lesions has a label to learn from")
    lesions, targets = lesions.select(used), targets.select(used)
    torch.manual_seed(seed)
    model = LesaNet(config, len(ontology.labels))
    if config.imagenet:
        load_imagenet(model)
    model.to(device_of_choice(), memory_format=torch.channels_last)  # the faster layout for convolutions, on CPUs too
    known = LesionBatch.of_all(lesions, targets, ontology)
    weights = losses.label_weights(known.labels)
    optimizer = torch.optim.SGD(without_decay(model, config.weight_decay, bias_factor=2.0), lr=0, momentum=0.9)
    rate_of = stepped(config.learning_rate, config.iterations, config.drops)
    course = Course(rate_of, config.gradient_clip, config.checkpoint_every, quiet_s=20.0)

    def losses_of(network: LesaNet, views: Views) -> dict[str, Tensor]:
        chosen = known.select(views.rows)
        return method_losses(
            network, views.patches, views.boxes, chosen, weights=weights, method=method, config=config,
            generator=torch.Generator().manual_seed(views.seed),
        )  # fmt: skip

    about = {"labels": list(ontology.labels), "method": name, "seed": seed, "lesions": len(lesions), **to_dict(config)}
    learned = [getattr(targets, part).tolist() for part in ("labels", "unknown", "reliable")]
    recipe = code([__name__]) | values(
        network=to_dict(profile.network), method=about, initial_weights=weights_fingerprint(model),
        parts={**asdict(method), "title": ""}, lesions=lesions.table.to_csv(index=False), targets=learned,
        relations=[known_relations.tolist() for known_relations in (ontology.parents, ontology.exclusive)],
        volumes=store.contents(sorted(set(lesions.table["volume"].astype(str)))),
    )  # fmt: skip
    batches = ViewsOfLesions(config, profile.network, store, lesions.table, seed)
    fit(model, batches, losses_of, optimizer, course, out_dir, about, recipe)
    return out_dir


@dataclass(frozen=True)
class Views:
    """A batch: rows of the lesions; patches (n, 3, side, side), boxes (n, 4) in them; a seed for what losses draw."""

    rows: np.ndarray
    patches: Tensor
    boxes: Tensor
    seed: int


class ViewsOfLesions(torch.utils.data.Dataset):
    """The batches of a whole training by iteration number: random views of lesions, each lesion `config.views` times.

    lesions: 2D boxes (volume, z, x1, y1, x2, y2), one row a lesion.
    """

    def __init__(self, config: Lesanet, network: Network, store: Store, lesions: pd.DataFrame, seed: int):
        self.config, self.network, self.store, self.lesions, self.seed = config, network, store, lesions, seed

    def __len__(self) -> int:
        return self.config.iterations

    def __getitem__(self, t: int) -> Views:
        config = self.config
        rows = rows_of_batch(t, len(self.lesions), config.batch_size // config.views, self.seed)
        rows = np.tile(rows, config.views)
        rng = generator(self.seed, Stream.LESANET_VIEWS, t)
        patches, boxes = random_views(self.store, self.lesions.iloc[rows], config, self.network, rng)
        return Views(rows, patches, boxes, int(rng.integers(2**31)))


def targets_of(lesions: LabelledLesions, method: Method, ontology: Ontology) -> Targets:
    """What a method takes for true of training lesions (LesaNet Sec. 4.2 and 5.1); see `training_targets`.

    Published labels come with their parents, and do not say which parents the sentence itself had named. Without
    label expansion only the most specific ones are kept, about half of them; the paper's authors lost 40%.
    """
    relevant, uncertain, parents = lesions.relevant, lesions.uncertain, ontology.parents
    if not method.text_mining:  # every label in the sentence counts, whatever it is said of
        relevant = relevant | uncertain | lesions.irrelevant
    if not method.expansion:
        relevant, uncertain = most_specific(relevant, parents), most_specific(uncertain, parents)
        parents = np.zeros_like(parents)
    targets = training_targets(relevant, uncertain, parents, ontology.exclusive)
    return targets if method.doubt else replace(targets, unknown=np.zeros_like(targets.unknown))


def rows_of_batch(t: int, lesions: int, size: int, seed: int) -> np.ndarray:
    """Rows of the t-th batch of at most `size`: every lesion once an epoch in random order, the rest left over."""
    size = min(size, lesions)
    epoch, place = divmod(t, lesions // size)
    return generator(seed, Stream.LESANET_EPOCH, epoch).permutation(lesions)[place * size : (place + 1) * size]


@dataclass(frozen=True)
class LesionBatch:
    """n views of lesions as tensors: labels 0/1, unknown and reliable bool, (n, C) each.

    lesion, patient, volume and part (n,) are numbers: which lesion a view is of, whose it is, where, and its coarse
    body part. place (n, 3) and size (n, 2) are for the older embedding's likeness (see `rivals`). parents: (C, C) bool.
    """

    labels: Tensor
    unknown: Tensor
    reliable: Tensor
    lesion: Tensor
    patient: Tensor
    volume: Tensor
    part: Tensor
    place: Tensor
    size: Tensor
    parents: Tensor

    @staticmethod
    def of_all(lesions: LabelledLesions, targets: Targets, ontology: Ontology) -> "LesionBatch":
        """All lesions in their order."""
        patient, volume = (pd.factorize(lesions.table[name].astype(str))[0] for name in ("patient", "volume"))
        part = coarse_parts(targets.labels, list(ontology.labels))
        labels = torch.from_numpy(targets.labels.astype(np.float32))
        known = (targets.unknown, targets.reliable, np.arange(len(lesions)), patient, volume, part)
        return LesionBatch(
            labels, *map(torch.from_numpy, known), *cues(lesions.table), torch.from_numpy(ontology.parents)
        )

    def select(self, rows: np.ndarray) -> "LesionBatch":
        """The lesions of some rows."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return LesionBatch(**{name: value if name == "parents" else value[rows] for name, value in fields.items()})


def method_losses(
    model: LesaNet,
    patches: Tensor,
    boxes: Tensor,
    batch: LesionBatch,
    *,
    weights: tuple[Tensor, Tensor],
    method: Method,
    config: Lesanet,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The losses of a batch, by name; their sum is what the method minimises (LesaNet Eq. 5).

    patches (n, 3, side, side), boxes (n, 4) in patch pixels and `batch` have one row for each view of a lesion;
    `weights` are `losses.label_weights` of all training lesions. Without labels (C = 0) the triplet loss is the only
    one, and two lesions are as similar as they are one: two views of it.
    """
    device = next(model.parameters()).device
    combined = model.combine(patches.to(device), boxes.to(device))
    if not batch.labels.shape[1]:
        return {"triplet": _triplet_loss(model.embed(combined), batch, _one_lesion(batch), config, generator)}
    labels, unknown, reliable = (x.to(device) for x in (batch.labels, batch.unknown, batch.reliable))
    weights = tuple(weight.to(device) for weight in weights)
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
        result["triplet"] = _triplet_loss(model.embed(combined), batch, similarity, config, generator)
    return result


def _triplet_loss(
    embedding: Tensor, batch: LesionBatch, similarity: Tensor, config: Lesanet, generator: torch.Generator
) -> Tensor:
    """The weighted triplet loss of unit embeddings (n, d) on triplets drawn by similarity (n, n)."""
    pairs = comparable(batch, config.same_patient)
    triplets = losses.sample_triplets(similarity, pairs, config.triplets, config.theta, generator)
    return config.triplet_weight * losses.triplet_loss(embedding, triplets, config.margin)


def _one_lesion(batch: LesionBatch) -> Tensor:
    """1 where two rows are views of one lesion, else 0: (n, n)."""
    return (batch.lesion[:, None] == batch.lesion[None, :]).float()


def comparable(batch: LesionBatch, same_patient: bool) -> Tensor:
    """Pairs of a batch that may be in a triplet: (n, n) bool, no row with itself.

    Without `same_patient`, lesions of one patient in two volumes are left out: they may be one lesion at two times,
    of which two reports mention different things.
    """
    pairs = ~torch.eye(len(batch.labels), dtype=torch.bool)
    if not same_patient:
        one_patient = batch.patient[:, None] == batch.patient[None, :]
        pairs &= ~(one_patient & (batch.volume[:, None] != batch.volume[None, :]))
    return pairs
