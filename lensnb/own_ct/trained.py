"""The trained networks that `detect` uses: found, read and checked before anything long begins."""

import math
from collections.abc import Mapping
from pathlib import Path

from lensnb.files import read_json
from lensnb.models.build import load_lens, weights_file
from lensnb.models.lens import LENS
from lensnb.provenance.product import is_altered, record_of
from lensnb.runfolder import CONFIG, Run
from lensnb.settings import Inference, from_dict

SPACING_MM = (0.1, 20.0)  # of a grid; beyond it is no millimetre
# the least and most of a number; of slices at once, so that memory stays bounded
RANGES = {
    "theta": (0, 1), "score": (0, 1), "nms": (0, 1), "trim": (0, 1), "per_slice": (1, math.inf),
    "slices_at_once": (1, 64),
}  # fmt: skip


def default_weights() -> Path:
    """The best run of a full phantom run: four datasets with mined labels."""
    return Run("phantom").weights("multi-mined")


def default_lesanet() -> Path:
    """The LesaNet of a full phantom run, which goes with `default_weights`."""
    return Run("phantom").lesanet()


def load_weights(path: Path | str | None = None) -> tuple[LENS, dict]:
    """The network of a weights file (or of its run's folder) and the config.json beside it; None: `default_weights`.

    Raises FileNotFoundError saying how weights are made, ValueError if a file is broken, the two do not fit together,
    or the configuration lacks what detection needs.
    """
    if path is None:
        path = default_weights()
        if not path.exists():
            raise FileNotFoundError(
                f"there are no weights yet: {path} does not exist. `./run_all.sh --only table2` makes it (phantoms); "
                "or name weights of yours with --weights FILE (config.json must lie beside them)"
            )
    check_written(weights_file(path))
    model = load_lens(path)
    config_path = weights_file(path).with_name(CONFIG)
    config = read_json(config_path)
    _check(config, config_path)
    return model, config


def check_written(weights: Path) -> None:
    """ValueError if a record of the run that made the weights lies beside them, and they are not as it says.

    A bit that flipped leaves numbers that are as good as others, and other detections.
    """
    if is_altered(weights):
        raise ValueError(
            f"{weights} is not as the training wrote it, says {record_of(weights).name} beside it; copy both again. If "
            "the weights are others on purpose, remove the record"
        )


def inference_of(config: Mapping, where: str = "config.json") -> Inference:
    """The section `inference` of a config.json; ValueError, which names `where`, if it is incomplete or senseless."""
    settings = from_dict(Inference, config["inference"], f"{where}: inference")
    for name, (least, most) in RANGES.items():
        if not least <= getattr(settings, name) <= most:
            raise ValueError(f"{where}: inference: {name} is {getattr(settings, name)}; it must be {least} to {most}")
    return settings


def _check(config: Mapping, path: Path) -> None:
    absent = [key for key in ("spacing_mm", "inference", "phantom") if key not in config]
    if absent:
        raise ValueError(f"{path} does not say {', '.join(absent)}; detection needs it")
    spacing, (least, most) = config["spacing_mm"], SPACING_MM
    numbers = isinstance(spacing, list) and len(spacing) == 3 and all(type(mm) in (int, float) for mm in spacing)
    if not numbers or not all(least <= mm <= most for mm in spacing):
        raise ValueError(f"{path}: spacing_mm is {spacing!r}; it must be three numbers of {least:g} to {most:g} mm")
    if not isinstance(config["phantom"], bool):
        raise ValueError(f"{path}: phantom is {config['phantom']!r}; it must be true or false")
    inference_of(config, str(path))
