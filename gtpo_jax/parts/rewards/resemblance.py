"""Partial credit for failures whose code resembles that of a success (GTPO, Sec. 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gtpo_jax.maths import checks, masking, similarity
from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.outcome import outcome_rewards
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.types import EpisodeBatch, Scalar, Trajectory


class Embedding(NamedTuple):
    """`apply(episodes) → [M, D]`: a vector for the code of each trajectory, of any length."""

    apply: Callable[[EpisodeBatch], jax.Array]
    facts: tuple[Fact, ...] = ()  # facts of trajectories that it reads


def _ngrams(episodes: EpisodeBatch) -> jax.Array:
    code = facts.read(episodes, facts.CODE)
    return similarity.hashed_ngrams(code.bytes, code.lengths)


NGRAMS = Embedding(_ngrams, (facts.CODE,))
"""Hashed byte n-grams of the code: deterministic, without weights."""

POLICY_STATES = Embedding(
    lambda episodes: facts.read(episodes, facts.POLICY_STATES), (facts.POLICY_STATES,)
)
"""Mean hidden states of the policy over the turns with code; one forward pass per step."""

EmbedTexts = Callable[[Sequence[str]], Any]
"""M texts → an array `[M, D]`, D the same at every step: a sentence encoder, or a hosted one."""


def embedding_of(function: EmbedTexts) -> Embedding:
    """The embedding of the code by a function of texts, called on the host once a step."""

    def gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
        del max_turns
        texts = facts.code_texts(trajectories)
        vectors = np.asarray(function(texts), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise ValueError(
                f"an embedding must give a finite array [{len(texts)}, D] for {len(texts)} texts,"
                f" got shape {vectors.shape}"
            )
        # Without code there is nothing to resemble.
        return np.where(np.array([bool(text) for text in texts])[:, None], vectors, 0.0)

    fact = Fact(f"embedding {function.__name__}", gather)
    return Embedding(lambda episodes: facts.read(episodes, fact), (fact,))


EMBEDDINGS = {"ngrams": NGRAMS, "policy_states": POLICY_STATES}
"""Embeddings by name."""


def shaped_outcomes(
    success: Bool[Array, " M"],
    included: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
    similarity: Float[Array, "M M"],
    *,
    weight: Scalar,
    floor: Scalar = 0.0,
) -> Float[Array, " M"]:
    """1 for a success, and for a failure the credit of Sec. 3.4 of the paper:

    `r_i = (weight / |P|) Σ_{p ∈ P} max(similarity[i, p], floor)`, P = successes of the same group.

    If P is empty the credit is 0. With `weight` < 1 a failure stays below every success. `floor` 0
    clips negative similarities, −1 keeps them; the paper does not say which it does. Excluded
    trajectories neither give nor get credit.
    """
    count = len(success)
    checks.check_trajectories(count, included=included, group_ids=group_ids)
    checks.check_masks(success=success, included=included)
    check_shaping(weight, floor)
    if jnp.shape(similarity) != (count, count):
        raise ValueError(
            f"similarity must compare all {count} trajectories with each other,"
            f" got shape {jnp.shape(similarity)}; `cosine_similarity(embeddings)` has the right one"
        )
    same_group = group_ids[:, None] == masking.everywhere(group_ids)
    peers = same_group & masking.everywhere(success & included)
    counted = jnp.maximum(as_float(similarity), floor)
    credit = jnp.sum(jnp.where(peers, counted, 0.0), axis=1)
    credit = weight * credit / jnp.maximum(jnp.sum(peers, axis=1), 1)
    # Rounding may lift a cosine above 1, and with it a failure above `weight`.
    credit = jnp.minimum(credit, weight)
    return jnp.where(included, jnp.where(success, 1.0, credit), 0.0)


def check_shaping(weight: Scalar, floor: Scalar) -> None:
    """Raises unless the weight is in `[0, 1]` and the floor in `[−1, 1]`."""
    checks.check_range("weight", weight, 0.0, 1.0, hint="below 1 a failure stays below a success")
    checks.check_range("floor", floor, -1.0, 1.0, hint="0 clips negative cosines, -1 keeps them")


def resemblance(
    weight: Scalar = 0.5, *, floor: Scalar = 0.0, embed: Embedding | EmbedTexts = NGRAMS
) -> Reward:
    """The partial credit of failures on their last turn, 0 for successes; see `shaped_outcomes`.

    The paper embeds code with Amazon Titan Text Embeddings V2; n-grams are our default.
    """
    check_shaping(weight, floor)
    embedding = embed if isinstance(embed, Embedding) else embedding_of(embed)

    def apply(episodes: EpisodeBatch) -> jax.Array:
        outcomes = shaped_outcomes(
            episodes.success,
            episodes.included,
            episodes.group_ids,
            similarity.cosine_similarity(embedding.apply(episodes)),
            weight=weight,
            floor=floor,
        )
        partial = jnp.where(episodes.success, 0.0, outcomes)
        return outcome_rewards(partial, episodes.turn_mask)

    return Reward(apply, embedding.facts)
