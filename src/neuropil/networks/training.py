"""The training loop, on one page: patch, loss, step, log, validate, checkpoint.

Output-patch training as in ZNN: one patch per update; SGD v = μv - ηg, w += v (Lee et al., NIPS 2015: η = 0.01,
μ = 0.9), or AdamW or Muon with a schedule. What is learnt, and how it is scored, is the objective's: boundary maps or
affinities. The whole state is (weights, their average, optimiser, update): patches and dropout are functions of the
seed and the update; the layers' forms are kept with it. So a run that was stopped, in whatever way, continues to the
same bits on a CPU.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboardX import SummaryWriter
from torch import Tensor

from neuropil.errors import InputError, RunMismatch
from neuropil.machine import keep_memory, release
from neuropil.networks.affinity_sampling import AffinitySample, AffinitySampler, LabelledStack
from neuropil.networks.average import Average
from neuropil.networks.checkpoint import Model, Network, read_tensors, save_model, write_tensors
from neuropil.networks.muon import Muon
from neuropil.networks.network import Form
from neuropil.networks.objective import objective_for
from neuropil.networks.planning import dtype_of, warn_if_slow
from neuropil.networks.recipe import Recipe
from neuropil.networks.sampling import Sample, Sampler, Stack
from neuropil.progress import Progress

log = logging.getLogger("neuropil")
LOG_EVERY = 10
THREADS = 8  # draw patches for a fast device, at most


def train(
    network: Network,
    sampler: Sampler | AffinitySampler,
    *,
    folder: Path,
    updates: int,
    recipe: Recipe,
    validation: Sequence[Stack] | Sequence[LabelledStack] = (),
    card: dict[str, Any],
) -> Any:
    """Train `network` in place until `updates`, continuing what `folder` holds.

    Parameters
    ----------
    network : on the device to use
    sampler : draws the patches: boundary maps for a `DenseNetwork`, affinities for an `RSUNet`
    folder : receives last.safetensors and best.safetensors (each with its card), resume.safetensors, log.jsonl and
    tensorboard/
    updates : total number, including those done before
    recipe : optimiser, schedule, weighting; with an `average`, the networks in the folder are that of `network`
    validation : stacks scored every `recipe.validate_every` updates; the best network is kept. Without any, best =
    last.
    card : what the checkpoint's card says beside the scores

    Returns
    -------
    the best `Validation` or `AffinityValidation`, or None without validation stacks

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
    with run.open_logs(), _one_shape(), _stoppable() as stop, _Ahead(sampler, run.update, run.device) as ahead:
        while run.update < updates and not stop.is_set():
            losses.append(run.step(ahead.take()))
            keep_memory(True)  # the first step has set it up
            if run.update % LOG_EVERY == 0 or run.update == updates:
                note = run.log_loss(losses, progress.rate, ahead.waited)
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


class _Ahead:
    """Patches drawn ahead of the training, by threads; who draws a patch, and when, changes nothing of it."""

    def __init__(self, sampler: Sampler | AffinitySampler, first: int, device: torch.device) -> None:
        self.sampler, self.next, self.waited = sampler, first, 0.0
        self.threads = 1 if device.type == "cpu" else min(THREADS, os.cpu_count() or 1)
        self.drawn = deque[Future[Any]]()

    def __enter__(self) -> _Ahead:
        self.pool = ThreadPoolExecutor(self.threads)
        self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def take(self) -> Any:
        """Return the next patch, and have another one drawn."""
        asked = time.monotonic()
        sample = self.drawn.popleft().result()
        self._fill()
        self.waited += time.monotonic() - asked
        return sample

    def _fill(self) -> None:
        while len(self.drawn) < self.threads:
            self.drawn.append(self.pool.submit(self.sampler, self.next))
            self.next += 1


class _Run:
    """State of one training run: what a checkpoint holds, and how it moves on by one update."""

    def __init__(
        self,
        network: Network,
        sampler: Sampler | AffinitySampler,
        folder: Path,
        updates: int,
        recipe: Recipe,
        card: dict[str, Any],
    ) -> None:
        self.network, self.sampler, self.folder, self.updates = network, sampler, folder, updates
        self.recipe, self.card, self.update, self.seconds = recipe, card, 0, 0.0
        self.best: Any = None
        self.device, dtype = next(network.parameters()).device, dtype_of(network, recipe.precision)
        warn_if_slow(self.device, recipe.precision)
        self.objective = objective_for(sampler, recipe, dtype)
        self.forms: tuple[Form, ...] = ()
        parameters = list(network.parameters())
        self.optimizer = _optimizer(parameters, recipe)
        self.average = Average(network, recipe.average) if recipe.average else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")

    def choose_forms(self) -> None:
        """Find the fastest forms of the layers."""
        self.forms = self.objective.choose_forms(self.network, self.updates)

    def step(self, sample: Sample | AffinitySample) -> Tensor:
        """Do one update; return the loss, still on the device."""
        torch.manual_seed(hash((self.sampler.seed, self.update)) & 0x7FFFFFFF)  # dropout of this update
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.update, self.updates)
        self.network.train()
        loss = self.objective.loss(self.network, sample, self.forms)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.update += 1
        if self.average:
            self.average.add(self.network, self.update)
        return loss.detach()

    def log_loss(self, losses: Sequence[Tensor], rate: float, waited: float) -> str:
        """Log the mean of the last losses and the seconds waited for patches; return the note for the progress bar."""
        loss = float(torch.stack(list(losses)).mean())
        if not math.isfinite(loss):
            raise InputError(
                f"the loss became {loss} by update {self.update}; lower recipe.learning_rate"
                f" ({self.recipe.learning_rate}) and start over with --fresh"
            )
        pixels = rate * float(np.prod(self.sampler.labelled))
        elapsed = time.monotonic() - self._clock
        share = waited / max(elapsed, 1e-9)  # of this session's time spent waiting for patches
        entry = {"update": self.update, "loss": loss, "pixels_per_second": pixels, "seconds": self.seconds + elapsed}
        self._write({**entry, "waited": round(share, 4)})
        self.board.add_scalar("loss", loss, self.update)
        self.board.add_scalar("pixels per second", pixels, self.update)
        return f"loss {loss:.4f}, {pixels / 1e3:.1f} kpixel/s, {100 * share:.0f} % waiting"

    def validate(self, stacks: Sequence[Any]) -> None:
        """Score the validation stacks; keep the network if it is the best so far."""
        result = self.objective.validate(self._result, stacks)
        self._write({"update": self.update, "validation": asdict(result)})
        for name, value in asdict(result).items():
            if value is not None:
                self.board.add_scalar(f"validation/{name.replace('_', ' ')}", value, self.update)
        if self.best is None or result.score < self.best.score:
            self.best = result
            save_model(self.folder / "best.safetensors", self._model())

    def save(self) -> None:
        """Write the checkpoint to continue from, and the network as it is now."""
        tensors = {f"weights/{name}": value for name, value in self.network.named_weights().items()}
        if self.average:
            tensors |= {f"average/{name}": value for name, value in self._result.named_weights().items()}
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
        self.best = self.objective.validation(state["best"]) if state["best"] else None
        self.network.load_weights(_below("weights/", tensors))
        if self.average:
            self._result.load_weights(_below("average/", tensors))
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

    @property
    def _result(self) -> Network:
        """The network that is validated and used."""
        return self.average.network if self.average else self.network

    def _model(self) -> Model:
        scores = {"validation": asdict(self.best)} if self.best else {}
        return Model((self._result,), {**self.card, "updates": self.update, "scores": scores})

    def _parameters(self) -> dict[str, Any]:
        """What must not change between the parts of a run."""
        parameters = {
            "updates": self.updates,
            "seed": self.sampler.seed,
            "patch": list(self.sampler.patch),
            "spacing": self.sampler.spacing,
            "batch": self.sampler.batch,
            "architecture": self.network.architecture.to_dict(),
            "recipe": asdict(self.recipe),
            "stacks": [[stack.name, list(stack.image.shape)] for stack in self.sampler.stacks],
        }
        as_stored: dict[str, Any] = json.loads(json.dumps(parameters))
        return as_stored


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer(parameters: list[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, (recipe.momentum, 0.999), weight_decay=decay)
    return Muon(parameters, rate, recipe.momentum, decay)


@contextmanager
def _one_shape() -> Iterator[None]:
    """All steps are alike: let the device look for its fastest way, and give back at the end what steps had kept."""
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            yield
    finally:
        keep_memory(False)
        release()


def _check_same(before: dict[str, Any], now: dict[str, Any], folder: Path, recipe: Recipe) -> None:
    earlier = asdict(Recipe()) | before["recipe"]  # runs of earlier versions lack what came later
    before = {"spacing": 1, "batch": 1, **before, "recipe": earlier}
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
