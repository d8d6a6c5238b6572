"""Agreement with the answers to other phrasings of a problem (Con-RAG, arXiv 2510.04392)."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from gtpo_jax.maths import masking
from gtpo_jax.parts import facts, groups
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.entities import prose
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Trajectory

BUCKETS = 1024
ORDERS = 2

FAMILIES = Fact(
    "families",
    facts.of_trajectories(lambda t: facts.text_id(str(t.problem.info["paraphrase_of"])), np.int32),
    "[M] int32, id of the question that the problem paraphrases",
    fields=("paraphrase_of",),
)


def count_ngrams(text: str) -> np.ndarray:
    """Counts `[2, 1024]` of the hashed words and pairs of words of a text, in lower case."""
    words = re.findall(r"[^\W_]+", text.lower())
    counts = np.zeros((ORDERS, BUCKETS), np.int32)
    for order, pieces in enumerate((words, map(" ".join, itertools.pairwise(words)))):
        for piece in pieces:
            counts[order, zlib.crc32(piece.encode()) % BUCKETS] += 1
    return counts


def _ngram_fact(name: str, text: Callable[[Trajectory], str], meaning: str) -> Fact:
    def gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
        del max_turns
        counts = np.zeros((len(trajectories), ORDERS, BUCKETS), np.int32)
        for row, trajectory in enumerate(trajectories):
            counts[row] = count_ngrams(text(trajectory))
        return counts

    return Fact(name, gather, f"[M, 2, 1024] int32, hashed words and pairs of words of {meaning}")


LAST_TEXT = _ngram_fact(
    "last_text", lambda t: prose(t.turns[-1]) if t.turns else "", "the last turn, without code"
)
ANSWER_TEXT = _ngram_fact("answer_text", lambda t: t.answer or "", "the final answer")


def bleu(own: Num[Array, "2 D"], others: Num[Array, "M 2 D"], *, order: int) -> Float[Array, " M"]:
    """BLEU of a text against each of others as the reference, from counts of their n-grams.

    `min(1, exp(1 − |other| / |own|)) · (Π_n p_n)^(1/N)`; `p_n` is the share of the text's n-grams
    that the other holds, each at most as often as there. N is `order`, or fewer for a text that
    has no n-gram so long. An empty text has 0.
    """
    own, others = jnp.asarray(own, float), jnp.asarray(others, float)
    sizes = jnp.sum(own, axis=1)
    shared = jnp.sum(jnp.minimum(own, others), axis=2) / jnp.maximum(sizes, 1.0)  # [M, 2]
    counted = (sizes > 0) & (jnp.arange(ORDERS) < order)
    logs = jnp.where(counted, jnp.log(jnp.maximum(shared, 1e-30)), 0.0)
    mean = jnp.exp(jnp.sum(logs, axis=1) / jnp.maximum(jnp.sum(counted), 1))
    found = jnp.all((shared > 0) | ~counted, axis=1) & (sizes[0] > 0)
    lengths = jnp.sum(others[:, 0], axis=1)
    brevity = jnp.exp(jnp.minimum(1.0 - lengths / jnp.maximum(sizes[0], 1.0), 0.0))
    return jnp.where(found, brevity * mean, 0.0)


def agreement_scores(
    similarity: Callable[[Int[Array, ""]], Float[Array, " M"]],
    families: Int[Array, " M"],
    kept: Bool[Array, " M"],
    group_ids: Int[Array, " M"],
) -> Float[Array, " M"]:
    """The mean similarity of each row to the kept rows of its family in other groups; else 0.

    `similarity(i)` compares row i with all rows.
    """
    other = groups.pairs(families, kept) & ~groups.pairs(group_ids, kept)

    def score(row: jax.Array) -> jax.Array:
        peers = other[row]
        return jnp.sum(jnp.where(peers, similarity(row), 0.0)) / jnp.maximum(jnp.sum(peers), 1)

    # Row by row: all pairs at once would take [M, M, 2, 1024].
    return jax.lax.map(score, jnp.arange(len(kept)))


def agreement(*, order: int = 2, compare: Literal["last", "answer"] = "last") -> Reward:
    """The agreement with other phrasings of the problem, on the last turn; see `agreement_scores`.

    The similarity is BLEU of the text of the last turn, or of the answer.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}; 2 counts words and pairs of words")
    fact = {"last": LAST_TEXT, "answer": ANSWER_TEXT}[compare]

    def apply(episodes: EpisodeBatch) -> jax.Array:
        counts = masking.everywhere(jnp.asarray(facts.read(episodes, fact)))
        families = masking.everywhere(jnp.asarray(facts.read(episodes, FAMILIES)))
        kept = masking.everywhere(groups.members(episodes))
        return agreement_scores(
            lambda row: bleu(counts[row], counts, order=order),
            families,
            kept,
            masking.everywhere(episodes.group_ids),
        )

    return whole(apply, FAMILIES, fact)
