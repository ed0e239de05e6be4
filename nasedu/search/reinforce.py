"""REINFORCE with a moving baseline and an entropy bonus, as ENAS trains its controller.

Williams 1992; ENAS, arXiv:1802.03268, section 2.2, and its released code:

    R    = reward + entropy_weight x H          H is the sample's entropy, as a number
    b   <- b - (1 - decay) (b - R)
    loss = -log p x (R - b)

`leave_one_out` is another b: the mean of the other samples of the same update.
"""

import torch
from torch import Tensor


def moving_baseline(baseline: float, reward: float, decay: float) -> float:
    """Move the baseline towards a reward: b - (1 - decay) (b - R)."""
    return baseline - (1 - decay) * (baseline - reward)


def advantages(rewards: Tensor, baseline: float | None, decay: float) -> tuple[Tensor, float]:
    """R - b for each of the rewards (n,) in turn, and the baseline after them.

    A reward moves b before it is compared with it, as in the released code. That only scales its advantage,
    R - b_new = decay x (R - b_old), so in the mean the gradient keeps its direction. The released code starts
    b at 0; here it starts (None) at the mean of the first rewards, so that even the first updates tell good
    from bad.
    """
    baseline = rewards.mean().item() if baseline is None else baseline
    gains = []
    for reward in rewards.tolist():
        baseline = moving_baseline(baseline, reward, decay)
        gains.append(reward - baseline)
    return torch.tensor(gains, dtype=rewards.dtype), baseline


def leave_one_out(rewards: Tensor) -> Tensor:
    """R_i minus the mean of the other rewards, for each of n >= 2 rewards (n,): n / (n - 1) (R_i - mean).

    The others do not depend on sample i, so the gradient stays without bias, and no reward of an older child
    is remembered. It helps for rewards measured on the same images: an easy batch lifts all of them and
    cancels. Kool, van Hoof, Welling 2019 ("Buy 4 REINFORCE samples, get a baseline for free!").
    """
    if len(rewards) < 2:
        raise ValueError(f"leave one out of how many? wanted 2 rewards or more, got {len(rewards)}")
    return (rewards - rewards.mean()) * (len(rewards) / (len(rewards) - 1))


def policy_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """-log p x (R - b), averaged over n samples: (n,), (n,) -> ().

    Its gradient is an estimate of -d E[R] without bias, whatever b is, as long as b does not depend on the
    sample itself.
    """
    return -(log_prob * advantage.detach()).mean()
