"""ENAS: a controller learns, by REINFORCE, to write cells that do well in a supernet.

Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv:1802.03268, section 2.2 and the released code. One epoch:

    1. the child: for each training batch an architecture from the controller; SGD on the weights it uses
    2. the controller: several updates, each by several architectures, each rewarded on one validation batch
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasedu.data.datasets import Transform, batch_at, seeded
from nasedu.errors import ArgumentError, check_number, check_whole, short
from nasedu.search.base import Reward, SamplingSearch
from nasedu.search.controller import Controller
from nasedu.search.decisions import InputPart, Sample
from nasedu.search.evaluation import Mean, Metrics, batch_statistics, prefixed, read
from nasedu.search.fingerprint import described
from nasedu.search.reinforce import advantages, leave_one_out, policy_loss


class EnasTrainer(SamplingSearch):
    """Search any model built from `LayerChoice` and `InputChoice` by ENAS, with the keyword names of NNI 2.x.

    `dataset` is cut into two halves, one for the weights and one for the controller's rewards. `optimizer`
    belongs to the weights. `reward_function(logits, target)` rewards a validation batch, see
    `reward_accuracy`. `ctrl_kwargs` are arguments of `Controller`, which is trained by Adam with rate
    `ctrl_lr`, betas (0, 0.999) and eps 1e-3 (released code). An epoch has `ctrl_steps` controller updates
    (30: released code), each the mean of `ctrl_steps_aggregate` samples. `skip_weight` weighs the
    controller's `skip_penalty`. `grad_clip` bounds the norm of both gradients (0: no bound). Where nothing
    is said a default is NNI's; the released micro search has baseline_decay=0.99, ctrl_lr=0.0035,
    ctrl_steps_aggregate=10.

    Keyword-only, what a small search needs before the controller learns (see notebook 09):

    - `child_epochs`: at first so many epochs train the child alone. One update's rewards are measured in each
      and none is made: accuracies of an untrained child tell architectures apart by noise.
    - `paired`: all samples of an update are rewarded on the same `reward_images` images of the second half
      (default: one batch), and each is compared with the mean of the others (`leave_one_out`), which takes
      the place of the moving baseline. The luck of a batch is larger than the differences between samples;
      here it is the same for all of them and cancels.

    At the end `n_candidates` samples (10) are scored on the same `candidate_images` images (2000) of the
    second half, and the best is exported. Everything else: see `SearchTrainer`.

    A line of the history has train_loss and metrics (of the child's batches), valid_loss and metrics, reward
    R and entropy (of the controller's), baseline, and "arch": the mean matrices of 100 samples, which is the
    controller's distribution; with open inputs also skip_rate, the share of them that is taken.
    """

    kind = "ENAS"

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Metrics,
        reward_function: Reward,
        optimizer: torch.optim.Optimizer,
        num_epochs: int,
        dataset: Any,
        batch_size: int = 64,
        workers: int = 4,
        device: torch.device | str | None = None,
        log_frequency: int | None = None,
        grad_clip: float = 5.0,
        entropy_weight: float = 0.0001,
        skip_weight: float = 0.8,
        baseline_decay: float = 0.999,
        ctrl_lr: float = 0.00035,
        ctrl_steps_aggregate: int = 20,
        ctrl_kwargs: Mapping[str, Any] | None = None,
        *,
        ctrl_steps: int = 30,
        child_epochs: int = 0,
        paired: bool = False,
        reward_images: int | None = None,
        n_candidates: int = 10,
        candidate_images: int = 2000,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        augment: Transform | Literal[False] | None = None,
        valid_share: float = 0.5,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 100,
        callbacks: Sequence[Callable[[Any], None]] = (),
        progress: bool | None = None,
        precision: str | None = None,
    ):
        super().__init__(
            model, loss, metrics, optimizer, num_epochs, dataset, batch_size, device, log_frequency,
            grad_clip, scheduler=scheduler, augment=augment, valid_share=valid_share, seed=seed,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, callbacks=callbacks, progress=progress,
            precision=precision,
        )  # fmt: skip
        for name, rate in (("entropy_weight", entropy_weight), ("skip_weight", skip_weight),
                           ("baseline_decay", baseline_decay), ("ctrl_lr", ctrl_lr)):  # fmt: skip
            check_number(name, rate, 0, 1 if name == "baseline_decay" else 1e6)
        if ctrl_kwargs is not None and not isinstance(ctrl_kwargs, Mapping):
            raise ArgumentError(f"ctrl_kwargs is {short(ctrl_kwargs)}; wanted arguments of Controller")
        self.judge_by(reward_function, n_candidates, candidate_images)
        self.controller = Controller.for_model(
            model, **{"generator": seeded(self.seed, 3), **(ctrl_kwargs or {})}
        )
        ctrl_steps = check_whole("ctrl_steps", ctrl_steps, 1)
        ctrl_steps_aggregate = check_whole("ctrl_steps_aggregate", ctrl_steps_aggregate, 1, 10_000)
        child_epochs = check_whole("child_epochs", child_epochs, 0, num_epochs)
        if reward_images is not None:
            check_whole("reward_images", reward_images, 0)
        if paired and ctrl_steps_aggregate < 2:
            raise ValueError("paired rewards compare samples: give ctrl_steps_aggregate=2 or more")
        if reward_images is not None and not (paired and 1 <= reward_images <= len(self.valid_half)):
            raise ValueError(
                f"reward_images={reward_images} belong to paired=True and are at most the "
                f"{len(self.valid_half)} images of the second half"
            )
        self.child_epochs, self.paired = child_epochs, paired
        self.reward_images = reward_images or batch_size
        self.entropy_weight, self.skip_weight = entropy_weight, skip_weight
        self.baseline_decay, self.ctrl_steps_aggregate = baseline_decay, ctrl_steps_aggregate
        self.ctrl_optimizer = torch.optim.Adam(
            self.controller.parameters(), lr=ctrl_lr, betas=(0.0, 0.999), eps=1e-3
        )
        self.baseline: float | None = None
        self.child_steps = self.steps_per_epoch
        self.steps_per_epoch = self.child_steps + ctrl_steps
        self.remembered |= {
            "ctrl_lr": ctrl_lr,
            "ctrl_steps": ctrl_steps,
            "ctrl_steps_aggregate": ctrl_steps_aggregate,
            "ctrl_kwargs": described(ctrl_kwargs or {}),
            "baseline_decay": baseline_decay,
            "entropy_weight": entropy_weight,
            "skip_weight": skip_weight,
            "child_epochs": child_epochs,
            "paired": paired,
            "reward_images": self.reward_images,
        }
        self._child_archs: tuple[int, Sample] | None = None

    # One epoch.

    def train_step(self, epoch: int, step: int) -> dict[str, float]:
        """First the steps of the child, one for each training batch, then those of the controller."""
        if step < self.child_steps:
            return self.child_step(epoch, step)
        number = step - self.child_steps
        if epoch >= self.child_epochs:
            return self.controller_step(epoch, number)
        return self.rewards_of(epoch, number)[2] if number == 0 else {}

    def child_step(self, epoch: int, number: int) -> dict[str, float]:
        """One step on the weights of one sampled architecture, on training batch `number`."""
        if self._child_archs is None or self._child_archs[0] != epoch:
            # The controller does not move in this phase, so the whole epoch can be drawn at once.
            self._child_archs = epoch, self._draw(self.child_steps, epoch, 4)
        return self.weight_step(*self.train_batch(epoch, number), self._child_archs[1][number])

    def controller_step(self, epoch: int, number: int) -> dict[str, float]:
        """One update of the controller by REINFORCE; the weights of the model stay as they are."""
        sample, rewards, numbers = self.rewards_of(epoch, number)
        rewards = rewards + self.entropy_weight * sample.entropy.detach()
        if self.paired:
            advantage = leave_one_out(rewards)
        else:
            advantage, self.baseline = advantages(rewards, self.baseline, self.baseline_decay)
        loss = policy_loss(sample.log_prob, advantage) + self.skip_weight * sample.skip_penalty.mean()
        self.ctrl_optimizer.zero_grad()
        loss.backward()
        bound = self.grad_clip if self.grad_clip > 0 else torch.inf
        norm = nn.utils.clip_grad_norm_(self.controller.parameters(), bound)
        self.ctrl_optimizer.step()
        return {**numbers, "controller_grad_norm": norm}

    def rewards_of(self, epoch: int, number: int) -> tuple[Sample, Tensor, dict[str, Any]]:
        """The samples of update `number`, their rewards (n,), and means: loss, metrics, reward, entropy.

        Rewards are without the entropy's bonus. Paired samples see the same images, others a batch each. The
        controller stays on the CPU, so what it draws is known there, and a GPU is waited for once an update:
        for the rewards.
        """
        n = self.ctrl_steps_aggregate
        sample = self.controller.sample(n, seeded(self.seed, epoch, 0, number, 5))
        rewarded: list[dict[str, Any]] = []
        judged: list[dict[str, Any]] = []
        with torch.no_grad(), batch_statistics(self.model):
            if self.paired:
                x, y = self.reward_batch(epoch, number)
            for i in range(n):
                if not self.paired:
                    x, y = self.valid_batch(epoch, number * n + i)
                logits = self.model(x, sample[i])
                rewarded.append({"reward": self.reward_function(logits, y)})
                judged.append({"loss": self.loss(logits, y), **self.metrics(logits, y)})
        numbers_of, mean = read([*rewarded, *judged]), Mean()  # waits here, and nowhere else
        rewards = torch.tensor([numbers["reward"] for numbers in numbers_of[:n]])
        for row in numbers_of[n:]:
            mean.add(row)
        bonus = self.entropy_weight * sample.entropy.detach()
        numbers = {"reward": (rewards + bonus).mean(), "entropy": sample.entropy.detach().mean()}
        return sample, rewards, {**prefixed("valid", mean.value()), **numbers}

    def reward_batch(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """`reward_images` images of the second half, drawn for update `number` of this epoch: x, y."""
        order = torch.randperm(len(self.valid_half), generator=seeded(self.seed, epoch, number, 8))
        chosen = order[: self.reward_images]
        return batch_at(
            self.valid_half, chosen, self.augment, seeded(self.seed, epoch, number, 9), self.device
        )

    def _draw(self, n: int, epoch: int, stream: int) -> Sample:
        with torch.no_grad():
            return self.controller.sample(n, seeded(self.seed, epoch, 0, 0, stream))

    # What the search has found.

    def arch(self, n: int = 100) -> dict[str, Tensor]:
        """The mean matrices of n samples: the controller's distribution now. A cell's node sums to 2."""
        sample = self._draw(n, self.epoch, 6)
        return {label: matrices.mean(dim=0) for label, matrices in sample.arch.items()}

    def propose(self, n: int) -> list[dict[str, Tensor]]:
        """Draw n architectures from the controller as it is now."""
        sample = self._draw(n, self.epoch, 7)
        return [sample[i] for i in range(n)]

    # For the history and the checkpoint.

    def end_epoch(self) -> dict[str, Any]:
        """The baseline and the controller's distribution, for the history."""
        arch = self.arch()
        line: dict[str, Any] = {"baseline": self.baseline}
        open_rows = [
            arch[part.label][part.row]
            for part in self.controller.parts
            if isinstance(part, InputPart) and part.n_chosen is None
        ]
        if open_rows:
            line["skip_rate"] = torch.cat(open_rows).mean().item()
        return {**line, "arch": {label: matrix.tolist() for label, matrix in arch.items()}}

    def learned(self) -> dict[str, Any]:
        """The controller, its optimizer and the baseline, too."""
        return {**super().learned(), **EnasTrainer.extra_state(self)}

    def extra_state(self) -> dict[str, Any]:
        """The controller, its optimizer and the baseline."""
        return {
            "controller": self.controller.state_dict(),
            "ctrl_optimizer": self.ctrl_optimizer.state_dict(),
            "baseline": self.baseline,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take controller, optimizer and baseline back."""
        super().load_extra_state(state)
        self.controller.load_state_dict(state["controller"])
        self.ctrl_optimizer.load_state_dict(state["ctrl_optimizer"])
        self.baseline = state["baseline"]
        self._child_archs = None
