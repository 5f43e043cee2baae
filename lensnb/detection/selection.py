"""Which weights of a training of LENS are kept: those that find most on validation patients, by one rule for all rows.

The paper trains for 8 epochs and says no more; its baseline's code keeps the epoch that is best on validation, and the
200 sub-volumes on which the paper chooses its thresholds are there. Without such a rule a row that has learned its few
labels by heart would be compared with one that has not. During the second half of every training the detector is run on
the same sub-volumes, and the average sensitivity at 1/8 to 8 false positives decides. The detections are those of the
DeepLesion expert alone: every experiment has one, and rows (b) and (c) of Table II, alone and fused, share a training.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.boxes import BOX3D
from lensnb.datasets import UNIVERSAL
from lensnb.datasets.manual_boxes import MANUAL_FILE, load_manual_boxes
from lensnb.datasets.store import Store
from lensnb.detection.fusion import detections_3d, fuse, to_original
from lensnb.detection.inference import detect_volume
from lensnb.evaluation import froc
from lensnb.evaluation.outcomes import truth_3d
from lensnb.models.lens import LENS
from lensnb.provenance.recipe import code, values
from lensnb.runfolder import Run
from lensnb.settings import Inference, Profile, to_dict
from lensnb.training.detector import train_experiment
from lensnb.training.loop import Validation, remove_checkpoint


def train_and_select(experiment_name: str, profile_name: str, seed: int = 0, run_dir: Path | None = None) -> Path:
    """`train_experiment`, which ends with the weights that are best on validation patients; validation.csv says which.

    The profile's training.validations says how often they are looked at; 0: the last weights are kept.
    """
    return train_experiment(experiment_name, profile_name, seed, run_dir, validation_of)


def command(experiment_name: str, profile_name: str, seed: int) -> Path:
    """The command `train`: `train_and_select`, and nothing left to continue from."""
    run_dir = train_and_select(experiment_name, profile_name, seed)
    remove_checkpoint(run_dir)
    return run_dir


def validation_of(profile: Profile, run: Run, store: Store, dataset: str = UNIVERSAL) -> Validation:
    """How the trainings of a run are validated: on some of the manual validation sub-volumes, the same for all.

    dataset: the first of the experiment's, which is DeepLesion but for a specialist that is trained alone. That one
    finds only lesions of its own type, and is looked at on its dataset's validation volumes and labels.
    Raises FileNotFoundError without the manual boxes, ValueError if the prepared sub-volumes have no lesion.
    """
    prepared = store.volumes.index[(store.volumes["split"] == "val") & (store.volumes["dataset"] == dataset)]
    if dataset == UNIVERSAL:
        where, known = run.raw / MANUAL_FILE, load_manual_boxes(run.raw / MANUAL_FILE).get("val", {})
    else:
        where, known = store.root / "boxes.csv", labelled_lesions(store, prepared)
    chosen = spread([volume for volume in sorted(known) if volume in prepared], profile.training.validation_volumes)
    truth = {volume: known[volume] for volume in chosen}
    if not any(map(len, truth.values())):
        raise ValueError(
            f"training.validations is {profile.training.validations}, but the {len(chosen)} prepared validation "
            f"sub-volumes of {where} hold no lesion; set it to 0 to keep the last weights"
        )
    recipe = code([__name__]) | values(
        inference=to_dict(profile.inference), validation_volumes=store.contents(chosen),
        validation_truth={volume: boxes.tolist() for volume, boxes in truth.items()},
    )  # fmt: skip
    return Validation(
        lambda model: average_sensitivity(model, store, truth, profile.inference), profile.training.validations, recipe
    )


def labelled_lesions(store: Store, volumes: Sequence[str]) -> dict[str, np.ndarray]:
    """The labelled lesions of fully labelled volumes: volume -> (n, 6), original pixels and slice numbers."""
    boxes = truth_3d(store.boxes[store.boxes["volume"].isin(volumes)]).assign(score=1.0)
    lesions = to_original(boxes, store)
    return {volume: lesions.loc[lesions["volume"] == volume, BOX3D].to_numpy(float) for volume in volumes}


def spread(names: Sequence[str], number: int) -> list[str]:
    """`number` of the names, evenly over the list; all of them if there are no more, or for 0."""
    if not number or number >= len(names):
        return list(names)
    return [names[place] for place in np.arange(number) * len(names) // number]


def average_sensitivity(model: LENS, store: Store, truth: dict[str, np.ndarray], inference: Inference) -> float:
    """Average sensitivity of the first expert, DeepLesion's if there is one, at 1/8 to 8 false positives a sub-volume.

    LENS Sec. VI-C. truth: volume -> (n, 6), original pixels and slice numbers, of the sub-volumes to look at.
    """
    found = [detect_volume(model, store.hu(volume), inference).assign(volume=volume) for volume in truth]
    fused = fuse(pd.concat(found, ignore_index=True), list(model.experts)[:1], nms=inference.nms)
    return froc.evaluate(truth, to_original(detections_3d(fused, inference), store), resamples=0).average
