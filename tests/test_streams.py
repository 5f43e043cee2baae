"""Random streams: no two share their numbers, and each follows from the seed."""

from itertools import product

import numpy as np

from lensnb.streams import PhantomStream, Stream, generator, number


def test_no_two_places_share_their_first_numbers():
    """Also where the one's place is the beginning of the other's, or its numbers are those of another stream."""
    places = [(), (0,), (1,), (2,), (0, 0), (1, 0), (0, 1), (1, 1), (0, 0, 0)]
    drawn = {
        (seed, stream, place): tuple(generator(seed, stream, *place).integers(0, 2**62, 2))
        for seed, stream, place in product((0, 1, 2), Stream, places)
    }
    assert len(set(drawn.values())) == len(drawn)


def test_the_same_place_gives_the_same_numbers():
    assert generator(3, Stream.BLOBS, 7).integers(1000, size=5).tolist() == (
        generator(3, Stream.BLOBS, np.int64(7)).integers(1000, size=5).tolist()
    )
    assert number(3, Stream.BLOBS, 7) == number(3, Stream.BLOBS, 7) < 2**63
    assert number(3, Stream.BLOBS, 7) != number(4, Stream.BLOBS, 7)


def test_streams_are_numbered_once():
    assert len({int(stream) for stream in Stream}) == len(Stream)
    assert len({int(stream) for stream in PhantomStream}) == len(PhantomStream)


def test_proposals_follow_from_the_seed(tiny_store):
    """Ten seeds must not share the noise of sampling."""
    from lensnb.settings import load_profile
    from lensnb.training.detector import Batches
    from lensnb.training.experiments import EXPERIMENTS

    profile, experiment = load_profile("smoke"), EXPERIMENTS["single"]
    seeds = [Batches(experiment, profile, tiny_store, tiny_store.boxes, seed, 16)[0].image_seeds for seed in range(3)]
    assert len({one for batch in seeds for one in batch}) == 3 * profile.training.batch_size
