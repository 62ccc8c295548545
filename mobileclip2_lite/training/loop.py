"""One training loop: the control (contrastive only) and the reinforced student, one process or many.

Paper: MobileCLIP, "multi-modal reinforced training": each image is one replayed view; the loss of (view, real
caption) and that of (view, synthetic caption) are summed. Reads a folder of reinforced shards, writes a model folder
with `manifest.json`, `log.jsonl` and, until it is finished, checkpoints. Differs from the paper in nothing but what
`recipes.Train` says; every step's random numbers follow from (seed, step, rank), so that neither evaluations nor
interruptions change a training. Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.zoo import save_model
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.training import checkpoints
from mobileclip2_lite.training.captioner_step import captioner_stepper
from mobileclip2_lite.training.checks import check, check_division, check_found
from mobileclip2_lite.training.cpu import threads
from mobileclip2_lite.training.distributed import Processes, connect
from mobileclip2_lite.training.early_stopping import Stopping
from mobileclip2_lite.training.feeding import PreparedBatch, Stream, Tokens, feed, stream_of
from mobileclip2_lite.training.identity import work_of
from mobileclip2_lite.training.log import Log, Meter, progress_bar
from mobileclip2_lite.training.remote import Remote
from mobileclip2_lite.training.start import training_mode
from mobileclip2_lite.training.step import Stepper
from mobileclip2_lite.training.stopping import diverged, stop_asked, stopped_at
from mobileclip2_lite.training.teachers import teacher_cards
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.place import StorePath, place_of
from mobileclip2_lite.work.threads import torch_threads


def train(
    settings: Train,
    data: str | os.PathLike,
    out: str | os.PathLike,
    seed: int,
    evaluate: Callable[[LoadedModel], dict] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Path | StorePath:
    """Train a model on a folder of reinforced shards; finished work is found, interrupted work is taken up.

    Under `torchrun` or `accelerate launch` every process calls this with the same arguments.

    Args:
        settings: the recipe's part; `distill=0` is the control.
        data: the folder of shards; its manifest names the teachers, their logit scales and dimensions.
        out: where the model goes (`models.zoo.create_model(out)` loads it), with manifest, log and checkpoints: a
            folder, which all machines that train must see, or one in a bucket.
        seed: of the weights, the order of samples, the choice of views and captions.
        evaluate: measures a model, for the learning curve; called every `settings.evaluate_every` steps and at the end.
        device: None for this process's GPU, or the CPU.
        progress: show a bar.

    Returns:
        `out`.

    Raises:
        ValueError: settings contradict each other or the data (the message names the field), or processes on several
            machines do not see the same checkpoint.
        Stopped: SIGTERM came; a checkpoint was written (unless `checkpoint_every` is 0: then SIGTERM ends the process).
        Diverged: the loss became NaN or infinite; the last good checkpoint stands.
        StageMismatch: `out` holds other work.
        FolderLocked: another training writes to `out`.
    """
    target, data = place_of(out), place_of(data)
    check(settings)
    if settings.stop_on and evaluate is None:
        raise ValueError(f"stop_on={settings.stop_on!r} needs an evaluation that measures it: pass `evaluate`")
    work = work_of(settings, data, target, seed)
    if work.done() is None:
        _train(settings, data, target, seed, work, evaluate, device, progress)
    return target


def _train(
    settings: Train,
    data: Path | StorePath,
    target: Path | StorePath,
    seed: int,
    work: Work,
    evaluate: Callable[[LoadedModel], dict] | None,
    device: str | torch.device | None,
    progress: bool,
) -> None:
    """Train, or go on, under the folder's lock; of a bucket in the folder on this disk that stands for it."""
    remote = Remote(target, work.key) if isinstance(target, StorePath) else None
    if remote:
        work = dataclasses.replace(work, folder=remote.folder)
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(connect(device))
        check_division(settings, processes.size)
        stack.enter_context(torch_threads(threads(settings, processes.device)))
        if processes.first:
            stack.enter_context(work.lock())
        if processes.size > 1 or work.done() is None:  # else another process was a little faster
            if processes.first:
                work.begin()
            if remote and os.environ.get("LOCAL_RANK", "0") == "0":  # once a machine
                remote.fetch()
            processes.wait()
            run = Run(settings, data, work.folder, seed, processes, remote)
            run.resume()
            run.go(evaluate, progress)
            run.finish(work)
        if remote and processes.first:
            remote.finish()
        processes.wait()


class Run:
    """A training under way."""

    def __init__(
        self,
        settings: Train,
        data: Path | StorePath,
        out: Path,
        seed: int,
        processes: Processes,
        remote: Remote | None = None,
    ) -> None:
        self.settings, self.data, self.out, self.seed, self.processes = settings, data, out, seed, processes
        self.remote = remote
        self.steps = settings.samples // settings.batch_size
        self.parts = settings.accumulate * settings.candidates  # batches that are read for a step
        self.step, self.seconds, self.resumed = 0, 0.0, False
        self.teachers = teacher_cards(data, settings)
        make = captioner_stepper if settings.captioning else Stepper
        self.stepper = make(settings, self.teachers, self.steps, seed, processes)
        self.stopping = Stopping(settings.stop_on, settings.patience)

    def stream(self) -> Stream:
        """The batches from here to the end."""
        live, span = self.stepper.live, (self.step * self.parts, self.steps * self.parts)
        sizes, teachers = [self.stepper.eye, *(live.sizes if live else [])], () if live else tuple(self.teachers)
        return stream_of(self.settings, self.data, sizes, teachers, self.seed, self.processes, span)

    def go(self, evaluate: Callable[[LoadedModel], dict] | None, progress: bool) -> None:
        """All steps from here to the end."""
        settings, first = self.settings, self.processes.first
        tokens = Tokens(self.stepper.loaded.tokenizer, self.stepper.cut)
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(contextlib.closing(self.log())) if first else None
            fed = feed(
                self.stream(), tokens, self.processes.device, settings.workers, negated=settings.hard_negatives > 0
            )
            stack.enter_context(contextlib.closing(fed))
            shown = progress_bar(self.step, self.steps, self.out.name, progress and first)
            bar = stack.enter_context(contextlib.closing(shown))
            asked = stack.enter_context(stop_asked()) if settings.checkpoint_every else None
            meter, found = Meter(), None
            while self.step < self.steps and not self.stopping.enough:
                with meter.waiting():
                    batches = [next(fed) for _ in range(self.parts)]
                found = self.stepper(self.step, batches) or found
                self.step += 1
                meter.samples += settings.batch_size
                bar.update()
                evaluating, saving = self.due(settings.evaluate_every), self.due(settings.checkpoint_every)
                logging = self.due(settings.log_every) or evaluating or saving or self.step in (1, self.steps)
                if found and logging:
                    line = self.line(*found, batches, meter)
                    if log:
                        log.write(line)
                        bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
                elif found and self.stepper.looks and not math.isfinite(found[1]):
                    self.stop(*found, batches)
                with meter.paused():
                    if evaluate is not None and (evaluating or self.step == self.steps):
                        self.measure(evaluate, log)
                    stopped = asked is not None and self.processes.any(asked())
                    if (saving or stopped) and self.step < self.steps:
                        self.checkpoint()
                if stopped and self.step < self.steps:
                    raise stopped_at(self.out, self.step, self.steps, checkpoints.list_steps(self.out / "checkpoints"))

            if found is None and self.step and not self.resumed:
                reasons = dict(self.processes.total(self.stepper.dropped))
                raise ValueError(f"{self.data}: no batch held a sample that can be used ({reasons})")

    def due(self, every: int) -> bool:
        """Whether something that happens every `every` steps (0: never) happens after this one."""
        return bool(every) and self.step % every == 0

    def log(self) -> Log:
        """The record, cut back to this step."""
        config = {**dataclasses.asdict(self.settings), "seed": self.seed}
        return Log(self.out, self.step, self.settings.tracker, "tracker", config)

    def line(
        self, losses: dict[str, Tensor], norm: Tensor, batches: list[PreparedBatch], meter: Meter
    ) -> dict[str, Any]:
        """One line of the log; the only place of a step where a GPU is waited for."""
        found = self.processes.sums(losses)
        if not (math.isfinite(found["loss"]) and self.stepper.sound(norm)):
            self.stop(losses, norm, batches)
        seconds, waited, rate = meter.read()
        self.seconds += seconds
        return {
            "step": self.step,
            "samples": self.step * self.settings.batch_size,
            "loss": found.pop("loss"),
            **found,
            "lr": self.stepper.optimizer.param_groups[0]["lr"],
            "logit_scale": self.stepper.model.logit_scale.exp().item(),
            "grad_norm": float(norm),
            "samples_per_second": round(rate, 1),
            "waiting": round(waited, 3),
            "seconds": round(self.seconds, 3),
        }

    def stop(self, losses: dict[str, Tensor], norm: Tensor, batches: list[PreparedBatch]) -> None:
        """Say what is known about a loss or gradient that is not a number, and raise."""
        values = {name: float(value) for name, value in losses.items()}
        last = checkpoints.list_steps(self.out / "checkpoints")
        where, facts = f"step {self.step} of {self.out}", self.stepper.facts(norm)
        raise diverged(where, values, facts, batches[0].uids[:3], last)

    def measure(self, evaluate: Callable[[LoadedModel], dict], log: Log | None) -> None:
        """Evaluate in the first process; every process learns whether it was enough."""
        loaded = self.stepper.current()
        if log:
            found = self.evaluate(evaluate, loaded)
            log.write({"step": self.step, "evaluation": found})
            self.stopping.look(found, self.step, loaded.model)
        if self.settings.stop_on:
            self.stopping.enough = self.processes.any(self.stopping.enough)

    def evaluate(self, evaluate: Callable[[LoadedModel], dict], loaded: LoadedModel) -> dict:
        """The callback's numbers, the model left in training mode."""
        loaded.model.eval()
        try:
            return dict(evaluate(loaded))
        finally:
            training_mode(self.stepper.model, self.settings.lock)

    def checkpoint(self) -> None:
        """Everything needed to go on from here, written by the first process."""
        state = {**self.stepper.state(), "dropped": dict(self.processes.total(self.stepper.dropped))}
        if self.processes.first:
            state["loader"] = {"batches": self.step * self.parts, "seed": self.seed}
            state["random"] = {"seed": self.seed, "step": self.step, "cpu": torch.get_rng_state()}
            state |= {"seconds": self.seconds, "stopping": self.stopping.state()}
            saved = checkpoints.save(self.out / "checkpoints", self.step, state)
            if saved and self.remote:
                self.remote.save(saved, self.step)
        self.processes.wait()

    def resume(self) -> None:
        """Go back to the newest checkpoint, if there is one.

        Raises:
            ValueError: processes found different ones.
        """
        device = "cpu" if self.stepper.sharded else self.processes.device
        state = checkpoints.load_latest(self.out / "checkpoints", device)
        check_found(self.processes.counts(state["step"] if state else 0), self.out)
        if state is None:
            return
        self.stepper.load_state(state)
        torch.set_rng_state(state["random"]["cpu"].cpu())
        self.step, self.seconds, self.resumed = state["step"], state["seconds"], True
        self.stopping.load_state(state["stopping"])

    def finish(self, work: Work) -> None:
        """The first process saves the model and its manifest; the checkpoints are not needed any more."""
        dropped, loaded = self.processes.total(self.stepper.dropped), self.stepper.current()
        if not self.processes.first:
            return
        loaded.model.eval()
        facts = {"seed": self.seed, "samples": self.step * self.settings.batch_size, "steps": self.step}
        if self.stopping.weights is not None:
            loaded.model.load_state_dict(self.stopping.weights)
            facts |= {"best_step": self.stopping.step, self.settings.stop_on: self.stopping.best}
        scale = loaded.model.logit_scale.exp().item()
        card = {**facts, "logit_scale": scale, "settings": dataclasses.asdict(self.settings)}
        save_model(loaded, self.out, name=self.settings.model, card=card)
        work.commit(
            **facts,
            logit_scale=scale,
            seconds=round(self.seconds, 2),
            processes=self.processes.size,
            precision=self.stepper.precision,
            teachers={name: card.to_json() for name, card in self.teachers.items()},
            dropped=dict(sorted(dropped.items())),
        )
        shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
