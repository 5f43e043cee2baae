"""What is trained: LesaNet and its rivals for the paper's Tables 1 and 3 and Fig. 5, and a simpler embedding.

One row of METHODS says how a network is trained; `training.train_method` does it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Method:
    """One row of LesaNet Table 1, or another embedding: which parts of LesaNet are used, or what takes their place.

    expansion: parents of true labels are true. hard_examples: RHEM. propagation: SPL. triplet: the multilabel triplet
    loss. text_mining: irrelevant labels of a sentence are left out. doubt: what an uncertain label implies is neither
    true nor false; without it, everything that is not true is false. rival: "" for the weighted cross-entropy, "warp",
    or "older embedding". settings: what the method fixes of the profile's section `lesanet`, whatever stands there.
    """

    title: str
    expansion: bool = True
    hard_examples: bool = True
    propagation: bool = True
    triplet: bool = True
    text_mining: bool = True
    doubt: bool = True
    rival: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)


def _plain(title: str, **switches: bool | str) -> Method:
    """A method with all of LesaNet's parts off but those given; irrelevant labels of a sentence are still left out."""
    off = dict.fromkeys(("expansion", "hard_examples", "propagation", "triplet"), False)
    return Method(title, **(off | switches))


TWO_RANDOM_VIEWS = {
    "views": 2, "same_patient": False, "shift_mm": 8.0, "scale": (0.9, 1.1), "slice_shift": 0.25, "box_jitter": 0.08,
    "gain": 0.05, "noise": 0.06,
}  # fmt: skip
METHODS = {
    "cnn": _plain("Multiscale multilabel CNN"),
    # its rank of a parent below its child means something only if parents are labels
    "warp": _plain("WARP", expansion=True, rival="warp"),
    "older": _plain("Lesion embedding", expansion=True, rival="older embedding"),
    "lesanet": Method("LesaNet"),
    "without-propagation": Method("w/o score propagation layer", propagation=False),
    "without-hard-examples": Method("w/o RHEM", hard_examples=False),
    "without-expansion": Method("w/o label expansion", expansion=False),
    "without-text-mining": Method("w/o text-mining module", text_mining=False),
    "without-triplet": Method("w/o triplet loss", triplet=False),
    "cnn-expansion": _plain("CNN + label expansion", expansion=True),
    "cnn-hard-examples": _plain("CNN + RHEM", hard_examples=True),
    "cnn-propagation": _plain("CNN + score propagation layer", propagation=True),
    "cnn-triplet": _plain("CNN + triplet loss", triplet=True),
    # what mining uses where LesaNet has nothing to learn from, and what notebook 17 compares LesaNet with: every label
    # that a sentence names is true, every other one false. Without any labels, two random views of one lesion are all
    # that tells which lesions are alike, so it has random views where the paper's LesaNet has none
    "simpler": Method("Simpler embedding", hard_examples=False, doubt=False, settings=TWO_RANDOM_VIEWS),
}
TABLE1 = tuple(METHODS)[:9]
TABLE3 = TABLE1[3:]  # LesaNet and its five ablations
# the plain CNN with one of LesaNet's parts: which of them closes how much of the gap between the two; not in the paper
CONTROLS = ("cnn-expansion", "cnn-hard-examples", "cnn-propagation", "cnn-triplet")
PARTS = (1 / 3, 2 / 3)  # of the labels, the most frequent ones; LesaNet Fig. 5


@dataclass(frozen=True)
class MethodRun:
    """One training: a method, a split of the training and validation patients (0 is the label file's own), and which
    part of the labels, the most frequent ones."""

    method: str
    split: int = 0
    part: float = 1.0


def runs(splits: int) -> dict[str, MethodRun]:
    """All trainings by name: TABLE1, CONTROLS, TABLE3 on further splits (`splits` in all), and LesaNet on parts of the
    labels."""
    found = {name: MethodRun(name) for name in (*TABLE1, *CONTROLS)}
    found |= {f"{name}-split{k}": MethodRun(name, split=k) for k in range(1, splits) for name in TABLE3}
    return found | {f"lesanet-part{k}": MethodRun("lesanet", part=part) for k, part in enumerate(PARTS, start=1)}
