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

from mobileclip2_lite.models.embedded import find
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.resolve import resolve
from mobileclip2_lite.models.zoo import save_model
from mobileclip2_lite.recipes import Train
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.training import checkpoints
from mobileclip2_lite.training.captioner_step import captioner_stepper
from mobileclip2_lite.training.checks import check, check_division
from mobileclip2_lite.training.distributed import Processes, connect
from mobileclip2_lite.training.early_stopping import Stopping
from mobileclip2_lite.training.feeding import PreparedBatch, Stream, Tokens, feed
from mobileclip2_lite.training.log import Log, Meter
from mobileclip2_lite.training.remote import Remote
from mobileclip2_lite.training.start import training_mode
from mobileclip2_lite.training.step import Stepper
from mobileclip2_lite.training.stopping import Stopped, stop_asked
from mobileclip2_lite.training.teachers import teacher_cards
from mobileclip2_lite.work.files import sha256_file
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.place import StorePath, place_of
from mobileclip2_lite.work.threads import torch_threads, usable_cores

VERSION = 1
"""Of what a training writes."""
NO_RESULT = ("workers", "checkpoint_every", "log_every", "tracker", "threads")
"""Settings that do not change the trained model."""
LATER = (
    "gated", "hard_negatives", "optimizer", "final_learning_rate", "image_size", "text_from", "lock", "nested", "texts",
    "candidates",
)  # fmt: skip
"""Settings that came after trainings had been finished: at their defaults they leave a training's key as it was."""


class Diverged(RuntimeError):
    """The loss is not a number any more."""


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
    plain = Train()
    identity = {
        k: v
        for k, v in dataclasses.asdict(settings).items()
        if k not in NO_RESULT and not (k in LATER and v == getattr(plain, k))
    }
    cards = teacher_cards(data, settings)
    known = {"logit_scales": {name: card.logit_scale for name, card in cards.items()}}
    if biases := {name: card.logit_bias for name, card in cards.items() if card.logit_bias is not None}:
        known["logit_biases"] = biases
    inputs = {"data": data, **({"start": weights_hash(settings.start)} if settings.start else {})}
    work = Work(target, "train", VERSION, {"train": identity, "seed": seed, **known}, inputs)
    if work.done() is not None:
        return target
    remote = Remote(target, work.key) if isinstance(target, StorePath) else None
    if remote:
        work = dataclasses.replace(work, folder=remote.folder)
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(connect(device))
        check_division(settings, processes.size)
        stack.enter_context(torch_threads(_threads(settings, processes.device)))
        if processes.first:
            stack.enter_context(work.lock())
            if processes.size == 1 and work.done() is not None:  # by a process that was a little faster
                if remote:
                    remote.finish()
                return target
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
    return target


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
        settings, live = self.settings, self.stepper.live
        sizes = [self.stepper.eye, *(live.sizes if live else [])]
        datasets = [
            ReinforcedDataset(
                self.data,
                size,
                settings.batch_size // (self.processes.size * settings.accumulate),
                seed=self.seed,
                views=settings.views,
                teachers=() if live or place else tuple(self.teachers),
                captioners=settings.captioners,
                texts=settings.texts,
                max_views=settings.max_views,
                max_captions=settings.max_captions,
                interpolation=interpolation,
                rank=self.processes.rank,
                world_size=self.processes.size,
                on_mismatch="warn",
            )
            for place, (size, interpolation) in enumerate(sizes)
        ]
        return Stream(datasets, self.step * self.parts, self.steps * self.parts)

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
            bar = stack.enter_context(contextlib.closing(self.bar(progress)))
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
                    raise Stopped(
                        f"{self.out}: asked to stop (SIGTERM) at step {self.step} of {self.steps}; the checkpoint "
                        "stands, and the same command goes on from there"
                    )

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

    def bar(self, progress: bool) -> Any:
        """The progress bar."""
        from tqdm.auto import tqdm

        hidden = not (progress and self.processes.first)
        return tqdm(total=self.steps, initial=self.step, desc=self.out.name, unit="step", disable=hidden)

    def line(
        self, losses: dict[str, Tensor], norm: Tensor, batches: list[PreparedBatch], meter: Meter
    ) -> dict[str, Any]:
        """One line of the log; the only place of a step where a GPU is waited for."""
        names = sorted(losses)
        values = self.processes.sum(torch.stack([losses[name].float() for name in names])).tolist()
        found = dict(zip(names, values, strict=True))
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
        last = checkpoints.list_steps(self.out / "checkpoints")
        stepper = self.stepper
        raise Diverged(
            f"step {self.step} of {self.out}: "
            + ", ".join(f"{name} {value.item():.4g}" for name, value in sorted(losses.items()))
            + f", gradient norm {float(norm):.4g}, learning rate {stepper.optimizer.param_groups[0]['lr']:.3g}, "
            f"logit scale {stepper.model.logit_scale.exp().item():.4g}, precision {stepper.precision}. "
            f"First samples of the batch: {', '.join(batches[0].uids[:3])}. "
            "What to look at, in this order: precision='fp32' (does it go on?), a lower learning_rate or a longer "
            "warmup, grad_clip (is it 0?), embeddings in the shards of these samples that are not finite. "
            + (f"The checkpoint of step {last[-1]} is from before." if last else "There is no checkpoint from before.")
        )

    def measure(self, evaluate: Callable[[LoadedModel], dict], log: Log | None) -> None:
        """Evaluate in the first process; every process learns whether it was enough."""
        if log:
            found = self.evaluate(evaluate)
            log.write({"step": self.step, "evaluation": found})
            self.stopping.look(found, self.step, self.stepper.current().model)
        if self.settings.stop_on:
            enough = torch.tensor([float(self.stopping.enough)], device=self.processes.device)
            self.stopping.enough = bool(self.processes.sum(enough))

    def evaluate(self, evaluate: Callable[[LoadedModel], dict]) -> dict:
        """The callback's numbers, the model left in training mode."""
        loaded = self.stepper.current()
        loaded.model.eval()
        try:
            return dict(evaluate(loaded))
        finally:
            training_mode(self.stepper.model, self.settings.lock)

    def checkpoint(self) -> None:
        """Everything needed to go on from here, written by the first process."""
        dropped = self.processes.total(self.stepper.dropped)
        if self.processes.first:
            state = {**self.stepper.state(), "dropped": dict(dropped)}
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
        state = checkpoints.load_latest(self.out / "checkpoints", self.processes.device)
        steps = self.processes.counts(state["step"] if state else 0)
        if len(set(steps)) > 1:
            raise ValueError(
                f"{self.out}: the processes found checkpoints of different steps ({steps}, by rank): train to a folder "
                "that all machines share, or to a bucket"
            )
        if state is None:
            return
        self.stepper.load_state(state)
        torch.set_rng_state(state["random"]["cpu"].cpu())
        self.step, self.seconds, self.resumed = state["step"], state["seconds"], True
        self.stopping.load_state(state["stopping"])

    def finish(self, work: Work) -> None:
        """The first process saves the model and its manifest; the checkpoints are not needed any more."""
        dropped = self.processes.total(self.stepper.dropped)
        if not self.processes.first:
            return
        loaded = self.stepper.current()
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


def weights_hash(name: str) -> str:
    """SHA-256 of the weights file that a name means; see `embedded.find`.

    Raises:
        ValueError: it is the name of an architecture, without weights.
        FileNotFoundError: there is no such file or folder.
    """
    return sha256_file(resolve(*find(name, "start")).weights)


def _threads(settings: Train, device: torch.device) -> int:
    """CPU threads to take: `settings.threads`; 0 keeps OMP_NUM_THREADS, or takes this process's part of the cores.

    Threads that spin while they wait (OpenMP's default) and a busy loader process on the same cores slow each other
    down manyfold: without OMP_WAIT_POLICY=passive one core is left to the loader.
    """
    wanted = settings.threads
    if not wanted and device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        spinning = os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive"
        share = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        wanted = max(1, share - bool(settings.workers and spinning))
    return wanted or torch.get_num_threads()
