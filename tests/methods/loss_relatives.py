"""The form of a row of the suite of losses, and the batch that all rows are tried on.

A row holds a method with another loss, a slow float64 reference of that loss, and what it reduces
to at its neutral options. `tests/methods/test_loss_relatives.py` tries every row on one stack of
batches, so each loss is compiled once. Rows stand in `ROWS` of the files `losses_*.py`; their keys
are spellings: `dppo low=.1`, or `grpo + dppo` where the method is not `gtpo`.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from configs.methods import make_method
from gtpo_jax import methods
from gtpo_jax.methods import Method
from gtpo_jax.parts import losses
from gtpo_jax.types import Candidates, TokenBatch
from tests import reference as slow

WORDS, CANDIDATES = 7, 4
"""Size of the vocabulary, and how many of its tokens the sampler recorded."""

LAYOUT = [
    [[("given", 1), ("trained", 2), ("given", 1), ("trained", 3)], [("trained", 4)]],
    [[("given", 2), ("trained", 1), ("trained", 2)]],
    [[("trained", 3), ("given", 2), ("trained", 3)]],
    [],
    [[("given", 3), ("trained", 5)], [("given", 1), ("trained", 2)]],
    [[("trained", 6)], [("trained", 1), ("given", 1), ("trained", 2)]],
    [[("given", 2), ("trained", 2), ("given", 3), ("trained", 1)]],
    [[("given", 9)]],  # a trajectory that is not trained on
]
"""Eight rows of trajectories, each a list of pieces; adjacent trained pieces are two turns."""


MARKS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {}
"""Name of a mark of tokens → random numbers of it, of a shape. Files of rows add theirs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A batch and the scores of its tokens, in float64.

    A reference is differentiated by `logprobs`, `entropies` and `extras`. `fixed` holds the same
    numbers as constants: a reference reads them wherever the paper stops the gradient.
    """

    batch: TokenBatch  # NumPy arrays
    logprobs: np.ndarray
    entropies: np.ndarray
    extras: dict[str, np.ndarray]

    @property
    def tokens(self) -> list[tuple[int, int]]:
        """Places (row, position) of the trained tokens."""
        return [(int(b), int(t)) for b, t in np.argwhere(self.batch.loss_mask)]

    def units(self, unit: str) -> dict[tuple[int, ...], list[tuple[int, int]]]:
        """Places of the trained tokens of each "turn", "sequence" or "token"."""
        found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for b, t in self.tokens:
            row, turn = int(self.batch.trajectory_ids[b, t]), int(self.batch.turn_ids[b, t])
            key = {"token": (b, t), "turn": (row, turn), "sequence": (row,)}[unit]
            found.setdefault(key, []).append((b, t))
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A loss under test."""

    reference: Callable[[Data, Data], np.ndarray | float]
    """`(data, fixed) → loss per token [B, T]`, or the whole loss; written from the paper with
    loops. Only trained tokens are compared."""
    make: Callable[[], Method] | None = None
    """Makes the method; by default the spelling does."""
    reduction: str = "token_mean"
    """Reduction of a loss per token, a name of `tests.reference.reduced`."""
    neutral: Callable[[], Method] | None = None
    """The method at options where it is its parent."""
    parent: Callable[[], Method] | None = None
    values: bool = True  # at neutral options the value is the parent's too, not only the gradient
    rtol: float = 3e-4
    atol: float = 3e-6


def method_of(spelling: str, row: Row) -> Method:
    """The method of a row."""
    if row.make is not None:
        return row.make()
    words = spelling.split()
    return make_method(words if words[0] in methods.METHODS else ["gtpo", "+", *words])


def tried(spelling: str) -> str:
    """The name of the method or modifier that a row tries: the last one of its spelling."""
    return spelling.split(" + ")[-1].split()[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probs, in float64."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def float64(x):
    """An array whose numbers float32 holds exactly, so that both sides compute from the same."""
    return np.asarray(np.asarray(x, np.float32), np.float64)


def data(seed: int) -> Data:
    """Random sampler, proximal, reference and trained policies over `WORDS` words."""
    rng = np.random.default_rng(seed)
    batch = slow.token_batch(LAYOUT, width=14)
    shape = batch.tokens.shape
    sampler = softmax(1.5 * rng.standard_normal((*shape, WORDS)))
    policies = {
        name: softmax(sampler + spread * rng.standard_normal(sampler.shape))
        for name, spread in (("proximal", 0.25), ("reference", 0.6), ("trained", 0.5))
    }
    tokens = np.argmax(sampler + rng.gumbel(size=sampler.shape), axis=-1)
    trained = policies["trained"]

    def at(log_probs: np.ndarray) -> np.ndarray:
        return float64(np.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0])

    ids = np.argsort(-sampler, axis=-1)[..., :CANDIDATES].astype(np.int32)
    turn_advantages = rng.standard_normal((16, 3))
    rows, turns = (np.maximum(np.asarray(x), 0) for x in (batch.trajectory_ids, batch.turn_ids))
    group_ids = np.array([0, 0, 0, 1, 1, 1, 1, 2, 3, 3])
    successes = np.array([True, False, False, True, True, False, False, False, True, False])
    p = np.exp(trained)
    filled = {
        "tokens": tokens.astype(np.int32),
        "behavior_logprobs": at(sampler),
        "proximal_logprobs": at(policies["proximal"]),
        "reference_logprobs": at(policies["reference"]),
        "token_advantages": float64(np.where(batch.loss_mask, turn_advantages[rows, turns], 0.0)),
        "group_ids": np.where(batch.trajectory_ids >= 0, group_ids[rows], 0).astype(np.int32),
        "successes": np.where(batch.trajectory_ids >= 0, successes[rows], False),
        "candidates": Candidates(ids, float64(np.take_along_axis(sampler, ids, axis=-1))),
    }
    of_tokens = np.random.default_rng(seed)  # of its own: marks do not change the other numbers
    filled["marks"] = {name: make(of_tokens, shape) for name, make in MARKS.items()}
    known = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    arrays = {name: None if x is None else np.asarray(x) for name, x in known.items()}
    return Data(
        batch=TokenBatch(**(arrays | filled)),
        logprobs=at(trained),
        entropies=float64(-(p * trained).sum(-1)),
        extras={
            "candidate_logprobs": float64(np.take_along_axis(trained, ids, axis=-1)),
            "collisions": float64(np.stack([(p**2).sum(-1), (p**3).sum(-1)], axis=-1)),
            "state_norms": float64(rng.uniform(0.5, 3.0, shape)),
        },
    )


def scores(found: Data) -> losses.Scores:
    """The scores as the loss gets them."""
    extras = {name: jnp.asarray(x, jnp.float32) for name, x in found.extras.items()}
    return losses.Scores(
        jnp.asarray(found.logprobs, jnp.float32), jnp.asarray(found.entropies, jnp.float32), extras
    )


def reference_loss(row: Row, at: Data, fixed: Data) -> float:
    """The whole loss of a row by its reference."""
    found = row.reference(at, fixed)
    if np.ndim(found) == 0:
        return float(found)
    return slow.reduced(found, at.batch, row.reduction, length=1024.0)
