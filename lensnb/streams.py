"""Random streams: one table of everything that is drawn at random, so that no two draws share their numbers.

A number follows from the run's seed, its stream, and where in the stream it stands (an iteration, an epoch, a
patient), and from nothing else: a stopped run goes on as if undisturbed, and several processes draw what one would.
The phantoms' files have seeds of their own, (benchmark, group, patient, study), and streams of their own below.
"""

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """What is drawn. Numbers are never used again for something else."""

    SPLIT = 1  # training and validation patients of a dataset; its place among the datasets
    SCHEDULE = 2  # which dataset each batch comes from
    EPOCH = 3  # slices that an epoch of a dataset visits; dataset, epoch
    AUGMENTATION = 4  # scale, shift and crop of an image; iteration, image
    PROPOSALS = 5  # anchors and proposals in the losses of an image; iteration, image
    BLOBS = 6  # pasted blobs of the pretext task "blobs"; iteration
    FPR_EPOCH = 7  # proposals that an epoch of the 3D classifier sees; epoch
    FPR_VIEWS = 8  # moved and scaled patches; iteration
    LESANET_EPOCH = 9  # lesions of LesaNet's epochs; epoch
    LESANET_VIEWS = 10  # views of a batch of lesions, and what its losses draw; iteration
    LESANET_SPLIT = 11  # patients of LesaNet's further splits
    LESANET_BOOTSTRAP = 12  # patients drawn for its intervals
    MATCHING_BOOTSTRAP = 13  # patients drawn for comparing two embeddings
    FROC_BOOTSTRAP = 14  # patients drawn for the intervals of sensitivities; their number
    LUNA_BOOTSTRAP = 15  # scans drawn for LUNA16's intervals; their number
    JITTER = 16  # places of dots in a chart
    BLOB_PROPOSALS = 17  # proposals in the losses of the pretext task "blobs"; iteration, image
    ORGAN_SLICES = 24  # slices of the pretext task "organs", their scale, shifts and order; iteration
    AUC_BOOTSTRAP = 25  # patients drawn for the intervals of experts' specificity; their number


@unique
class PhantomStream(IntEnum):
    """What is drawn for one study of a phantom, besides its anatomy and lesions; see `lensnb.phantom`."""

    CONTRAST_AND_NOISE = 5
    FILES = 9  # slice intervals and names in a dataset's own layout
    FILE_ORDER = 11
    UIDS = 16
    SENTENCE = 41
    OTHER_SENTENCE = 42
    MARKING = 77  # which lesions the radiologist marks
    LOOKALIKES = 78  # normal things that look like lesions; of a person, not of a study


def generator(seed: int, stream: Stream, *place: int) -> np.random.Generator:
    """numpy's generator for a place in a stream."""
    return np.random.default_rng(_sequence(seed, stream, place))


def number(seed: int, stream: Stream, *place: int) -> int:
    """A seed for a generator of another library: a whole number below 2**63."""
    return int(_sequence(seed, stream, place).generate_state(1, np.uint64)[0] >> 1)


def _sequence(seed: int, stream: Stream, place: tuple[int, ...]) -> np.random.SeedSequence:
    # the place is a spawn key: as parts of a seed, which numpy pads with zeros, (1,) and (1, 0) would be the same
    return np.random.SeedSequence(seed, spawn_key=(int(stream), *map(int, place)))
