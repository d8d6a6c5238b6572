"""As many failures as successes: surplus failures of a group are dropped at random."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gtpo_jax.maths import draws, masking
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.credit import rows, sets
from gtpo_jax.parts.credit.credit import Credit, stateless
from gtpo_jax.parts.credit.standardized import normalize
from gtpo_jax.types import EpisodeBatch, Scalar


def balanced(*, divide_by_std: bool = False, eps: Scalar = 1e-6) -> Credit:
    """GRPO's or Dr.GRPO's advantage over the trajectories of a group that are not dropped (RED-Drop
    of arXiv 2509.24203).

    Of the trajectories below the mean of the group as many are kept as there are others; dropped
    ones get 0. Which ones is drawn by a hash of the mean log-probs of their turns, so neither the
    order of rows nor a restart changes it. The value of a trajectory is that of its first turn.
    """

    def values(x: jax.Array, episodes: EpisodeBatch) -> jax.Array:
        kept, ids = groups.members(episodes), episodes.group_ids
        first = jnp.where(kept, as_float(x)[:, 0], 0.0)
        below = kept & (first < rows.row_moments(first, sets.group, kept, ids).mean)
        others = groups.total((kept & ~below).astype(jnp.int32), kept, ids)
        keys = draws.of_rows(
            jnp.asarray(facts.read(episodes, facts.TURN_LOGPROBS)), episodes.turn_mask
        )
        earlier = masking.everywhere(keys) < keys[:, None]
        place = jnp.sum(groups.pairs(ids, below) & earlier, axis=1)
        stays = (kept & ~below) | (below & (place < others))
        mask = episodes.turn_mask & stays[:, None]
        options = {"over": sets.first_turn, "divide_by_std": divide_by_std, "eps": eps}
        return jnp.where(mask, normalize(x, mask, ids, **options), 0.0)

    return stateless(values, needs=(facts.TURN_LOGPROBS,))
