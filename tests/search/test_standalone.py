"""Training from scratch: it learns, its rates are the schedule's, and a resumed run is the same run."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from killing import assert_same
from torch import nn

from nasedu import Genotype, Network, accuracy, get_dataset
from nasedu.data.datasets import batch_at, seeded
from nasedu.data.images import DatasetError
from nasedu.errors import ArgumentError
from nasedu.search.checkpoint import CheckpointError
from nasedu.search.standalone import StandaloneTrainer, cosine, one_cycle
from nasedu.space.small import SmallCNN, matrix

ARCH = matrix(("conv_3x3", "skip_connect", "conv_1x1"))
SKIPS = ((("sep_conv_3x3", 0), ("skip_connect", 1)), (("max_pool_3x3", 0), ("skip_connect", 2)))


def as_it_is(x, generator):
    return x


def small(checkpoint: Path | None = None, seed: int = 0, lr: float = 0.1, **options) -> StandaloneTrainer:
    """32 images of 8x8 pixels, batches of 8, so 4 steps an epoch; by default 2 epochs."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = SmallCNN(2, search=False)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    options = {"num_epochs": 2, "arch": ARCH, "batch_size": 8, "subset": (32, 20), **options}
    train, valid = get_dataset("shapes10", subset=options.pop("subset"), seed=3, input_size=8)
    options = {"dataset": train, "valid": valid, "optimizer": optimizer, "model": model, **options}
    return StandaloneTrainer(**options, device="cpu", checkpoint=checkpoint, seed=seed, progress=False)


def derived(images: int = 16, pixels: int = 16, auxiliary: bool = False, **options) -> StandaloneTrainer:
    """A derived network of 3 cells of 2 nodes; batches of 4."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Network(Genotype(SKIPS, SKIPS), 2, 10, 3, auxiliary=auxiliary)
    train, valid = get_dataset("shapes10", subset=(images, 10), input_size=pixels)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    options = {"num_epochs": 3, "batch_size": 4, "augment": as_it_is, "device": "cpu", **options}
    return StandaloneTrainer(model, optimizer, dataset=train, valid=valid, progress=False, **options)


def left_behind(trainer):
    return dict(trainer.model.state_dict()), trainer.optimizer.state_dict(), trainer.history.epochs


# ---- the schedule


def test_the_schedules_at_their_ends_and_between():
    assert cosine(0) == 1 and cosine(1) == 0
    assert cosine(1 / 3) == pytest.approx(0.75)  # (1 + cos 60 degrees) / 2
    assert one_cycle(0) == 0.001 / 0.2, "not zero: the first step must move, too"
    assert one_cycle(0.1) == pytest.approx(0.5) and one_cycle(0.2) == 1
    assert one_cycle(0.6) == pytest.approx(0.5) and one_cycle(1) == 0
    assert one_cycle(0.25, warm_up=0.5) == pytest.approx(0.5)


def test_each_step_has_its_own_rate_in_each_group_of_weights():
    trainer = small(schedule=one_cycle)
    weights = list(trainer.model.parameters())
    groups = [{"params": weights[:3], "lr": 0.1}, {"params": weights[3:], "lr": 0.01}]
    optimizer = torch.optim.SGD(groups, 0.1)
    trainer = small(model=trainer.model, optimizer=optimizer, schedule=one_cycle)
    seen, step = [], optimizer.step
    optimizer.step = lambda: seen.append([group["lr"] for group in optimizer.param_groups]) or step()
    history = trainer.fit()
    assert seen == [[pytest.approx(lr * one_cycle(i / 8)) for lr in (0.1, 0.01)] for i in range(8)]
    assert history.column("lr") == [seen[3][0], seen[7][0]]


# ---- a step


def test_it_learns_its_images_by_heart():
    torch.manual_seed(0)
    model = SmallCNN(8, search=False)
    images, _ = get_dataset("shapes10", subset=(40, 10), input_size=16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    trainer = StandaloneTrainer(
        model, optimizer, 40, images, images, 10, "cpu",
        arch=ARCH, schedule=one_cycle, augment=as_it_is, progress=False,
    )  # fmt: skip
    history = trainer.fit()
    assert history.epochs[0]["train_loss"] > 2.2 and history.epochs[-1]["train_loss"] < 0.5
    assert history.epochs[-1]["valid_acc1"] >= 0.95, "by the running averages, too"


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own():
    seen = []

    def augment(x, generator):
        seen.append(x)
        return x

    trainer = small(augment=augment)
    trainer.fit()
    epochs = [torch.cat(seen[:4]), torch.cat(seen[4:])]
    pixels = trainer.dataset.images.float() / 255
    for epoch in epochs:
        assert sorted(epoch.sum(dim=(1, 2, 3)).tolist()) == sorted(pixels.sum(dim=(1, 2, 3)).tolist())
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("grad_clip", [0.0, 0.5])
def test_a_step_with_an_auxiliary_head_is_that_of_both_losses(grad_clip):
    trainer = derived(images=4, pixels=32, auxiliary=True, grad_clip=grad_clip)
    twin = copy.deepcopy(trainer.model)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    numbers = trainer.train_step(0, 0)

    order = torch.randperm(4, generator=seeded(0, 0))
    x, y = batch_at(trainer.dataset, order)
    logits, auxiliary = twin(x)
    loss = F.cross_entropy(logits, y) + 0.4 * F.cross_entropy(auxiliary, y)
    loss.backward()
    if grad_clip:
        norm = nn.utils.clip_grad_norm_(twin.parameters(), grad_clip)
        assert norm > 2 * grad_clip, "else the case would show nothing"
    optimizer.step()
    assert numbers["train_loss"] == pytest.approx(loss.item())
    assert numbers["train_acc1"] == pytest.approx(accuracy(logits, y)["acc1"]), "of the main head"
    for ours, theirs in zip(trainer.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_drop_path_rises_in_a_straight_line_and_drops():
    seen = []
    trainer = derived(drop_path=0.3)
    trainer.model.register_forward_pre_hook(
        lambda net, _: seen.append(round(net.drop_path, 9)) if net.training else None
    )
    trainer.fit()
    assert seen[1:] == [0.0] * 4 + [0.1] * 4 + [0.2] * 4  # the first is the trial before the first step
    without = derived(drop_path=0.0).fit()
    assert trainer.history.epochs[0] == without.epochs[0] and trainer.history.epochs[1] != without.epochs[1]


def test_a_model_of_another_precision_gets_images_of_its_own():
    model = SmallCNN(2, search=False).double()
    trainer = small(model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    assert trainer.train_step(0, 0)["train_loss"] > 0
    assert trainer.evaluate(trainer.valid)["loss"] > 0


def test_a_compiled_model_is_trained_the_same():
    # A backend that records the graph and runs it as it is: no compiler needed, and no rounding of its own.
    def run(**options):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        trainer = small(num_epochs=1, arch=None, model=model, optimizer=optimizer, **options)
        trainer.fit()
        return trainer

    plain, compiled = run(), run(compile="aot_eager")
    assert compiled.model._compiled_call_impl is not None and plain.model._compiled_call_impl is None
    for name, weight in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], weight, rtol=1e-5, atol=1e-6)
    assert compiled.config()["compile"] == "aot_eager" and "compile" not in plain.config()
    with pytest.raises(ArgumentError, match="compile is 'fast'; wanted True, False, or one of .*inductor"):
        small(compile="fast")


# ---- evaluation


def test_evaluation_counts_by_the_running_averages_and_leaves_no_trace():
    trainer = small()
    trainer.fit()
    model = trainer.model.train()
    model.last.eval()  # as someone might freeze a batch norm
    before = copy.deepcopy(left_behind(trainer))
    modes = [module.training for module in model.modules()]
    torch.manual_seed(7)
    measured = trainer.evaluate(trainer.valid)
    assert_same(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(7)))
    assert [module.training for module in model.modules()] == modes
    assert_same(before, copy.deepcopy(left_behind(trainer)))

    x, y = batch_at(trainer.valid, torch.arange(20))
    logits = copy.deepcopy(model).eval()(x, ARCH)
    assert measured["loss"] == pytest.approx(F.cross_entropy(logits, y).item())
    assert measured["acc1"] == pytest.approx(accuracy(logits, y)["acc1"])
    assert trainer.history.epochs[-1]["valid_loss"] == measured["loss"]
    assert set(trainer.history.epochs[-1]) == {
        "epoch", "lr", "train_loss", "train_acc1", "valid_loss", "valid_acc1",
    }  # fmt: skip


def test_the_auxiliary_head_has_no_say_in_evaluation():
    trainer = derived(images=4, pixels=32, auxiliary=True)
    x, y = batch_at(trainer.valid, torch.arange(10))
    logits = copy.deepcopy(trainer.model).eval()(x)
    assert trainer.evaluate(trainer.valid)["loss"] == pytest.approx(F.cross_entropy(logits, y).item())


# ---- the same run again


class Killed(Exception):
    pass


def killed_at(trainer: StandaloneTrainer, steps: int) -> StandaloneTrainer:
    """Fit until an exception comes in step number `steps`, before it is done."""
    step = trainer.train_step

    def train_step(epoch, number):
        if epoch * trainer.steps_per_epoch + number == steps:
            raise Killed
        return step(epoch, number)

    trainer.train_step = train_step
    with pytest.raises(Killed):
        trainer.fit()
    return trainer


@pytest.mark.parametrize(
    "make, steps",
    [(partial(small, schedule=one_cycle), 8), (partial(derived, drop_path=0.3, num_epochs=2), 8)],
    ids=["small", "drop_path"],
)
def test_a_run_stopped_after_any_step_and_resumed_is_the_undisturbed_run(tmp_path, make, steps):
    undisturbed = make()
    undisturbed.fit()
    for stop in (1, 3, 4, 6):  # within an epoch, before its last step, at its end
        path = tmp_path / f"{stop}.pt"
        killed_at(make(checkpoint=path, checkpoint_every=1), stop)
        resumed = make(checkpoint=path)
        counted = []
        train_step = resumed.train_step
        resumed.train_step = lambda e, s, step=train_step, counted=counted: counted.append(s) or step(e, s)
        resumed.fit()
        assert len(counted) == steps - stop, "no step is done twice"
        assert_same(left_behind(undisturbed), left_behind(resumed))


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    runs = [small(seed=seed) for seed in (1, 1, 2)]
    for trainer in runs:
        trainer.fit()
    assert_same(left_behind(runs[0]), left_behind(runs[1]))
    assert runs[0].history != runs[2].history


@pytest.mark.parametrize(
    "other, named",
    [
        ({"arch": matrix(("none", "conv_3x3", "none"))}, "'arch.cell'"),
        ({"lr": 0.2}, "'optimizer.lr': 0.1.*'optimizer.lr': 0.2"),
        ({"subset": (35, 20)}, "'data.inputs'"),
        ({"grad_clip": 1.0}, "'grad_clip'"),
        ({"seed": 5}, "'seed'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other, named):
    small(checkpoint=tmp_path / "run.pt", num_epochs=1).fit()
    with pytest.raises(CheckpointError, match=named):
        small(checkpoint=tmp_path / "run.pt", num_epochs=1, **other).fit()


# ---- errors


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"subset": (7, 20)}, DatasetError, "7 images give no batch of batch_size=8"),
        ({"num_epochs": 0}, ValueError, "num_epochs is 0; wanted a whole number from 1 up"),
        ({"drop_path": 0.2}, ValueError, "drop_path=0.2, but a SmallCNN has none"),
    ],
    ids=["images", "epochs", "drop_path"],
)
def test_what_cannot_be_trained_is_told_at_once(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)


def test_nothing_to_evaluate_on_is_told_at_once():
    train, valid = get_dataset("shapes10", subset=(8, 8), input_size=8)
    with pytest.raises(DatasetError, match="0 validation images"):
        small(dataset=train, valid=valid.take([]))
