"""Settings: every number that differs between a smoke test, the phantom benchmark and the papers, with its type.

A profile is a file in lensnb/profiles/. phantom.yml has all settings, each with a comment; the others name it as their
`base` and hold what they change. A variant of a profile, called <profile>+<name>, is such a file of a user's own in
data/variants/ (see variants.py); everything that takes a profile's name takes a variant's. A function is handed
the section that it needs, so that its signature says which numbers decide about it.
"""

import types
import typing
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path

import yaml

from lensnb.system import root

FOLDER = Path(__file__).parent / "profiles"
NAMES = ("smoke", "phantom", "sealed", "paper")


@dataclass(frozen=True)
class Phantom:
    """What the phantoms are like, and how many of each kind there are."""

    pixels: int
    spacing_mm: tuple[float, ...]
    depth_mm: int
    deeplesion_patients: int
    studies: tuple[float, ...]
    smallest_mm: float
    marking_slope: float
    further_mark: float
    growth_sd: float
    luna_volumes: int
    lits_volumes: int
    nihln_volumes: int
    held_out: int
    val_patients: int
    pretext_patients: int
    pretext_val_patients: int
    test_volumes: int
    test_empty: float
    test_seed: int
    box_padding_px: float
    controls: bool


@dataclass(frozen=True)
class Grid:
    """The grid that all volumes are brought to."""

    spacing_mm: tuple[float, ...]
    box_padding_mm: float
    workers: int


@dataclass(frozen=True)
class Network:
    """LENS's backbone, proposal networks and head, and the grey values that they read."""

    backbone: str
    proposal_network: str
    slices: int
    stride: int
    hu: tuple[int, ...]
    grey: tuple[int, ...]
    subtract: int
    growth_rate: int
    block_config: tuple[int, ...]
    stem_channels: int
    fpn_channels: int
    afp_channels: int
    roi_size: int
    roi_points: int
    sampled: tuple[int, ...]
    hard_negatives: float
    fc_channels: int
    freeze_batch_norm: bool
    imagenet: bool
    proposals: int
    proposals_before_nms: int
    proposal_nms: float
    min_box: float
    rpn_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Pretext:
    """The training whose weights all experiments start from, where there are no ImageNet weights.

    task: organs, blobs or none (see `training/pretext.py`).
    """

    task: str
    iterations: int
    evaluate_every: int
    patience: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class Training:
    """LENS's training."""

    iterations: int
    others: float
    batch_size: int
    learning_rate: float
    schedule: str
    warmup: int
    epochs: int
    weight_decay: float
    gradient_clip: float
    scale: tuple[float, ...]
    shift_mm: float
    crop: tuple[int, ...]
    validations: int
    validation_volumes: int
    threads: int
    checkpoint_every: int
    loader_workers: int
    autocast: bool


@dataclass(frozen=True)
class Inference:
    """From proposals to 3D detections."""

    theta: float
    score: float
    per_slice: int
    nms: float
    trim: float
    slices_at_once: int


@dataclass(frozen=True)
class Mining:
    """The rules by which the three mining strategies choose their thresholds, and the candidates."""

    theta: float
    nearest_only: bool
    trims: tuple[float, ...]
    cross_slice_precision: float
    deltas: tuple[float, ...]
    scores: tuple[float, ...]
    minimum_precision: float
    sigmas: tuple[float, ...]
    uncertain_precision: float
    overlap: float
    nms: float


@dataclass(frozen=True)
class Lesanet:
    """LesaNet's network, training and views of lesions."""

    least_train: int
    patch_mm: int
    patch_px: int
    slice_gap_mm: float
    widths: tuple[int, ...]
    convolutions: tuple[int, ...]
    pooled: int
    features: int
    embedding: int
    imagenet: bool
    iterations: int
    batch_size: int
    views: int
    learning_rate: float
    drops: tuple[float, ...]
    weight_decay: float
    gradient_clip: float
    hard_examples: int
    gamma: float
    triplets: int
    theta: float
    margin: float
    triplet_weight: float
    same_patient: bool
    near: float
    alike_mm: float
    shift_mm: float
    scale: tuple[float, ...]
    slice_shift: float
    box_jitter: float
    gain: float
    noise: float
    checkpoint_every: int


@dataclass(frozen=True)
class Fpr:
    """The 3D false positive reduction network and its training."""

    patch: tuple[int, ...]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    stem_stride: int
    stem_pool: bool
    pooled: int
    features: int
    imagenet: bool
    theta: float
    theta_fp: float
    iobb_fp: float
    cross_fit: bool
    epochs: int
    iterations: int
    batch_size: int
    learning_rate: float
    drops: tuple[float, ...]
    weight_decay: float
    gradient_clip: float
    shift: float
    scale: tuple[float, ...]
    per_volume: int
    checkpoint_every: int


@dataclass(frozen=True)
class Profile:
    """All settings of a profile. `notebooks` holds parameters of single notebooks, by the notebook's name."""

    name: str
    phantom: Phantom
    grid: Grid
    network: Network
    pretext: Pretext
    training: Training
    inference: Inference
    mining: Mining
    lesanet: Lesanet
    fpr: Fpr
    notebooks: dict[str, dict]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # the same, in C where there is one
    """YAML in which a name stands once: PyYAML takes the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        for name in (name for name in names if names.count(name) > 1):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1} and below: {name!r} is there twice")
        return super().construct_mapping(node, deep)


SECTIONS = {field.name: field.type for field in fields(Profile) if is_dataclass(field.type)}


def load_profile(name: str) -> Profile:
    """The settings of a profile, or of a variant <profile>+<name>.

    Raises ValueError for a name that is none, and for a file with an unknown setting or a value of another type: a
    misspelt setting must not silently fall back to a default.
    """
    content = _read(name)
    missing, unknown = _differences(content, {**SECTIONS, "notebooks": dict})
    if missing or unknown:
        raise ValueError(f"profile {name}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    sections = {key: from_dict(kind, content[key], f"profile {name}: {key}") for key, kind in SECTIONS.items()}
    if not isinstance(content["notebooks"], dict):
        raise ValueError(f"profile {name}: notebooks is {content['notebooks']!r}; it must hold notebooks by name")
    return Profile(name=name, notebooks=content["notebooks"], **sections)


def base_of(name: str) -> str:
    """The profile that a variant is one of; a profile's own name."""
    return name.partition("+")[0]


def to_dict(section: object) -> dict:
    """The plain dictionary of a profile or one of its sections, as it goes into a JSON file."""
    return _plain(asdict(section))


def from_dict(kind: type, content: Mapping, where: str) -> object:
    """A section of type `kind` from the names and values of a file; `where` is named in the ValueError."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} is {content!r}; it must hold settings by name")
    wanted = typing.get_type_hints(kind)
    missing, unknown = _differences(content, wanted)
    if missing or unknown:
        raise ValueError(f"{where}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    return kind(**{name: _typed(content[name], wanted[name], f"{where}: {name}") for name in wanted})


def profile_file(name: str) -> Path:
    """The file of a profile, or of a variant, whether it exists or not."""
    if "+" in name:
        return root() / "data" / "variants" / f"{name}.yml"
    return FOLDER / f"{name}.yml"


def _read(name: str) -> dict:
    """The content of a profile's file on top of its base's: section -> setting -> value."""
    if base_of(name) not in NAMES:
        raise ValueError(f"{name!r} is not a profile; choose one of {', '.join(NAMES)}")
    path = profile_file(name)
    if "+" in name and not path.exists():
        raise ValueError(f"{name!r} is no variant of {base_of(name)}: there is no {path}")
    content = read_yaml(path)
    base = content.pop("base", None)
    if base is None:
        return content
    if base not in NAMES or base == name:
        raise ValueError(f"{path}: base is {base!r}; it must be another one of {', '.join(NAMES)}")
    whole = _read(base)
    for section, changed in content.items():
        if section == "notebooks" or section not in whole or not isinstance(changed, dict):
            whole[section] = changed
        else:
            whole[section] = whole[section] | changed
    return whole


@cache
def _parsed(text: str) -> object:
    """What a text says. The plan of the steps asks for the profile at each step; one parsing serves all."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> dict:
    """What a profile's own file says, without its base; ValueError names a file that is missing or broken."""
    try:
        content = deepcopy(_parsed(path.read_text()))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; a profile's settings lie there") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold sections with settings, as phantom.yml does")
    return content


def _differences(content: Mapping, wanted: Mapping) -> tuple[list[str], list[str]]:
    return sorted(wanted.keys() - content.keys()), sorted(map(str, content.keys() - wanted.keys()))


def _typed(value: object, kind: object, where: str) -> object:
    """`value` as `kind`; a whole number may stand for another number, a list becomes a tuple."""
    if isinstance(kind, types.GenericAlias):
        if not isinstance(value, list | tuple) or not all(type(item) in (int, float) for item in value):
            raise ValueError(f"{where} is {value!r}; it must be a list of numbers")
        return tuple(value)
    if type(value) is not kind and (type(value), kind) != (int, float):
        raise ValueError(f"{where} is {value!r}; it must be of type {kind.__name__}")
    return value


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
