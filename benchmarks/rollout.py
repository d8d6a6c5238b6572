"""The cost of rollouts: decode speed compared with peers, slow tools, idle rows, prefill.

python -m benchmarks.rollout --json figures.json --peer-python /path/with/torch /path/with/tunix

Ours and the peers run interleaved; a ratio is one of medians over the rounds, after one round of
warm-up. CPU seconds are those of the whole process with all its threads. A missing peer stays
unmeasured.

The decode speed is that of whole rollouts, including the Python loop and prefill: random weights,
turns without an end. The peers get the same shapes. Ours and Tunix record the log-prob of each
token and ours its entropy too; `transformers` records none. It runs with one thread per processor,
its default, and with a single thread, which costs less CPU time. Tunix's agentic rollout recompiles
for each number of tokens that an episode has left; "fixed shapes" is the same without that need.

All other figures need turns of known lengths. There the policy is a countdown: the first token of a
turn is a random number, each token is followed by the next lower number, and the end marker follows
0. The decoder still computes, with logits too small to matter. Every turn calls the tool, and the
last turn of an episode is cut by `max_turns`.

With slow tools, half as many trajectories as there are slots may wait in the lot. Idle row-steps
are counted with four times as many trajectories as elsewhere, and with as many: the last
trajectories leave slots that have no successor, a share that falls with the number of trajectories
per slot.

The turn-synchronous scheme is a small loop over the same decode programs: a batch of as many
episodes as there are slots; all rows decode until the last has ended its turn; all calls are made;
all return; all rows continue. A finished row waits for the others, and so does the next batch.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Sequence

import jax

from benchmarks.figures import Figure
from benchmarks.measure import CORES, Cost, load, measured, median_costs, run_benchmark
from benchmarks.peers import Worker, check_interpreters, workers_of
from benchmarks.rollout_fixture import (
    BYTES,
    OBSERVATION,
    OUTPUT,
    PROMPT,
    VOCABULARY,
    CallingDialogue,
    EndlessDialogue,
    WholeVocabulary,
    countdown,
    make_engine,
    make_requests,
    model_config,
    slow_tool,
    turn_synchronous,
)
from gtpo_jax.rollout import Request, RolloutEngine, RolloutStats
from gtpo_jax.testing import FakeTool
from gtpo_jax.types import ForwardFn, Params
from launch import cli
from models import decoder

TURNS = 3
GROUP = 16  # group size of the prefill figure
EPISODE_GROUP = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutArguments:
    """Rollouts: decode speed, slow tools, idle rows, prefill. Peers: transformers and Tunix."""

    rounds: int = 5
    """Number of measuring rounds."""
    width: int = 256
    """Width of the decoder."""
    layers: int = 4
    """Layers of the decoder."""
    rows: int = 32
    """Rows decoded at once."""
    new_tokens: int = 128
    """Tokens that each row writes in the measurement of decode speed."""
    longest: int = 128
    """Tokens of the longest turn where lengths vary; the shortest has an eighth of it."""
    episodes: int = 8
    """Episodes, in groups of 4, for the comparison with peers' tools; 0 skips it."""
    episode_rounds: int = 1
    """Measuring rounds of these episodes, after one of warm-up."""
    batches: int = 4
    """Trajectories per slot with slow tools; four times that where idle rows are counted."""
    latency: float = 0.5
    """Seconds that a quarter of the tool calls takes; 0 skips slow tools."""
    latency_rounds: int = 3
    """Measuring rounds with slow tools."""
    peer_python: tuple[pathlib.Path, ...] = ()
    """Python interpreters with torch and transformers, or with Tunix."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


Runner = Callable[[], Cost]


def peer_runners(peers: Sequence[Worker], *, agentic: bool) -> dict[str, Runner]:
    return {
        name: lambda here=here, name=name: Cost(**here.ask(name))
        for here in peers
        for name in here.names
        if ("agentic" in name) == agentic
    }


def runner(engine: RolloutEngine, params: Params, requests: Sequence[Request]) -> Runner:
    """Rollouts of the same requests, each with another seed."""
    seeds = itertools.count()
    return lambda: measured(
        lambda: engine.run(params, requests, seed=next(seeds), step=0)[1].sampled_tokens
    )


def decode_figures(
    arguments: RolloutArguments, forward: ForwardFn, params: Params, peers: Sequence[Worker]
) -> dict[str, Figure]:
    """Tokens per CPU second and per second: ours, and ours over the peers'."""
    requests = make_requests(arguments.rows, 1)
    engine = make_engine(
        forward,
        EndlessDialogue(WholeVocabulary()),
        FakeTool(lambda code: OUTPUT),
        turns=1,
        longest=arguments.new_tokens,
        slots=arguments.rows,
    )
    runners = {"ours": runner(engine, params, requests), **peer_runners(peers, agentic=False)}
    costs = median_costs(runners, arguments.rounds)
    for name, cost in costs.items():
        if cost.tokens != arguments.rows * arguments.new_tokens:
            raise RuntimeError(f"{name} sampled {cost.tokens} tokens")
    ours = costs["ours"]
    figures = {
        "decode, ours, by CPU time": Figure(value=ours.tokens / ours.cpu, unit="tokens/CPU-s"),
        "decode, ours, by wall time": Figure(value=ours.tokens / ours.wall, unit="tokens/s"),
    }
    for peer, bar in {"tunix": 1.25, "transformers": 2.0, "transformers, 1 thread": None}.items():
        cost = costs.get(peer)
        figures[f"decode, ours / {peer}, by CPU time"] = Figure(
            value=cost and cost.cpu / ours.cpu, unit="ratio", at_least=bar
        )
        figures[f"decode, ours / {peer}, by wall time"] = Figure(
            value=cost and cost.wall / ours.wall, unit="ratio"
        )
    return figures


def episode_figures(
    arguments: RolloutArguments, forward: ForwardFn, params: Params, peers: Sequence[Worker]
) -> dict[str, Figure]:
    """Episodes with a tool that returns at once, in groups of 4, compared with Tunix."""
    costs: dict[str, Cost] = {}
    others = peer_runners(peers, agentic=True)
    if arguments.episodes and others:
        engine = make_engine(
            countdown(forward, arguments.longest // 8, arguments.longest),
            CallingDialogue(BYTES),
            FakeTool(lambda code: OUTPUT),
            turns=TURNS,
            longest=arguments.longest,
            slots=arguments.episodes,
        )
        requests = make_requests(arguments.episodes // EPISODE_GROUP, EPISODE_GROUP)
        runners = {"ours": runner(engine, params, requests), **others}
        costs = median_costs(runners, arguments.episode_rounds)

    def ratio(peer: str, field: str) -> float | None:
        """Ratio of seconds per token, because the episodes differ a little in length."""
        if peer not in costs:
            return None
        theirs, ours = costs[peer], costs["ours"]
        return getattr(theirs, field) / theirs.tokens / (getattr(ours, field) / ours.tokens)

    return {
        f"episodes, ours / {peer}, by {kind} time": Figure(
            value=ratio(peer, field), unit="ratio", at_least=bar if field == "wall" else None
        )
        for peer, bar in {"tunix agentic": 20.0, "tunix agentic, fixed shapes": None}.items()
        for field, kind in {"wall": "wall", "cpu": "CPU"}.items()
    }


def latency_figures(
    arguments: RolloutArguments, forward: ForwardFn, params: Params
) -> dict[str, Figure]:
    """Slow calls compared with none: ours, and the scheme that waits for all calls of a round."""
    costs: dict[str, Cost] = {}
    if arguments.latency:
        requests = make_requests(arguments.batches * arguments.rows, 1)
        engine = make_engine(
            countdown(forward, arguments.longest // 8, arguments.longest),
            CallingDialogue(BYTES),
            FakeTool(lambda code: OUTPUT),
            turns=TURNS,
            longest=arguments.longest,
            slots=arguments.rows,
            parked=arguments.rows // 2,
        )
        seeds = itertools.count()
        whole = runner(engine, params, requests)

        def synchronous() -> Cost:
            return measured(lambda: turn_synchronous(engine, params, requests, next(seeds)))

        def with_latency(run: Runner, seconds: float) -> Cost:
            with slow_tool(seconds, threads=2 * arguments.rows) as tool:
                engine.tool = tool
                return run()

        runners: dict[str, Runner] = {
            "ours": lambda: with_latency(whole, 0.0),
            "ours, slow": lambda: with_latency(whole, arguments.latency),
            "rounds": lambda: with_latency(synchronous, 0.0),
            "rounds, slow": lambda: with_latency(synchronous, arguments.latency),
        }
        costs = median_costs(runners, arguments.latency_rounds)

    def ratio(above: str, below: str) -> Figure:
        value = None
        if costs:  # per token, because episodes differ in length from seed to seed
            value = costs[above].wall / costs[above].tokens
            value /= costs[below].wall / costs[below].tokens
        return Figure(value=value, unit="ratio", at_most=1.2 if above == "ours, slow" else None)

    return {
        "slow tools / none, ours": ratio("ours, slow", "ours"),
        "slow tools / none, turn-synchronous": ratio("rounds, slow", "rounds"),
        "turn-synchronous / ours, slow tools": ratio("rounds, slow", "ours, slow"),
        "turn-synchronous / ours, no slow tools": ratio("rounds", "ours"),
    }


def count_figures(arguments: RolloutArguments) -> dict[str, Figure]:
    """Counts, not times: idle rows and prefill. A tiny decoder is enough."""
    config = model_config(16, 1)
    forward = countdown(decoder.forward_fn(config), arguments.longest // 8, arguments.longest)
    params = jax.device_put(decoder.init_params(config, jax.random.key(0)))

    def stats(groups: int, size: int, *, turns: int, slots: int) -> RolloutStats:
        engine = make_engine(
            forward,
            CallingDialogue(BYTES),
            FakeTool(lambda code: OUTPUT),
            turns=turns,
            longest=arguments.longest,
            slots=slots,
        )
        return engine.run(params, make_requests(groups, size), seed=0, step=0)[1]

    def idle(batches: int) -> float:
        many = stats(batches * arguments.rows, 1, turns=TURNS, slots=arguments.rows)
        return 1 - many.sampled_tokens / many.row_steps

    group = stats(1, GROUP, turns=1, slots=GROUP)
    single = stats(1, 1, turns=1, slots=GROUP)
    return {
        "row-steps of finished or waiting rows": Figure(
            value=idle(4 * arguments.batches), unit="share", at_most=0.15
        ),
        "row-steps of finished or waiting rows, a quarter of the trajectories": Figure(
            value=idle(arguments.batches), unit="share"
        ),
        f"prefill of a group of {GROUP} / {GROUP} separate prefills": Figure(
            value=group.prefilled_tokens / (GROUP * single.prefilled_tokens),
            unit="ratio",
            at_most=1 / 12,
        ),
    }


def measure(arguments: RolloutArguments) -> tuple[dict[str, Figure], list[str]]:
    """All figures, and lines that explain how they were measured."""
    check_interpreters(arguments.peer_python)
    before = load()
    config = model_config(arguments.width, arguments.layers)
    forward = decoder.forward_fn(config)
    params = jax.device_put(decoder.init_params(config, jax.random.key(0)))
    sizes = ("width", "layers", "query_heads", "kv_heads", "head_dim", "mlp_width")
    shape = {name: getattr(config, name) for name in sizes} | {
        "vocab": VOCABULARY,
        "rows": arguments.rows,
        "prompt": PROMPT,
        "new_tokens": arguments.new_tokens,
        "threads": CORES,
        "shortest": arguments.longest // 8,
        "longest": arguments.longest,
        "turns": TURNS,
        "observation": OBSERVATION,
        "episodes": arguments.episodes,
        "group_size": EPISODE_GROUP,
    }
    failure = "--peer-python cannot run its peers; run rollout_peers.py to see why"
    with workers_of(
        arguments.peer_python, "rollout_peers.py", json.dumps(shape), failure=failure
    ) as peers:
        figures = decode_figures(arguments, forward, params, peers)
        figures |= episode_figures(arguments, forward, params, peers)
    figures |= latency_figures(arguments, forward, params)
    figures |= count_figures(arguments)
    versions = [f"{name} {v}" for here in peers for name, v in here.found["versions"].items()]
    notes = [
        f"{CORES} processors, load {before} before; jax {jax.__version__}; medians of interleaved"
        f" rounds: {arguments.rounds} of decoding, {arguments.episode_rounds} of episodes,"
        f" {arguments.latency_rounds} of slow tools",
        f"{config.layers} layers × {config.width}, vocabulary {VOCABULARY}, float32,"
        f" {arguments.rows} rows; decoding: {PROMPT} + {arguments.new_tokens} tokens",
        f"episodes: {TURNS} turns of {arguments.longest // 8} to {arguments.longest} tokens,"
        f" {OBSERVATION} observed; {arguments.episodes} with peers,"
        f" {arguments.batches * arguments.rows} with slow tools ({arguments.latency:g} s for every"
        f" fourth call), {4 * arguments.batches * arguments.rows} where idle rows are counted",
        "prefill is counted in positions computed, padding included",
        "peers: " + (", ".join(versions) or "none"),
    ]
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(RolloutArguments, measure, argv, "benchmarks.rollout")


if __name__ == "__main__":
    cli.main(run)
