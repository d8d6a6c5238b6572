"""RAFT, RAFT++ and Reinforce-Rej: rejection of samples in place of a baseline."""

from __future__ import annotations

from gtpo_jax.methods.method import Method
from gtpo_jax.parts import credit, losses, reductions, rewards
from gtpo_jax.parts.credit import Credit
from gtpo_jax.parts.losses import Loss, PolicyTerm, Reinforce


def raft() -> Method:
    """RAFT (arXiv 2304.06767, as in 2504.11343): only successes are imitated.

    `−max(r, 0) log π`, `r = ±1`. Without a ratio: for one update a step.
    """
    return _rejection(credit.positive(), Loss((PolicyTerm(Reinforce(sides="none")),)))


def raft_pp(*, low: float = 0.2, high: float = 0.2) -> Method:
    """RAFT++ (arXiv 2504.11343): only successes are imitated, with the ratio and clip of PPO.

    `A = max(r, 0)`, `r = ±1`, in the clipped surrogate.

    Published: the rule, with a KL of .001 (`+ kl weight=.001`); the clip range is the default of
    the authors' code. A failure of form counts as a failure here.
    """
    return _rejection(credit.positive(), losses.clipped(low=low, high=high))


def reinforce_rej(*, low: float = 0.2, high: float = 0.2) -> Method:
    """Reinforce-Rej (arXiv 2504.11343): REINFORCE without groups that are all right or all wrong.

    `A = r`, `r = ±1`, and 0 where the rewards of the group are all equal, in the clipped surrogate.

    Published: the rule, with a KL of .001 (`+ kl weight=.001`). Deviation: a group of one counts as
    all equal; the authors' code keeps it.
    """
    silence = credit.silence_equal_groups("reward")
    return _rejection(silence, losses.clipped(low=low, high=high))


def _rejection(link: Credit, loss: Loss) -> Method:
    return Method(
        rewards={"outcome": rewards.outcome(right=1.0, wrong=-1.0)},
        credit=credit.chain(credit.total(), link),
        loss=loss,
        reduce=reductions.token_mean,
    )
