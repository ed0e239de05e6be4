"""The checks of notebook 04, the mixed edge."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from nasedu.check.contract import Cases, exercise


@exercise("the rim", hint="count the pixels from the middle tap to the outermost one")
def same_padding(answer: Callable) -> Cases:
    """Check exercise 04.1: `answer(kernel, dilation)` is the padding that keeps a map's size."""
    for kernel, dilation in [(3, 1), (5, 1), (3, 2), (5, 2), (1, 1), (7, 3)]:
        yield (
            f"{kernel} x {kernel}, dilation {dilation}",
            answer(kernel, dilation),
            dilation * (kernel - 1) // 2,
        )


@exercise("the mixed edge", hint="softmax of alpha, then the sum over the operations: weight times op(x)")
def mixed_edge(answer: Callable) -> Cases:
    """Check exercise 04.2: `answer(x, ops, alpha)` is the sum of op(x), weighted by the softmax of alpha."""
    x = torch.arange(6.0).reshape(1, 2, 3, 1)
    double, zero, negative = (lambda x: 2 * x), torch.zeros_like, torch.neg
    yield "equal logits give the mean of two", answer(x, [double, zero], torch.zeros(2)), x
    yield (
        "of three, with logits 0, 1, 2",
        answer(x, [double, zero, negative], torch.arange(3.0)),
        x * ((2 - torch.e**2) / (1 + torch.e + torch.e**2)),
    )
    yield (
        "a logit far above the others is that operation alone",
        answer(x, [double, negative], torch.tensor([-50.0, 50.0])),
        -x,
    )
    alpha = torch.zeros(2, requires_grad=True)
    answer(x, [double, negative], alpha).sum().backward()
    # dL/dalpha = p (g - mean): g is 30 and -15, their mean 7.5
    yield "it can be differentiated in alpha", alpha.grad, torch.tensor([11.25, -11.25])


@exercise(
    "the gradient of the softmax", hint="p (g - sum of p g), with g the sum over output_gradient x output"
)
def alpha_gradient(answer: Callable) -> Cases:
    """Check exercise 04.3: `answer(alpha, output_gradient, outputs)` is dL/dalpha of a mixed edge."""
    generator = torch.Generator().manual_seed(0)
    for n in (2, 8):
        alpha = torch.randn(n, generator=generator, requires_grad=True)
        outputs = torch.randn(n, 2, 3, 4, 4, generator=generator)  # (n, B, C, H, W)
        mixture = torch.einsum("o,obchw->bchw", alpha.softmax(dim=0), outputs)
        output_gradient = torch.randn(mixture.shape, generator=generator)
        (expected,) = torch.autograd.grad(mixture, alpha, output_gradient)
        mine = answer(alpha.detach(), output_gradient, outputs)
        yield f"{n} operations: the shape", tuple(mine.shape), (n,)
        yield f"{n} operations: what autograd gives", mine, expected
        yield f"{n} operations: they sum to zero", mine.sum(), 0.0


@exercise(
    "two filters are one", hint="F.pad puts a rim of zeros around the small filter; then mix the filters"
)
def merged_filter(answer: Callable) -> Cases:
    """Check exercise 04.4: `answer(three, five, p)` is one depthwise filter, equal to the mixture of two."""
    generator = torch.Generator().manual_seed(0)
    three = torch.randn(4, 1, 3, 3, generator=generator)
    five = torch.randn(4, 1, 5, 5, generator=generator)
    x = torch.randn(2, 4, 9, 9, generator=generator)
    for p in (torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.3, 0.7])):
        mine = answer(three, five, p)
        shares = f"{p[0]:.1f} of the small one and {p[1]:.1f} of the large one"
        yield f"{shares}: the shape", tuple(mine.shape), (4, 1, 5, 5)
        mixture = p[0] * F.conv2d(x, three, padding=1, groups=4) + p[1] * F.conv2d(
            x, five, padding=2, groups=4
        )
        yield f"{shares}: the same output", F.conv2d(x, mine, padding=2, groups=4), mixture
