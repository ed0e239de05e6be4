"""The training loop that every trainer shares: epochs, schedule, history, checkpoint and resume, Ctrl-C.

A run is a function of its seed. Whatever is random in step s of epoch e (the batch, its crops, dropout) is
drawn from a generator made from (seed, e, s), so a checkpoint needs no random state, and a run that was
killed and resumed gives bit for bit what an undisturbed one gives.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nasedu.data.datasets import batch_at, seeded
from nasedu.data.images import InMemory
from nasedu.errors import ArgumentError, check_whole, short
from nasedu.files import locked
from nasedu.search import checkpoint, fingerprint
from nasedu.search.evaluation import Mean
from nasedu.search.history import History
from nasedu.search.memory import channels_last
from nasedu.search.trial import IMAGES, check_memory, check_optimizer, trial
from nasedu.search.watch import EVERY, Watch, check_sound, is_norm


def default_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def watched() -> bool:
    """Whether somebody may see a bar: on a terminal, or on the page of a notebook's kernel."""
    python = sys.modules.get("IPython")
    return sys.stderr.isatty() or (python is not None and hasattr(python.get_ipython(), "kernel"))


def device_of(device: Any) -> torch.device:
    """The device of this name, None: `default_device()`. Raises ArgumentError for one that is not here."""
    try:
        made = torch.device(device) if device is not None else default_device()
        torch.empty(0, device=made)  # the name of a device is taken for one that is not there, too
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"device is {short(device)}; wanted 'cpu' or another one that is here: {reason}"
        ) from error
    return made


def check_parts(model: Any, optimizer: Any, callbacks: Any, checkpoint: Any) -> None:
    """Raise ArgumentError unless they are of the types that a trainer wants."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model is {short(model)}; wanted an nn.Module")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ArgumentError(f"optimizer is {short(optimizer)}; wanted one of torch.optim")
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise ArgumentError(f"callbacks is {short(callbacks)}; wanted a list of functions")
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise ArgumentError(f"checkpoint is {short(checkpoint)}; wanted a path, or None")


class Trainer:
    """The loop: `num_epochs` epochs of `steps_per_epoch` calls of `train_step`. Subclasses say what a
    step is.

    `fit()` returns a `History`. Ctrl-C ends it after the step at hand, saves the checkpoint and returns
    the history so far; `fit()` again goes on from there. With `checkpoint`, a path, the state is saved
    there every `checkpoint_every` steps and after each epoch, and a file that is already there is
    resumed from. `scheduler` (a torch LRScheduler) is stepped once an epoch. Each of `callbacks` is
    called with the trainer after each epoch. `log_frequency` prints a line every so many steps.
    `progress` shows a bar (default: on a terminal and in a notebook). `precision="bf16"` lets the steps
    compute in bfloat16 where that is safe (`torch.autocast`); the weights stay as they are.

    Raises ArgumentError for an optimizer that lacks weights of the model, or another optimizer's scheduler.
    `fit()` raises DivergedError at the step that gives a number that is not finite, and TooLargeError where
    memory does not suffice, before the first step if that can be seen.
    """

    kind = "Trainer"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        num_epochs: int,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        log_frequency: int | None = None,
        *,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 100,
        callbacks: Sequence[Callable[[Any], None]] = (),
        progress: bool | None = None,
        precision: str | None = None,
    ):
        num_epochs = check_whole("num_epochs", num_epochs, 1)
        batch_size = check_whole("batch_size", batch_size, 1)
        checkpoint_every = check_whole("checkpoint_every", checkpoint_every, 1)
        seed = check_whole("seed", seed, 0, 2**64 - 1)
        if log_frequency is not None:
            log_frequency = check_whole("log_frequency", log_frequency, 0)
        if precision not in (None, "bf16"):
            raise ArgumentError(f'precision is {short(precision)}; wanted "bf16", or None: as the model is')
        check_parts(model, optimizer, callbacks, checkpoint)
        self.device = device_of(device)
        self.model, self.precision = channels_last(model.to(self.device)), precision
        check_optimizer(self.model, optimizer, scheduler)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.num_epochs, self.batch_size, self.seed = num_epochs, batch_size, seed
        self.log_frequency, self.callbacks = log_frequency, tuple(callbacks)
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None
        self.checkpoint_every = checkpoint_every
        self.progress = watched() if progress is None else progress
        self.epoch = self.step = 0
        self.mean, self.watch = Mean(), Watch()
        self.step_so_far: Mapping[str, Any] = {}  # a step may say what it has measured, should it fail
        self.history = History()
        self._started = self._only_whole = False
        # What must be the same for a checkpoint to be resumed; a subclass adds to it.
        self.remembered: dict[str, Any] = {
            "trainer": self.kind,
            "num_epochs": num_epochs,
            "batch_size": batch_size,
            "seed": seed,
            "model": fingerprint.model(self.model),
            "optimizer": fingerprint.optimizer(optimizer),
            "scheduler": fingerprint.described(scheduler),
            **({"precision": precision} if precision else {}),
        }

    # What a subclass says.

    steps_per_epoch: int

    def train_step(self, epoch: int, step: int) -> Mapping[str, Any]:
        """Do one step and return numbers to average over the epoch, as they come from the device, unread.

        The run ends where one is not finite. Those named "...grad_norm" are watched only.
        """
        raise NotImplementedError

    def descend(self, loss: Tensor, grad_clip: float) -> Tensor:
        """One step of the optimizer down `loss`, the gradient's norm bounded by `grad_clip` (0: no bound).

        Returns the norm before, ().
        """
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), grad_clip if grad_clip > 0 else torch.inf)
        self.optimizer.step()
        return norm

    def trial(self, x: Tensor) -> Any:
        """What a training step's model makes of a batch x (B, ...): logits; `trial.trial` asks."""
        raise NotImplementedError

    def sample(self) -> InMemory | None:
        """The items that the weights are trained on, if they are in memory."""
        return None

    def learned(self) -> dict[str, Any]:
        """What the steps change, nested: tensors and floats, all finite as long as the run is sound."""
        averages = ("running_mean", "running_var")
        return {
            "weights": dict(self.model.named_parameters()),
            "averages": {k: v for k, v in self.model.named_buffers() if k.endswith(averages)},
            "optimizer": self.optimizer.state_dict()["state"],
        }

    def end_epoch(self) -> dict[str, Any]:
        """More to write into this epoch's line of the history; must change nothing."""
        return {}

    def config(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be resumed: plain numbers and strings."""
        return {**self.remembered, "steps_per_epoch": self.steps_per_epoch}

    def extra_state(self) -> dict[str, Any]:
        """Tensors, optimizer states and numbers of the subclass that a checkpoint must hold."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `extra_state` gave."""

    def finished(self) -> bool:
        """Is there nothing left to do?"""
        return self.epoch >= self.num_epochs

    # The loop.

    def fit(self) -> History:
        """Train to the end, or to Ctrl-C; return the history. Called again, go on where it stopped.

        Raises FileError, before the first step, if the checkpoint can't be written or another process has it.
        """
        with nullcontext() if self.checkpoint is None else locked(self.checkpoint):
            return self._fit()

    def _fit(self) -> History:
        if not self._started and self.checkpoint is not None and self.checkpoint.exists():
            self.load(self.checkpoint)
            if not self.finished():
                print(f"resuming {self.checkpoint} at epoch {self.epoch + 1}, step {self.step + 1}")
        self._started = True
        if self.checkpoint is not None and not self.finished():
            checkpoint.try_to_save(self, self.checkpoint)
        gpus = [self.device] if self.device.type == "cuda" else []
        bar = tqdm(
            total=self.num_epochs * self.steps_per_epoch,
            initial=self.epoch * self.steps_per_epoch + self.step,
            desc=self.kind,
            unit="step",
            disable=not self.progress,
        )
        # The steps seed torch's global generator (for dropout); the caller's own state is put back.
        with _interruptible() as interrupted, torch.random.fork_rng(devices=gpus), bar:
            if (data := self.sample()) is not None and not self.finished():
                x, _ = batch_at(data, torch.arange(min(IMAGES, len(data))), device=self.device)
                with self._precisely():
                    trial(self, data, x)
            while not self.finished():
                bar.set_description(f"{self.kind}, epoch {self.epoch + 1} of {self.num_epochs}")
                started = time.perf_counter()
                while self.step < self.steps_per_epoch and not interrupted():
                    self._one_step()
                    bar.update()
                    bar.set_postfix(
                        {k: f"{v:.3f}" for k, v in list(self.mean.value().items())[:3]}, refresh=False
                    )
                self.history.seconds += time.perf_counter() - started
                if self.step < self.steps_per_epoch:
                    return self._stopped()
                self._finish_epoch(bar)
        return self.history

    def fit_to_the_end(self) -> History:
        """As `fit`, for a job whose runs count only as a whole: Ctrl-C raises KeyboardInterrupt."""
        self._only_whole = True
        return self.fit()

    def _one_step(self) -> None:
        torch.manual_seed(seeded(self.seed, self.epoch, self.step).initial_seed())
        self.step_so_far = {}
        try:
            with self._precisely():
                numbers = self.train_step(self.epoch, self.step)
        except Exception as error:
            check_memory(error, self)
            # What a model refuses may be that the run has diverged.
            self._measured(self.step_so_far)
            self._read()
            self.check_sound()
            raise
        self._measured(numbers)
        logs = bool(self.log_frequency) and self.step % (self.log_frequency or 1) == 0
        if self.device.type == "cpu" or logs or len(self.watch) >= EVERY:
            self._read()
        if logs:
            text = "  ".join(f"{name} {value:.4f}" for name, value in self.mean.value().items())
            tqdm.write(
                f"epoch {self.epoch + 1}/{self.num_epochs}  step {self.step}/{self.steps_per_epoch}  {text}"
            )
        if (
            self.checkpoint is not None
            and self.step % self.checkpoint_every == 0
            and self.step < self.steps_per_epoch
        ):
            self._read()
            self.check_sound()
            self.save(self.checkpoint)

    def _precisely(self) -> Any:
        if self.precision is None:
            return nullcontext()
        # Without the cache: it would keep the weights of before a step for what comes after it.
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    def _measured(self, numbers: Mapping[str, Any]) -> None:
        self.step += 1
        self.watch.add(self._where(), self.optimizer.param_groups[0]["lr"], numbers)

    def _where(self) -> str:
        if not self.step:
            return f"after epoch {self.epoch} of {self.num_epochs}"
        return f"epoch {self.epoch + 1} of {self.num_epochs}, step {self.step} of {self.steps_per_epoch}"

    def _read(self) -> None:
        """Read what the steps since the last time have measured. Raises DivergedError."""
        for numbers in self.watch.read():
            self.mean.add({name: value for name, value in numbers.items() if not is_norm(name)})

    def check_sound(self) -> None:
        """Raise DivergedError if what the steps change is not finite."""
        check_sound(self._where(), self.learned(), self.optimizer.param_groups[0]["lr"])

    def _finish_epoch(self, bar: tqdm) -> None:
        self._read()
        self.check_sound()
        line = {"epoch": self.epoch + 1, "lr": self.optimizer.param_groups[0]["lr"]}
        line |= {**self.mean.value(), **self.end_epoch()}
        check_sound(self._where(), {"measured": line}, line["lr"])
        self.history.epochs.append(line)
        self.epoch, self.step, self.mean = self.epoch + 1, 0, Mean()
        if self.scheduler is not None:
            self.scheduler.step()
        # Before the checkpoint, so that what a callback adds to the history is not lost with the process.
        for callback in self.callbacks:
            callback(self)
        if self.checkpoint is not None:
            self.save(self.checkpoint)

    def _stopped(self) -> History:
        if self._only_whole:
            raise KeyboardInterrupt
        kept = "fit() goes on from here"
        self._read()
        if self.checkpoint is not None:
            self.check_sound()
            self.save(self.checkpoint)
            kept = f"saved {self.checkpoint}; fit() goes on from there"
        print(f"interrupted at epoch {self.epoch + 1}, after step {self.step}/{self.steps_per_epoch}: {kept}")
        return self.history

    # Checkpoints.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything a resumed run needs to `path`: whole or not at all, even if killed in between."""
        checkpoint.save(self, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take the state back that `save` wrote.

        Raises CheckpointError, changing nothing, if the file is broken or belongs to another run.
        """
        checkpoint.load(self, path)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Catch the first Ctrl-C in a flag that the loop asks for; a second raises KeyboardInterrupt."""
    seen: list[int] = []

    def handler(signum: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(signum)

    # Only the main thread may set handlers; elsewhere Ctrl-C goes to the main thread anyway.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, previous)
