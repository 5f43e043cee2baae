"""Inference: what each expert finds on every slice of a volume (LENS Sec. IV-C)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.ops import batched_nms

from lensnb.boxes import BOX
from lensnb.datasets.store import Store
from lensnb.files import read_table, write_table
from lensnb.models.inputs import pad, to_grey
from lensnb.models.lens import LENS
from lensnb.models.weights import weights_fingerprint
from lensnb.provenance.product import is_made, write_record
from lensnb.provenance.recipe import code, text, values
from lensnb.runfolder import part_of
from lensnb.settings import Inference, to_dict
from lensnb.system import progress


@torch.no_grad()
def detect_volume(model: LENS, hu: np.ndarray, inference: Inference) -> pd.DataFrame:
    """All experts' 2D detections on every slice of a volume; each image's features are computed once.

    hu: HU (z, y, x) on the grid. inference: score (lowest score kept), nms, per_slice (kept for a slice and expert).
    Returns z, x1, y1, x2, y2, expert, score in grid coordinates, by slice, expert and falling score.
    Raises FloatingPointError where the network's numbers are not finite.

    Only the features of `inference.slices_at_once` slices and of the images that they share with the next ones are held
    (`Backbone.stream_features`), so memory does not depend on the number of slices: at full size, beside the weights,
    about (slices_at_once + 1.5) x 230 MB for 512 x 512 pixels (measured: 1.25 GB with 4, 2.2 GB with 8 slices at once),
    and in proportion to the pixels.
    """

    def read(first: int, end: int) -> torch.Tensor:
        return pad(to_grey(hu[first:end], model.network), model.backbone.multiple).to(device)

    device = next(model.parameters()).device
    parts = model.backbone.stream_features(read, len(hu), inference.slices_at_once)
    return detect_on_features(model, parts, hu.shape, inference)


@torch.no_grad()
def detect_on_features(
    model: LENS, parts: Iterable[torch.Tensor], shape: tuple[int, ...], inference: Inference
) -> pd.DataFrame:
    """What `detect_volume` returns, from features of all slices.

    parts: features (n, channels, y, x) of consecutive slices, each part looked at at once; shape: (z, y, x) of the
    volume.
    """
    found, start = [], 0
    for part in parts:
        proposals, scores, boxes = model.from_features(part)
        z = torch.arange(len(part)).repeat_interleave(torch.tensor([len(p) for p in proposals]))
        found.append(_select(scores.cpu(), boxes.cpu(), z + start, shape, inference))
        start += len(part)
    result = pd.DataFrame(np.concatenate(found), columns=["z", *BOX, "expert", "score"])
    result["z"] = result["z"].astype(np.int32)
    result["expert"] = pd.Categorical.from_codes(result["expert"].astype(np.int8), list(model.experts))
    return result.sort_values(["z", "expert", "score"], ascending=[True, True, False], kind="stable", ignore_index=True)


def _select(
    scores: torch.Tensor, boxes: torch.Tensor, z: torch.Tensor, shape: tuple[int, ...], inference: Inference
) -> np.ndarray:
    """Threshold and NMS within each slice and expert; rows z, x1, y1, x2, y2, expert, score."""
    experts = scores.shape[1]
    expert = torch.arange(experts).expand(scores.shape)
    limit = torch.tensor([shape[2] - 1, shape[1] - 1] * 2, dtype=boxes.dtype)
    boxes = torch.minimum(boxes.clamp(min=0), limit)
    # in double precision, as the scores are returned: float32 has numbers just under 0.01 that it calls 0.01
    keep = (scores.double() >= inference.score) & ((boxes[..., 2:] - boxes[..., :2]) >= 1).all(dim=2)
    boxes, scores, expert, z = boxes[keep], scores[keep], expert[keep], z[:, None].expand(keep.shape)[keep]
    group = z * experts + expert
    kept = batched_nms(boxes, scores, group, inference.nms)  # best first
    group_kept = pd.Series(group[kept].numpy())
    place = group_kept.groupby(group_kept).cumcount().to_numpy(copy=True)  # among the kept of its slice and expert
    kept = kept[torch.from_numpy(place) < inference.per_slice]
    columns = [z[kept, None], boxes[kept], expert[kept, None], scores[kept, None]]
    return torch.cat([c.double() for c in columns], dim=1).numpy()


def detect(
    model: LENS, store: Store, volumes: list[str], inference: Inference, out: Path, label: str = "detect"
) -> pd.DataFrame:
    """Detect in many volumes and write the table to `out` (.npz): volume, z, x1, y1, x2, y2, expert, score.

    What is there is read, not made again, if network, volumes, numbers and code are the same (see
    provenance/product.py); interrupted, it goes on from the last finished part of 64 volumes.
    """
    out = Path(out)
    # the network's own modules too: it came from elsewhere
    modules = {type(part).__module__ for part in model.modules()}
    recipe = code([__name__, *(name for name in modules if name.startswith("lensnb."))]) | values(
        weights=weights_fingerprint(model), network=to_dict(model.network), inference=to_dict(inference),
        volumes=store.contents(volumes),
    )  # fmt: skip
    if is_made([out], recipe):
        return read_table(out)
    parts = []
    for start in progress(range(0, len(volumes), 64), label):
        part = part_of(out, text(recipe), start)
        if not part.exists():
            tables = [
                detect_volume(model, store.hu(v), inference).assign(volume=v) for v in volumes[start : start + 64]
            ]
            write_table(pd.concat(tables, ignore_index=True), part)
        parts.append(part)
    tables = [read_table(part).astype({"volume": str, "expert": str}) for part in parts]
    table = pd.concat(tables, ignore_index=True)[["volume", "z", *BOX, "expert", "score"]]
    table["expert"] = pd.Categorical(table["expert"], list(model.experts))  # one who reports nothing, too
    table["volume"] = pd.Categorical(table["volume"])
    write_table(table, out)
    write_record([out], recipe)
    for part in parts:
        part.unlink()
    return read_table(out)
