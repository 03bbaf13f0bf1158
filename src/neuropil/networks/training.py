"""The training loop, on one page: patch, loss, step, log, validate, checkpoint.

Output-patch training as in ZNN: one patch per update, per-pixel softmax cross-entropy, weighted, summed and divided
by the number of voxels learnt from; SGD v = μv - ηg, w += v (Lee et al., NIPS 2015: η = 0.01, μ = 0.9), or AdamW or
Muon with a schedule. The whole state is (weights, optimiser, update): patches and dropout are functions of the seed
and the update; the layers' forms are kept with it. So a run that was stopped, in whatever way, continues to the same
bits on a CPU.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tensorboardX import SummaryWriter
from torch import Tensor
from torch.nn import functional

from neuropil.errors import InputError, RunMismatch
from neuropil.machine import Precision, keep_memory, release
from neuropil.metrics.pixel_error import best_pixel_error
from neuropil.networks.checkpoint import Model, read_tensors, save_model, write_tensors
from neuropil.networks.inference import predict
from neuropil.networks.muon import Muon
from neuropil.networks.network import DenseNetwork, Form
from neuropil.networks.planning import dtype_of, forms_for_training, warn_if_slow
from neuropil.networks.sampling import BOUNDARY, UNLABELLED, Rebalance, Sample, Sampler, Stack
from neuropil.progress import Progress

log = logging.getLogger("neuropil")
LOG_EVERY = 10


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the paper's.

    Attributes
    ----------
    optimizer : "sgd" (with momentum), "adamw" or "muon", which learns in the fewest updates
    learning_rate, momentum, weight_decay : momentum is SGD's and Muon's μ and AdamW's β1
    schedule : "constant", or "cosine" down to 1 % of the learning rate at the last update
    warmup : updates over which the rate rises linearly from 0
    rebalance : class weighting, "patch", "global" or "none"
    flips : random flips along z, y, x and y-x transpose
    grey, elastic : strength of grey variation (0 to 1), amplitude of elastic deformation (voxels)
    precision : "auto" is bfloat16 on CUDA, float32 elsewhere
    validate_every : updates between validations
    checkpoint_seconds : seconds between checkpoints
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  read by pydantic where a config nests this class

    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    rebalance: Rebalance = "patch"
    flips: bool = True
    grey: float = 0.0
    elastic: float = 0.0
    precision: Precision = "auto"
    validate_every: int = 1000
    checkpoint_seconds: float = 60.0

    def rate(self, update: int, updates: int) -> float:
        """Learning rate at `update` of `updates`."""
        rate = self.learning_rate * min(1.0, (update + 1) / (self.warmup + 1))
        if self.schedule == "cosine":
            rate *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * update / updates))
        return rate


RECIPES = {
    "paper": Recipe(),  # Lee et al., NIPS 2015: for dense patches
    # for patches on a lattice (spacing)
    "fast": Recipe("muon", 0.005, schedule="cosine", warmup=10, rebalance="none", grey=0.3),
}


@dataclass(frozen=True)
class Validation:
    """Result on the validation stacks: best pixel error, its threshold on P(boundary), unweighted loss."""

    pixel_error: float
    threshold: float
    loss: float


def train(
    network: DenseNetwork,
    sampler: Sampler,
    *,
    folder: Path,
    updates: int,
    recipe: Recipe,
    validation: Sequence[Stack] = (),
    card: dict[str, Any],
) -> Validation | None:
    """Train `network` in place until `updates`, continuing what `folder` holds.

    Parameters
    ----------
    network : on the device to use
    sampler : draws the patches
    folder : receives last.safetensors and best.safetensors (each with its card), resume.safetensors, log.jsonl and
    tensorboard/
    updates : total number, including those done before
    recipe : optimiser, schedule, weighting, augmentation
    validation : stacks scored every `recipe.validate_every` updates; the best network is kept. Without any, best =
    last.
    card : what the checkpoint's card says beside the scores

    Returns
    -------
    the best validation, or None without validation stacks

    Raises
    ------
    RunMismatch : the folder holds a run made with other parameters
    InputError : the loss became NaN or infinite
    KeyboardInterrupt : stopped by SIGINT or SIGTERM, after a checkpoint
    """
    run = _Run(network, sampler, folder, updates, recipe, card)
    run.restore()
    if run.update >= updates and (folder / "last.safetensors").exists():
        return run.best
    if run.update == 0:
        run.choose_forms()
    progress = Progress(f"train {network.architecture.name}", updates, run.update)
    losses: list[Tensor] = []
    saved = time.monotonic()
    with run.open_logs(), _kept_memory(), _stoppable() as stop, ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(sampler, run.update)
        while run.update < updates and not stop.is_set():
            asked = time.monotonic()
            sample, following = following.result(), ahead.submit(sampler, run.update + 1)
            run.waited += time.monotonic() - asked
            losses.append(run.step(sample))
            keep_memory(True)  # all steps have one shape, and the first has set it up
            if run.update % LOG_EVERY == 0 or run.update == updates:
                note = run.log_loss(losses, progress.rate)
                progress.advance(run.update - progress.done, note)
                losses.clear()
            if validation and (run.update % recipe.validate_every == 0 or run.update == updates):
                run.validate(validation)
            if time.monotonic() - saved > recipe.checkpoint_seconds:
                run.save()
                saved = time.monotonic()
        run.save()
        if stop.is_set():
            raise KeyboardInterrupt
    return run.best


class _Run:
    """State of one training run: what a checkpoint holds, and how it moves on by one update."""

    def __init__(
        self, network: DenseNetwork, sampler: Sampler, folder: Path, updates: int, recipe: Recipe, card: dict[str, Any]
    ) -> None:
        self.network, self.sampler, self.folder, self.updates = network, sampler, folder, updates
        self.recipe, self.card, self.update, self.seconds = recipe, card, 0, 0.0
        self.best: Validation | None = None
        self.device, self.dtype = next(network.parameters()).device, dtype_of(network, recipe.precision)
        warn_if_slow(self.device, recipe.precision)
        self.forms: tuple[Form, ...] = ()
        self.waited = 0.0
        parameters = list(network.parameters())
        self.optimizer = _optimizer(parameters, recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")

    def choose_forms(self) -> None:
        """Find the fastest forms of the layers, where the run is long enough to repay it."""
        self.forms = forms_for_training(
            self.network, self.sampler.patch, self.sampler.spacing, self.dtype, self.updates
        )

    def step(self, sample: Sample) -> Tensor:
        """Do one update; return the loss per voxel, still on the device."""
        torch.manual_seed(hash((self.sampler.seed, self.update)) & 0x7FFFFFFF)  # dropout of this update
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.update, self.updates)
        self.network.train()
        inputs = [torch.from_numpy(one)[None, None].to(self.device, self.dtype) for one in sample.inputs]
        target = torch.from_numpy(sample.target.astype(np.int64))[None].to(self.device)
        weight = torch.from_numpy(sample.weight)[None].to(self.device)
        logits = self.network(inputs, self.sampler.spacing, self.forms).float()
        errors = functional.cross_entropy(logits, target, ignore_index=UNLABELLED, reduction="none")
        loss = (errors * weight).sum() / target.numel()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.update += 1
        return loss.detach()

    def log_loss(self, losses: Sequence[Tensor], rate: float) -> str:
        """Log the mean of the last losses; return the note for the progress bar."""
        loss = float(torch.stack(list(losses)).mean())
        if not math.isfinite(loss):
            raise InputError(
                f"the loss became {loss} by update {self.update}; lower recipe.learning_rate"
                f" ({self.recipe.learning_rate}) and start over with --fresh"
            )
        pixels = rate * float(np.prod(self.sampler.labelled))
        elapsed = time.monotonic() - self._clock
        share = self.waited / max(elapsed, 1e-9)  # of this session's time spent waiting for patches
        entry = {"update": self.update, "loss": loss, "pixels_per_second": pixels, "seconds": self.seconds + elapsed}
        self._write({**entry, "waited": round(share, 4)})
        self.board.add_scalar("loss", loss, self.update)
        self.board.add_scalar("pixels per second", pixels, self.update)
        return f"loss {loss:.4f}, {pixels / 1e3:.1f} kpixel/s, {100 * share:.0f} % waiting"

    def validate(self, stacks: Sequence[Stack]) -> None:
        """Score the validation stacks; keep the network if it is the best so far."""
        result = validate(self.network, stacks)
        self._write({"update": self.update, "validation": asdict(result)})
        self.board.add_scalar("validation/pixel error", result.pixel_error, self.update)
        self.board.add_scalar("validation/loss", result.loss, self.update)
        if self.best is None or result.pixel_error < self.best.pixel_error:
            self.best = result
            save_model(self.folder / "best.safetensors", self._model())

    def save(self) -> None:
        """Write the checkpoint to continue from, and the network as it is now."""
        tensors = {f"weights/{name}": value for name, value in self.network.named_weights().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer/{index}/{key}": value for key, value in state.items() if value is not None})
        state = {
            "update": self.update,
            "seconds": self._elapsed(),
            "best": asdict(self.best) if self.best else None,
            "scaler": self.scaler.state_dict(),
            "parameters": self._parameters(),
            "forms": self.forms,  # so that what continues rounds alike
        }
        write_tensors(
            self.folder / "resume.safetensors", {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, state
        )
        save_model(self.folder / "last.safetensors", self._model())
        if self.best is None:
            save_model(self.folder / "best.safetensors", self._model())

    def restore(self) -> None:
        """Continue from the folder's checkpoint, if there is one."""
        path = self.folder / "resume.safetensors"
        if not path.exists():
            (self.folder / "log.jsonl").unlink(missing_ok=True)
            return
        tensors, state = read_tensors(path)
        _check_same(state["parameters"], self._parameters(), self.folder, self.recipe)
        self.update, self.seconds = state["update"], state["seconds"]
        self.forms = tuple(Form(*form) for form in state.get("forms", ()))
        self.best = Validation(**state["best"]) if state["best"] else None
        self.network.load_weights(
            {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
        )
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                slots.setdefault(int(index), {})[key] = value
        if slots:
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        log.info("%s: continuing at update %d of %d", self.folder, self.update, self.updates)

    @contextmanager
    def open_logs(self) -> Iterator[None]:
        """Open log.jsonl and the TensorBoard log, without what lies beyond the checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["update"] <= self.update]
        path.write_text("".join(f"{line}\n" for line in kept))
        self._clock = time.monotonic()
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.update + 1)
        with path.open("a") as self._file, self.board:
            yield

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._clock

    def _model(self) -> Model:
        scores = {"validation": asdict(self.best)} if self.best else {}
        return Model((self.network,), {**self.card, "updates": self.update, "scores": scores})

    def _parameters(self) -> dict[str, Any]:
        """What must not change between the parts of a run."""
        return {
            "updates": self.updates,
            "seed": self.sampler.seed,
            "patch": list(self.sampler.patch),
            "spacing": self.sampler.spacing,
            "architecture": self.network.architecture.to_dict(),
            "recipe": asdict(self.recipe),
            "stacks": [[stack.name, list(stack.image.shape)] for stack in self.sampler.stacks],
        }


def _optimizer(parameters: list[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, (recipe.momentum, 0.999), weight_decay=decay)
    return Muon(parameters, rate, recipe.momentum, decay)


def validate(network: DenseNetwork, stacks: Sequence[Stack]) -> Validation:
    """Predict whole stacks and pool their pixels: best pixel error over all thresholds, and mean cross-entropy."""
    maps = [predict(network, stack.inputs(network.architecture.streams)) for stack in stacks]
    boundary = np.concatenate([one.ravel() for one in maps])
    target = np.concatenate([stack.target.ravel() for stack in stacks])
    labelled = target != UNLABELLED
    best = best_pixel_error(boundary, target == BOUNDARY, mask=labelled)
    right = np.where(target == BOUNDARY, boundary, 1 - boundary)[labelled]
    return Validation(float(best.error), best.boundary_threshold, float(-np.log(np.maximum(right, 1e-7)).mean()))


@contextmanager
def _kept_memory() -> Iterator[None]:
    """Give back, however training ends, what its steps had kept."""
    try:
        yield
    finally:
        keep_memory(False)
        release()


def _check_same(before: dict[str, Any], now: dict[str, Any], folder: Path, recipe: Recipe) -> None:
    before = {"spacing": 1, **before}  # runs of earlier versions
    if recipe.schedule == "constant":  # then more updates only mean going on
        before = {**before, "updates": now["updates"]}
    flat = [{**one, **{f"recipe.{k}": v for k, v in one["recipe"].items()}} for one in (before, now)]
    free = ("recipe", "recipe.checkpoint_seconds")
    for key in (key for key in flat[1] if key not in free):
        if flat[0].get(key) != flat[1][key]:
            raise RunMismatch(
                f"{folder} was trained with {key} = {flat[0].get(key)!r}, now {flat[1][key]!r}; choose another output,"
                " or start over with --fresh"
            )


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event, so that a checkpoint can be written; the second acts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(kind) for kind in kinds]

    def handle(number: int, frame: object) -> None:
        stop.set()
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)

    for kind in kinds:
        signal.signal(kind, handle)
    try:
        yield stop
    finally:
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)
