"""GTPO of Simoni: tokens that successes and failures share are protected."""

from __future__ import annotations

from gtpo_jax.methods.dr_grpo import dr_grpo_credit
from gtpo_jax.methods.method import Method
from gtpo_jax.parts import losses, reductions, rewards, spreads


def gtpo_conflicts(
    *, gain: float = 2.0, entropy_limit: float = 0.7, entropy_weight: float = 0.1
) -> Method:
    """GTPO, trajectory-based (arXiv 2508.03772): failures do not push down tokens of successes.

    `A_it = w_it (r_i − mean_g(r) − entropy_weight · H_i) / max(n_i, 1)`, 0 if the mean entropy
    `H_i > entropy_limit`. A token is in conflict if it lies in a run, from the first token on or up
    to the last one, of tokens that stand at the same positions in trajectories of the other sign;
    n_i counts them. `w = gain` in a run of A > 0, 0 in a run of A < 0, the product in both runs, 1
    elsewhere. No KL term.

    Published: gain 2, limit .7 (about ln 2), weight .1. A policy whose entropy is above the limit
    everywhere learns nothing: raise the limit for small vocabularies. Deviations: for several
    turns, the first run ends with the first turn and the last run begins with the last turn, which
    is our reading; entropies are those of sampling; the surrogate is clipped as in `gtpo`, where
    the paper takes one step, on which the two gradients are equal. As in the released code, a
    dropped trajectory still puts its tokens in conflict, and a group of equal outcomes keeps the
    entropy term; that code divides by the length of the longer run, here n_i counts both.
    """
    return Method(
        rewards={"outcome": rewards.outcome(), "format": rewards.forfeit()},
        credit=dr_grpo_credit(),
        loss=losses.clipped(low=0.2, high=0.28),
        reduce=reductions.sequence_mean,
        spread=spreads.protected(
            gain=gain, entropy_limit=entropy_limit, entropy_weight=entropy_weight
        ),
    )
