"""Cold start: a model learns from imperfect demonstrations.

python -m launch.sft tiny --run-dir runs/mine
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from configs.functions import make_optimizer
from gtpo_jax import learner, metrics, packing, reductions
from gtpo_jax.dialogue import Dialogue
from gtpo_jax.evaluation import evaluate_trajectories
from gtpo_jax.tasks.demonstrations import demonstrate
from gtpo_jax.types import Params, Trajectory
from launch import cli, display, distributed
from launch.phase import Phase
from launch.session import Session

LOG_EVERY = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftArguments(cli.PhaseArguments):
    """Supervised training on demonstrations of tool use."""


def run_sft(session: Session, *, resume: bool = False, go_on: str = "") -> Params:
    """The cold start of a session; returns the parameters it ends with.

    `go_on` is what to run after an interrupt, `launch.sft --resume` by default.
    """
    config = session.config.sft
    optimizer = make_optimizer(config.optimizer, steps=config.steps)
    update = learner.make_update(
        session.forward, optimizer, learner.supervised_loss, reductions.token_mean
    )
    network = session.network
    state = learner.init_state(network.random(), optimizer, trained=network.trained)
    with Phase(
        "sft",
        session.run_dir,
        session.config,
        state,
        resume=resume,
        checkpoint_every=config.checkpoint_every,
        go_on=go_on or f"launch.sft --resume --run-dir {session.run_dir}",
    ) as phase:
        session.save_tokenizer()
        if phase.start >= config.steps:
            return phase.state.params
        update = learner.CompiledUpdate(update, phase.state)
        demonstrations = make_demonstrations(session)
        batches = packing.pack_stream(
            repeated(demonstrations, session.config.seed),
            rows=config.rows,
            row_length=config.row_tokens,
        )
        batches = itertools.islice(batches, phase.start, None)
        with display.Display("cold start", config.steps, phase.start) as bar:
            began, tokens = time.monotonic(), 0
            for step in phase.steps(config.steps):
                batch = jax.tree.map(lambda x: x[None], next(batches))
                tokens += int(np.count_nonzero(batch.segment_ids))
                phase.state, figures = update(phase.state, session.put_batch(batch))
                if (step + 1) % LOG_EVERY == 0 or step + 1 == config.steps:
                    figures = jax.device_get(figures)
                    figures["skipped"] = step + 1 - int(phase.state.step)  # of all so far
                    names = learner.nonfinite_names(phase.state, figures.pop("nonfinite"))
                    display.skipped_update(step, names)
                    speed = tokens / (time.monotonic() - began)
                    record = {f"sft/{name}": float(value) for name, value in figures.items()}
                    phase.metrics.write(step + 1, record | {"time/tokens_per_second": speed})
                    bar.update(step + 1, {"loss": float(figures["loss"]), "tokens/s": speed})
        return phase.state.params


def make_demonstrations(session: Session) -> list[Trajectory]:
    """The demonstrations of a session, run for real. One that does not fit a row is an error."""
    if not isinstance(session.dialogue, Dialogue):
        raise ValueError(
            "demonstrations are written in the built-in dialogue, which an imported model does not"
            " know; train it without a cold start, by `python -m launch.train chat`"
        )
    count = session.config.sft.demonstrations
    limits = session.config.rollout
    demonstrations = demonstrate(
        (session.source.demonstration(index) for index in range(count)),
        session.dialogue,
        session.tool,
        session.verifier,
        max_observation_tokens=limits.observation_tokens,
    )
    session.check_prompts(trajectory.problem for trajectory in demonstrations)
    longest = max(demonstrations, key=lambda t: t.length)
    if longest.length > session.config.sft.row_tokens:
        raise ValueError(
            f"the demonstration of problem {longest.problem.id!r} has {longest.length} tokens,"
            f" sft.row_tokens is {session.config.sft.row_tokens}; raise it"
        )
    summary = evaluate_trajectories(demonstrations)
    display.CONSOLE.print(
        f"{count:,} demonstrations: {summary.success:.0%} right, {summary.violations:.0%} badly"
        f" formed, {summary.turns:.1f} turns"
    )
    return demonstrations


def repeated(demonstrations: Sequence[Trajectory], seed: int) -> Iterator[Trajectory]:
    """All demonstrations, shuffled anew each epoch, without end."""
    for epoch in itertools.count():
        order = list(range(len(demonstrations)))
        random.Random(f"{seed}/epoch/{epoch}").shuffle(order)
        yield from (demonstrations[index] for index in order)


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(SftArguments, argv, program="launch.sft")
    distributed.start(arguments.cluster, arguments.distributed)
    with Session(arguments.config, arguments.run_dir) as session:
        run_sft(session, resume=arguments.resumes("sft"))
    if arguments.json is not None:
        records = metrics.read_metrics(arguments.run_dir / "sft" / "metrics.jsonl")
        cli.write_json(arguments.json, records[-1])
    display.CONSOLE.print(f"cold start in {arguments.run_dir / 'sft'}")


if __name__ == "__main__":
    cli.main(run)
