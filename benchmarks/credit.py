"""The cost of credit assignment: from turn rewards to the gradient by log-probs, without the model.

python -m benchmarks.credit --json figures.json --peer-python /path/to/python-with-verl-and-trl

The same facts go through our jitted chain, through two plain NumPy loops over ragged lists, and
through the comparable part of verl and TRL (GRPO advantages, clipped loss, backward). They run
interleaved, and a figure is a ratio of medians of one run. A missing peer stays unmeasured.

The share of a training step is arithmetic, not a measurement. A step takes `6 · parameters ·
tokens` FLOPs at the peak of the accelerator. The chain is charged the FLOPs and the bytes that XLA
counts for it, code similarity included, one after the other: at the same peak, and at the
bandwidth.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import credit_numpy
from benchmarks.credit_numpy import CLIP_HIGH, CLIP_LOW, DISCOUNT, EPS, PENALTY, WEIGHT, Facts
from benchmarks.figures import Figure
from benchmarks.measure import CORES, elapsed, median_seconds, run_benchmark
from benchmarks.peers import Worker, workers_of
from gtpo_jax import methods
from gtpo_jax.maths import masking, ratios, similarity, turns
from gtpo_jax.parts import losses, rewards
from launch import cli

PARAMETERS = 1.5e9
PEAK = 989e12  # FLOP/s of one H100 SXM in dense bfloat16
BANDWIDTH = 3.35e12  # bytes/s of the same GPU's memory

PEERS = ("verl", "trl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CreditArguments:
    """Time from rewards to the gradient by log-probs, compared with NumPy, verl and TRL."""

    trajectories: int = 1024
    """Trajectories in the batch, one per row."""
    group_size: int = 16
    """Trajectories per prompt."""
    turns: int = 16
    """Turns per trajectory."""
    tokens: int = 8192
    """Tokens per row: prompt, turns, tool output, padding."""
    code: int = 4096
    """Bytes of code per trajectory."""
    token_loop: int = 64
    """Trajectories given to the loop over single tokens; its time is scaled to all of them."""
    repeats: int = 7
    """Number of measuring rounds."""
    peer_python: pathlib.Path | None = None
    """Python interpreter with torch and verl or TRL."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


def chain(facts: Facts) -> tuple[jax.Array, jax.Array]:
    """Rewards, returns, token advantages, clipped objective: its value, its gradient `[M, T]`."""
    outcomes = rewards.shaped_outcomes(
        facts.success, facts.included, facts.group_ids, facts.similarity, weight=WEIGHT
    )
    turn_rewards = rewards.outcome_rewards(outcomes, facts.turn_mask) + rewards.format_rewards(
        facts.violations, facts.turn_mask, penalty=PENALTY
    )
    turn_advantages = methods.gtpo_advantages(
        turn_rewards, facts.turn_mask, facts.group_ids, facts.included, discount=DISCOUNT, eps=EPS
    )
    token_advantages = turns.broadcast_to_tokens(
        turn_advantages, facts.trajectory_ids, facts.turn_ids
    )

    def objective(policy_logprobs: jax.Array) -> jax.Array:
        log_ratio = ratios.log_ratios(policy_logprobs, facts.behavior_logprobs)
        surrogate = losses.clipped_surrogate(
            log_ratio, token_advantages, clip_low=CLIP_LOW, clip_high=CLIP_HIGH
        )
        # As `reductions.token_mean` does.
        return masking.masked_sum(surrogate.loss, facts.loss_mask).mean()

    return jax.value_and_grad(objective)(facts.policy_logprobs)


def code_similarity(code: jax.Array, lengths: jax.Array) -> jax.Array:
    """The step before the chain: the similarity of the code of any two trajectories."""
    return similarity.cosine_similarity(similarity.hashed_ngrams(code, lengths))


def write_facts(path: pathlib.Path, facts: Facts) -> None:
    """Writes the facts for the peers, with the outcome on the last trained token of each
    trajectory.
    """
    outcomes = np.zeros_like(facts.policy_logprobs)
    last = facts.turn_ids.shape[1] - 1 - np.argmax(facts.loss_mask[:, ::-1], axis=1)
    outcomes[np.arange(len(last)), last] = facts.success
    np.savez(
        path,
        token_rewards=outcomes,
        loss_mask=facts.loss_mask,
        group_ids=facts.group_ids,
        policy_logprobs=facts.policy_logprobs,
        behavior_logprobs=facts.behavior_logprobs,
        clip=np.array([CLIP_LOW, CLIP_HIGH]),
    )


@contextlib.contextmanager
def peers_of(python: pathlib.Path | None, facts: Facts) -> Iterator[Worker | None]:
    """verl and TRL in a process of another interpreter, which gets the same facts once."""
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "facts.npz"
        write_facts(path, facts)
        failure = "--peer-python cannot run the peers; it needs torch and NumPy"
        arguments = ("credit_peers.py", str(path), str(CORES))
        with workers_of([python], *arguments, failure=failure) as [worker]:
            yield worker


def roofline(programs: Sequence[jax.stages.Compiled]) -> tuple[float, float]:
    """FLOPs and bytes moved by the programs in total, as XLA counts them."""
    costs = [program.cost_analysis() or {} for program in programs]
    return sum(c["flops"] for c in costs), sum(c["bytes accessed"] for c in costs)


def measure_seconds(
    arguments: CreditArguments, facts: Facts
) -> tuple[dict[str, float], float, dict[str, str], list[jax.stages.Compiled]]:
    """Median seconds of ours, of the loops and of the peers; the share of trained tokens that the
    loop over tokens covers; the versions of the peers; and our compiled programs.
    """
    all_turns = credit_numpy.make_ragged(facts, arguments.trajectories)
    sample = credit_numpy.make_ragged(facts, min(arguments.token_loop, arguments.trajectories))
    trained = int(facts.loss_mask.sum())
    share = sum(len(t) for row in sample.policy_logprobs for t in row) / trained

    rng = np.random.default_rng(1)
    code = jnp.asarray(rng.integers(32, 127, (arguments.trajectories, arguments.code), np.int32))
    lengths = jnp.full(arguments.trajectories, arguments.code, jnp.int32)
    similar = jax.jit(code_similarity).lower(code, lengths).compile()

    with peers_of(arguments.peer_python, facts) as peers:
        on_device = jax.device_put(facts)
        ours = jax.jit(chain).lower(on_device).compile()
        runners: dict[str, Callable[[], float]] = {
            "ours": lambda: elapsed(lambda: ours(on_device)),
            "turns": lambda: elapsed(lambda: credit_numpy.turn_loop(all_turns)),
            "tokens": lambda: elapsed(lambda: credit_numpy.token_loop(sample)) / share,
            "similarity": lambda: elapsed(lambda: similar(code, lengths)),
        }
        versions: dict[str, str] = {}
        if peers is not None:
            versions = peers.found
            ask = peers.ask
            runners |= {peer: lambda peer=peer: ask(peer)["seconds"] for peer in versions}
        seconds = median_seconds(runners, arguments.repeats)
    return seconds, share, versions, [ours, similar]


def measure(arguments: CreditArguments) -> tuple[dict[str, Figure], list[str]]:
    """All figures, and lines that explain how they were measured."""
    facts = credit_numpy.make_facts(
        trajectories=arguments.trajectories,
        group_size=arguments.group_size,
        turns=arguments.turns,
        tokens=arguments.tokens,
    )
    trained = int(facts.loss_mask.sum())
    seconds, share, versions, programs = measure_seconds(arguments, facts)

    tokens = arguments.trajectories * arguments.tokens
    step_flops = 6 * PARAMETERS * tokens
    flops, moved = roofline(programs)
    step_time, chain_time = step_flops / PEAK, flops / PEAK + moved / BANDWIDTH
    notes = [
        f"{arguments.trajectories:,} trajectories × {arguments.turns} turns × {arguments.tokens:,}"
        f" tokens, {trained:,} trained; {CORES} cores; medians of"
        f" {arguments.repeats} interleaved rounds",
        f"loop over tokens: {share:.1%} of the trained tokens, scaled",
        "peers: " + (", ".join(f"{k} {v}" for k, v in versions.items()) or "none"),
        f"training step: 6 · {PARAMETERS:.3g} · {tokens:,} = {step_flops:.3g} FLOPs at {PEAK:.3g}"
        f" FLOP/s = {step_time:.3g} s",
        f"chain and code similarity: {flops:.3g} FLOPs at the same peak + {moved:.3g} bytes at"
        f" {BANDWIDTH:.3g} bytes/s = {chain_time:.3g} s",
    ]
    figures = {
        "the chain": Figure(value=seconds["ours"], unit="seconds"),
        "code similarity, before it": Figure(value=seconds["similarity"], unit="seconds"),
        "NumPy loop over turns / ours": Figure(
            value=seconds["turns"] / seconds["ours"], unit="ratio", at_least=20
        ),
        "NumPy loop over tokens / ours": Figure(
            value=seconds["tokens"] / seconds["ours"], unit="ratio"
        ),
    }
    for peer in PEERS:
        ratio = seconds[peer] / seconds["ours"] if peer in seconds else None
        figures[f"{peer} / ours"] = Figure(value=ratio, unit="ratio", at_least=1)
    figures["share of a training step, 1.5B model"] = Figure(
        value=chain_time / step_time, unit="share", at_most=0.01
    )
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(CreditArguments, measure, argv, "benchmarks.credit")


if __name__ == "__main__":
    cli.main(run)
