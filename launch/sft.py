"""Cold start: a model learns from demonstrations, scripted or read from files.

python -m launch.sft tiny --run-dir runs/mine
python -m launch.sft chat --run-dir runs/qwen --sft.files demonstrations.jsonl
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np

from configs.parts import make_optimizer
from gtpo_jax import learner, verifiers
from gtpo_jax.results import metrics
from gtpo_jax.tasks import thoughts
from gtpo_jax.tasks.conversations import Conversation, read_conversations
from gtpo_jax.tasks.demonstrations import demonstrate
from gtpo_jax.tasks.imitation import can_be_judged, judged, render_conversation
from gtpo_jax.tasks.source import Script
from gtpo_jax.types import Params, Problem, TokenBatch, Trajectory
from launch import cli
from launch.run import cluster, display, imported_model, own, playing
from launch.run.lessons import make_lessons
from launch.run.phase import Phase, check_unused
from launch.run.session import Session

LOG_EVERY = 10
"""Steps between two records of the metrics."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftArguments(cli.PhaseArguments):
    """Supervised training on demonstrations of tool use."""

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        if not own.flag(argv, "resume", "resume-if-any"):
            return None
        return own.of_phase(cls.folder(argv), "sft", goes_on=True)


def run_sft(session: Session, *, resume: bool = False, go_on: str = "") -> Params:
    """Trains the cold start of a session; returns its final parameters.

    It begins with the model that was imported into the run, or else with random parameters. `go_on`
    is the command to run after an interrupt, `launch.sft --resume` by default.
    """
    config = session.config.sft
    # First of all, because a file may have to be corrected.
    demonstrations = read_demonstrations(session) if config.files else None
    optimizer = make_optimizer(config.optimizer, steps=config.steps)
    lessons = make_lessons(session)
    update = learner.make_update(
        lessons.forward, optimizer, lessons.loss, lessons.reduce, chunk=config.logprob_chunk
    )
    params = first_params(session)
    state = learner.init_state(params, optimizer, trained=session.network.trained)
    del params  # the state has them
    with Phase(
        "sft",
        session.run_dir,
        session.config,
        state,
        resume=resume,
        checkpoint_every=config.checkpoint_every,
        go_on=go_on or own.resume_command("sft", session.run_dir),
    ) as phase:
        if session.imported is None:
            session.save_tokenizer()
        if demonstrations is not None:
            check_same(phase.folder / "demonstrations.json", demonstrations, resume=resume)
        if phase.start >= config.steps:
            return phase.state.params
        update = learner.CompiledUpdate(update, phase.state)
        if demonstrations is None:
            demonstrations = play_demonstrations(session)
        batches = itertools.islice(lessons.batches(demonstrations), phase.start, None)
        placed = ((int(np.count_nonzero(b.loss_mask)), put(session, b)) for b in batches)
        with display.Display("cold start", config.steps, phase.start) as bar:
            began, tokens, coming = time.monotonic(), 0, next(placed)
            for step in phase.steps(config.steps):
                imitated, batch = coming
                phase.state, figures = update(phase.state, batch)
                coming = next(placed)  # while the device computes
                # Or updates would pile up, and a signal be heard after all of them.
                jax.block_until_ready(figures)
                tokens += imitated
                speed = tokens / (time.monotonic() - began)
                if (step + 1) % LOG_EVERY == 0 or step + 1 == config.steps:
                    figures = jax.device_get(figures)
                    figures["skipped"] = step + 1 - int(phase.state.step)  # total so far
                    names = learner.nonfinite_names(phase.state, figures.pop("nonfinite"))
                    display.skipped_update(step, names)
                    record = {f"sft/{name}": float(value) for name, value in figures.items()}
                    phase.metrics.write(step + 1, record | {"time/tokens_per_second": speed})
                if step == phase.start or (step + 1) % LOG_EVERY == 0:
                    # The speed is that of the last steps, and never that of a compilation.
                    began, tokens = time.monotonic(), 0
                bar.update(step + 1, {"loss": float(figures["loss"]), "tokens/s": speed})
        return phase.state.params


def put(session: Session, batch: TokenBatch) -> TokenBatch:
    """A batch as one micro-batch on the devices."""
    return session.put_batch(jax.tree.map(lambda x: x[None], batch))


def first_params(session: Session) -> Params:
    """Initial parameters of a cold start."""
    if session.imported is None:
        return session.network.random()
    return session.load_params(session.run_dir, imported_model.PHASE)


def read_demonstrations(session: Session) -> list[Trajectory]:
    """The demonstrations in the files of a session. A line that cannot be used is an error."""
    config, limits = session.config.sft, session.config.rollout

    def render(conversation: Conversation) -> tuple[str, Trajectory]:
        # Not its place: the same file may lie elsewhere when the run is resumed.
        name = conversation.problem.question
        if thoughts.is_dropped(session.config.seed, name, share=config.thought_dropout):
            conversation = thoughts.conversation_without_thoughts(conversation)
        if can_be_judged(conversation.problem):
            verifiers.check_problem(session.verifier, conversation.problem)
        return conversation.where, render_conversation(
            conversation,
            session.dialogue,
            max_observation_tokens=limits.observation_tokens,
            violations=config.violations,
            drop_system=config.system_messages == "drop",
        )

    places, rendered = zip(*read_conversations(config.files, render), strict=True)
    demonstrations = judged(fitting(session, rendered, places), session.verifier)
    cut = sum(any(turn.observation_dropped for turn in t.turns) for t in demonstrations)
    if cut:
        display.CONSOLE.print(
            f"outputs of {cut:,} demonstrations are cut to {limits.observation_tokens} tokens"
            " (rollout.observation_tokens)",
            highlight=False,
        )
    tell(demonstrations)
    return demonstrations


def play_demonstrations(session: Session) -> list[Trajectory]:
    """The scripted demonstrations of a session's task, played with the real tool."""
    config = session.config

    def scripted(number: int) -> tuple[Problem, Script]:
        problem, script = session.source.demonstration(number)
        if thoughts.is_dropped(config.seed, number, share=config.sft.thought_dropout):
            script = thoughts.script_without_thoughts(script)
        return problem, script

    with playing.shown(session.tool) as tool:
        demonstrations = demonstrate(
            map(scripted, range(config.sft.demonstrations)),
            session.dialogue,
            tool,
            session.verifier,
            max_observation_tokens=session.config.rollout.observation_tokens,
        )
    session.check_prompts(trajectory.problem for trajectory in demonstrations)
    places = [f"the demonstration of problem {t.problem.id!r}" for t in demonstrations]
    demonstrations = fitting(session, demonstrations, places)
    tell(demonstrations)
    return demonstrations


def fitting(
    session: Session, demonstrations: Sequence[Trajectory], places: Sequence[str]
) -> list[Trajectory]:
    """The demonstrations that fit into rows; others are an error, or left out and counted.

    `places` say where each demonstration comes from.
    """
    config = session.config.sft
    short = [t for t in demonstrations if t.length <= config.row_tokens]
    left_out = len(demonstrations) - len(short)
    if left_out and (config.too_long == "refuse" or not short):
        longest = max(range(len(demonstrations)), key=lambda i: demonstrations[i].length)
        raise ValueError(
            f"{places[longest]} has {demonstrations[longest].length} tokens, sft.row_tokens is"
            f" {config.row_tokens}, and {left_out:,} of {len(demonstrations):,} do not fit; raise"
            " it, or leave them out by --sft.too-long drop"
        )
    if left_out:
        display.CONSOLE.print(
            f"{left_out:,} of {len(demonstrations):,} demonstrations are left out: they have more"
            f" than {config.row_tokens} tokens (sft.row_tokens)",
            highlight=False,
        )
    return short


def tell(demonstrations: Sequence[Trajectory]) -> None:
    """Prints statistics of demonstrations."""
    count, judged = len(demonstrations), [t for t in demonstrations if t.included]
    right = f"{sum(t.success for t in judged) / max(len(judged), 1):.0%} right"
    if len(judged) < count:
        right += f" of the {len(judged):,} that can be judged"
    badly = sum(any(turn.violation is not None for turn in t.turns) for t in demonstrations)
    turns = sum(len(t.turns) for t in demonstrations)
    display.CONSOLE.print(
        f"{count:,} demonstrations: {right}, {badly / count:.0%} badly formed,"
        f" {turns / count:.1f} turns"
    )


def check_same(path: pathlib.Path, demonstrations: Sequence[Trajectory], *, resume: bool) -> None:
    """Writes a digest of the demonstrations. Raises if a resumed phase has other demonstrations
    than it began with, because it would no longer continue the same run.
    """
    digest = hashlib.sha256()
    for trajectory in demonstrations:
        pieces = [piece for turn in trajectory.turns for piece in (turn.tokens, turn.observation)]
        for piece in (trajectory.prompt, *pieces):
            digest.update(f"{len(piece)} ".encode() + piece.astype("<i4").tobytes())
    found = {"demonstrations": len(demonstrations), "sha256": digest.hexdigest()}
    if not resume:
        cli.write_json(path, found)
    elif path.exists() and json.loads(path.read_text(encoding="utf-8")) != found:
        raise ValueError(
            f"{path} was written for other demonstrations than the files have: resume with the"
            " same contents and tokenizer, or start in another --run-dir"
        )


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(SftArguments, argv, program="launch.sft")
    cluster.start(arguments.cluster, arguments.distributed)
    resume = arguments.resumes("sft")
    check_unused(arguments.run_dir, "sft", resume=resume)
    with Session(arguments.config, arguments.run_dir) as session:
        run_sft(session, resume=resume, go_on=cli.command("launch.sft", arguments, "--resume"))
    if arguments.json is not None:
        records = metrics.read_metrics(arguments.run_dir / "sft" / "metrics.jsonl")
        cli.write_json(arguments.json, records[-1])
    display.CONSOLE.print(f"cold start in {arguments.run_dir / 'sft'}", soft_wrap=True)


if __name__ == "__main__":
    cli.main(run)
