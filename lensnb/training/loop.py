"""The training loop of every network: resumes to the same weights, reports, writes whole files.

What is trained is in the arguments: a module, batches by number, and a function from the module and a batch to named
losses. One process or several (see parallel.py), in float32 or, where asked for, in mixed precision.
"""

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lensnb.files import atomic_write, check_output, read_json, write_json, write_table
from lensnb.models.weights import first_words, require_sound, save_weights
from lensnb.provenance.product import is_made, write_record
from lensnb.provenance.recipe import Recipe, text
from lensnb.runfolder import CHECKPOINT, CONFIG, LOG, VALIDATION, WEIGHTS
from lensnb.training.parallel import average, is_first, shared, wait_for_all

LOG_EVERY = 20  # iterations that a row of the log is the mean of


@dataclass(frozen=True)
class Course:
    """How a training goes, whatever it trains.

    rate_of(t): learning rate of iteration t, which parameter groups may carry a `factor` for. workers: processes that
    prepare batches. autocast: forward in bfloat16 where the operations allow it. quiet_s: of the lines that say how far
    it is, none comes within so many seconds of another, except the last.
    """

    rate_of: Callable[[int], float]
    gradient_clip: float
    checkpoint_every: int
    workers: int = 0
    autocast: bool = False
    quiet_s: float = 0.0


@dataclass(frozen=True)
class Validation:
    """How the weights that a training ends with are chosen: the best of some, the first of equals.

    score(model): how good the model, in eval mode, is; a number that follows from its weights. number: of the times
    that it is asked, evenly over the second half of the training, the last time at its end. recipe: what a score
    follows from besides the weights. every: ask after so many iterations, from the first on, instead. settled(scores):
    whether the training may end now, after these scores.
    """

    score: Callable[[nn.Module], float]
    number: int
    recipe: Recipe
    every: int = 0
    settled: Callable[[list[float]], bool] = lambda scores: False

    def iterations(self, length: int) -> list[int]:
        """After how many of `length` iterations the model is looked at: of 100, five times, 60, 70, 80, 90, 100."""
        if self.every:
            return [*range(self.every, length, self.every), length]
        steps = range(1, self.number + 1)
        return sorted({length - length * (self.number - step) // (2 * self.number) for step in steps})


@dataclass
class Progress:
    """How far a training is.

    done: iterations; rows: of its log; recent: the losses that are in none yet; validated: iteration and score of each
    time that the model was looked at; best: the weights with the best score, empty before the first.
    """

    done: int = 0
    rows: list[dict] = field(default_factory=list)
    recent: list[dict] = field(default_factory=list)
    validated: list[dict] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def is_over(self, iterations: int, validation: Validation | None) -> bool:
        """Whether a training of so many iterations is at its end."""
        if self.done == iterations:
            return True
        return validation is not None and validation.settled([look["score"] for look in self.validated])


def fit(
    model: nn.Module,
    batches: torch.utils.data.Dataset,
    losses_of: Callable[[nn.Module, object], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    course: Course,
    run_dir: Path,
    config: dict,
    recipe: Recipe,
    total: Callable[[Mapping[str, Tensor]], Tensor] | None = None,
    kept: tuple[str, ...] = ("",),
    validation: Validation | None = None,
) -> None:
    """Train `model` in place on batches 0 .. len(batches) - 1; write its run into `run_dir`.

    The run is log.csv, config.json and, last, weights.safetensors with its record (see provenance/product.py). A run
    that is there and was made from `recipe` is left alone, and then `model` is not trained.

    batches[t] is the batch of iteration t and follows from t and a seed alone. losses_of(module, batch) gives its named
    losses, `total` what is minimised, by default their sum; with several processes they must come from a call of
    `module`, which then is `model` with gradients averaged over the processes. config: what config.json says of the
    network and its training; recipe: all that the weights follow from. A checkpoint of another recipe is not continued.
    kept: what the names of written weights begin with. validation: which weights the run ends with, and then
    validation.csv says what was found; without it, the last ones.

    A stopped training goes on from its last checkpoint to the same weights. The checkpoint is left in `run_dir`: if the
    weights get lost, it brings them back at once; `remove_checkpoint` removes it. Raises FloatingPointError if a loss
    or a score is no number, ValueError if a weight is none after the last step, or if `run_dir` can not be written to.
    """
    check_output(run_dir / WEIGHTS, "training")  # not after hours
    label, iterations, checkpoint = run_dir.name, len(batches), run_dir / CHECKPOINT
    product = [run_dir / name for name in (WEIGHTS, CONFIG, LOG, *([VALIDATION] if validation else []))]
    recipe = recipe | (validation.recipe if validation else {})
    if is_made(product, recipe):
        _already(product, recipe, config)
        return
    progress = restore(checkpoint, model, optimizer, text(recipe))
    start, looked_at = progress.done, validation.iterations(iterations) if validation else []
    end = start if progress.is_over(iterations, validation) else iterations
    device = next(model.parameters()).device
    model.train()
    module = shared(model)
    first = is_first()
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=range(start, end), num_workers=course.workers
    )
    clock = said = time.monotonic()
    for t, batch in enumerate(loader, start=start):
        for group in optimizer.param_groups:
            group["lr"] = course.rate_of(t) * group.get("factor", 1.0)
        with torch.autocast(device.type, torch.bfloat16, enabled=course.autocast):
            losses = losses_of(module, batch)
            loss = total(losses) if total else sum(losses.values())
        values = average(torch.stack([*(value.detach() for value in losses.values()), loss.detach()]).float())
        if not torch.isfinite(values[-1]):
            raise FloatingPointError(f"{label}: the loss is {values[-1]} at iteration {t}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), course.gradient_clip)
        optimizer.step()
        names = [*losses, "total"] if total else [*losses]
        recent, progress.done = progress.recent, t + 1
        recent.append(dict(zip(names, values.tolist(), strict=False)))
        look = t + 1 in looked_at
        if look:
            validate(model, validation, progress, label)
        last = progress.is_over(iterations, validation) if look else t + 1 == iterations
        if (t + 1) % LOG_EVERY == 0 or last:
            means = {name: round(float(np.mean([one[name] for one in recent])), 6) for name in recent[0]}
            progress.rows.append({"iteration": t + 1} | means)
            progress.recent = []
        tenth = (t + 1) % max(1, iterations // 10) == 0
        if first and (last or (tenth and time.monotonic() - said >= course.quiet_s)):
            said = time.monotonic()
            left = (said - clock) / (t + 1 - start) * (iterations - t - 1)
            print(f"{label}: iteration {t + 1}/{iterations}, loss {values[-1]:.3f}, {left:.0f} s left", flush=True)
        if first and ((t + 1) % course.checkpoint_every == 0 or look or last):
            save_checkpoint(checkpoint, model, optimizer, progress, text(recipe))
        if last:
            break
    model.eval()
    require_sound(model.state_dict(), label, "the last step failed; lower the learning rate")
    if validation:
        model.load_state_dict(progress.best)
    if first:
        write_table(pd.DataFrame(progress.rows), run_dir / LOG)
        if validation:
            write_table(validation_table(progress), run_dir / VALIDATION)
        write_json(config, run_dir / CONFIG)
        save_weights(model, run_dir / WEIGHTS, kept)
        write_record(product, recipe)
    wait_for_all()


def _already(product: list[Path], recipe: Recipe, config: dict) -> None:
    """Say that a run is there; config.json also tells what the weights do not follow from, and is kept true."""
    wait_for_all()  # every process has looked at the files
    if is_first():
        print(f"{product[0].parent.name}: already trained", flush=True)
        if read_json(product[1]) != json.loads(json.dumps(config)):
            write_json(config, product[1])
            write_record(product, recipe)
    wait_for_all()


def validate(model: nn.Module, validation: Validation, progress: Progress, label: str) -> None:
    """Look at a model between two iterations: its score joins `progress`, and its weights if none was as good before.

    Several processes all do so, and go on with the mean of their scores, which differ by rounding at most.
    """
    begun = time.monotonic()
    model.eval()
    score = torch.tensor(validation.score(model), dtype=torch.float64, device=next(model.parameters()).device)
    score = float(average(score))
    model.train()
    if not np.isfinite(score):
        raise FloatingPointError(f"{label}: the score on validation data is {score} at iteration {progress.done}")
    if all(score > earlier["score"] for earlier in progress.validated):
        progress.best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    progress.validated.append({"iteration": progress.done, "score": score})
    if is_first():
        seconds = time.monotonic() - begun
        print(f"{label}: iteration {progress.done}, validation {score:.4f} ({seconds:.0f} s)", flush=True)


def validation_table(progress: Progress) -> pd.DataFrame:
    """The table validation.csv: iteration, score, and whether these weights are the run's, true for one row."""
    table = pd.DataFrame(progress.validated)
    return table.assign(kept=table.index == table["score"].argmax())  # the first of equals


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, recipe: str
) -> None:
    """Write what `restore` reads, atomically."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "recipe": recipe, **vars(progress)}
    content = io.BytesIO()
    torch.save(state, content)  # into memory: writing a file itself, torch does not say when the disk is full
    # not write_bytes: an error's traceback would keep its view of the buffer, and Python 3.12.1's collector crash on it
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(content.getbuffer())


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: str) -> Progress:
    """Load a checkpoint if there is one of this recipe; return how far the training was.

    A checkpoint of another recipe is passed over, and a line says so. Raises ValueError for a file that is broken.
    """
    if not path.exists():
        return Progress()
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["recipe"] != recipe:
            print(f"{path.parent.name}: begins again; {path.name} is of other settings, labels or initial weights")
            return Progress()
        for weights in (state["model"], state["best"]):
            require_sound(weights, path.name, "it is damaged")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**{part.name: state[part.name] for part in fields(Progress)})
    except Exception as error:  # cut off, no checkpoint, a pickle of something else, of another size
        reason = first_words(error)
        raise ValueError(f"cannot continue from {path}: {reason}; delete it to start this training again") from error


def remove_checkpoint(run_dir: Path) -> None:
    """Remove the checkpoint of a finished training, which is three or four times as large as its weights."""
    (run_dir / CHECKPOINT).unlink(missing_ok=True)


def stepped(rate: float, iterations: int, drops: tuple[float, ...]) -> Callable[[int], float]:
    """The learning rate by iteration: a tenth after each of `drops`, given as fractions of the training."""
    return lambda t: rate * 0.1 ** sum(t >= drop * iterations for drop in drops)


def without_decay(model: nn.Module, weight_decay: float, bias_factor: float = 1.0) -> list[dict]:
    """Parameter groups: weights with weight decay; biases and norms without, at `bias_factor` times the rate."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay, "factor": 1.0},
        {"params": others, "weight_decay": 0.0, "factor": bias_factor},
    ]
