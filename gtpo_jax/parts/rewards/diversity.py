"""Lexical diversity of a trajectory as a reward (MultiRole-R1, arXiv 2507.20187)."""

from __future__ import annotations

import collections
import itertools
import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.maths.precision import as_float
from gtpo_jax.parts import facts
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.rewards.entities import prose
from gtpo_jax.parts.rewards.reward import Reward
from gtpo_jax.parts.rewards.whole import whole
from gtpo_jax.types import EpisodeBatch, Trajectory

SCORES = 8
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "the a an and or but if of in on at to for from with by as is are was were be it this that"
        " these those so then not no can we i you he she they there which who",
    )
)


def lexical_scores(text: str) -> list[float]:
    """Eight scores of a text, each in `[0, 1]`, 0 for a text without words:

    1. different words per word; 2. entropy of the words over its maximum;
    3. std of sentence lengths over their mean, at most 1; 4. different first words per sentence;
    5. mean over adjacent sentences of the share of words not in both; 6. `1 / (1 + K / 100)` with
    Yule's K; 7. different pairs of words per pair; 8. different function words per function word.
    """
    sentences = [re.findall(r"[^\W_]+", s.lower()) for s in re.split(r"[.!?\n]+", text)]
    sentences = [sentence for sentence in sentences if sentence]
    words = list(itertools.chain.from_iterable(sentences))
    if not words:
        return [0.0] * SCORES
    counts, n = collections.Counter(words), len(words)
    entropy = -sum(c / n * math.log(c / n) for c in counts.values())
    lengths = np.array([len(sentence) for sentence in sentences])
    adjacent = [(set(a), set(b)) for a, b in itertools.pairwise(sentences)]
    apart = [1.0 - len(a & b) / len(a | b) for a, b in adjacent]
    yule = 1e4 * (sum(c * c for c in counts.values()) - n) / (n * n)
    return [
        len(counts) / n,
        entropy / math.log(n) if n > 1 else 0.0,
        min(float(lengths.std() / lengths.mean()), 1.0),
        _distinct([sentence[0] for sentence in sentences]),
        sum(apart) / len(apart) if apart else 0.0,
        1.0 / (1.0 + yule / 100.0),
        _distinct(list(itertools.pairwise(words))),
        _distinct([word for word in words if word in FUNCTION_WORDS]),
    ]


def _distinct(items: Sequence[object]) -> float:
    return len(set(items)) / len(items) if items else 0.0


def _gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
    del max_turns
    texts = ["\n".join(map(prose, trajectory.turns)) for trajectory in trajectories]
    return np.array([lexical_scores(text) for text in texts], np.float32).reshape(-1, SCORES)


DIVERSITY = Fact("diversity", _gather, "[M, 8] float32, lexical scores of the texts without code")


def diversity(weights: Sequence[float] | None = None) -> Reward:
    """`Σ_k w_k D_k` over the eight lexical scores, on the last turn; equal weights of sum 1 by
    default.
    """
    if weights is not None and len(weights) != SCORES:
        raise ValueError(f"diversity has {SCORES} scores, got {len(weights)} weights")
    shares = np.full(SCORES, 1.0 / SCORES) if weights is None else np.asarray(weights, float)

    def apply(episodes: EpisodeBatch) -> jax.Array:
        scores = as_float(facts.read(episodes, DIVERSITY))
        return jnp.sum(scores * jnp.asarray(shares, float), axis=1)

    return whole(apply, DIVERSITY)
