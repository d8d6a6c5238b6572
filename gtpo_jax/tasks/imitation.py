"""Converts conversations to trajectories for imitation, and trajectories to conversations.

The dialogue of the run renders the assistant's messages as a policy would write them. Outputs of
calls are taken from the conversation; no program is run again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gtpo_jax import tools, verifiers
from gtpo_jax.language.grammar import AnyDialogue, ParsedTurn, turn_violation, violation_output
from gtpo_jax.tasks.conversations import Conversation, Said
from gtpo_jax.types import Problem, StopReason, Trajectory, Turn, Verdict, Verifier


def render_conversation(
    conversation: Conversation,
    dialogue: AnyDialogue,
    *,
    max_observation_tokens: int,
    violations: bool = False,
    drop_system: bool = False,
) -> Trajectory:
    """The trajectory of a conversation, without its verdict (see `judged`). Log-probs are 0.

    Raises `ValueError` for a badly formed turn, unless `violations`; for a system message that is
    not the dialogue's, unless `drop_system`; and if a rollout would not continue as the
    conversation does.
    """
    if not drop_system:
        _check_system(conversation.system, dialogue)
    turns: list[Turn] = []
    answer = read = None
    unmarked = conversation.problem.unit_tests is not None
    for number, said in enumerate(conversation.turns):
        tokens = _tokens(said, dialogue, read)
        read = dialogue.parse(tokens, before=read, unmarked=unmarked)
        violation = turn_violation(read, number)
        _check_order(number, said, read, last=number == len(conversation.turns) - 1)
        if violation is not None and not violations:
            raise ValueError(
                f"turn {number + 1}: {violation}; sft.violations takes it all the same"
            )
        observation, dropped = np.zeros(0, np.int32), 0
        if said.outputs:
            observation, dropped = dialogue.observation(
                said.outputs if read.codes else said.outputs[0],
                budget=max_observation_tokens,
                ended=bool(tokens[-1] in dialogue.stop_ids),
            )
        turns.append(
            Turn(
                tokens=tokens,
                logprobs=np.zeros(len(tokens), np.float32),
                text=read.text,
                codes=read.codes,
                violation=violation,
                observation=observation,
                observation_dropped=dropped,
            )
        )
        answer = read.answer
    return Trajectory(
        problem=conversation.problem,
        group=0,
        sample=0,
        prompt=dialogue.prompt(conversation.problem.question),
        turns=tuple(turns),
        stop_reason=StopReason.NO_ACTION if answer is None else StopReason.ANSWERED,
        verdict=Verdict.UNVERIFIABLE,
        answer=answer,
    )


def can_be_judged(problem: Problem) -> bool:
    """True if the problem of a conversation states how its answer is judged."""
    return bool(problem.answer or problem.verifier or problem.unit_tests)


def judged(trajectories: Sequence[Trajectory], verifier: Verifier) -> list[Trajectory]:
    """The trajectories with verdicts of their answers, if their problems can be judged."""
    # Submit all answers before waiting for the first verdict.
    verdicts = [
        verifiers.submit(verifier, t.problem, t.answer) if can_be_judged(t.problem) else None
        for t in trajectories
    ]
    return [
        t if verdict is None else dataclasses.replace(t, verdict=verdict.result())
        for t, verdict in zip(trajectories, verdicts, strict=True)
    ]


def to_conversation(trajectory: Trajectory, dialogue: AnyDialogue) -> Conversation:
    """The conversation that renders to the tokens of a trajectory that ended with an answer.

    Turns are stored as text, together with their sampled tokens if the dialogue would encode the
    text differently.
    """
    turns, read = [], None
    for turn in trajectory.turns:
        text = _text_of(turn.tokens, dialogue)
        outputs = tuple(map(tools.render_tool_result, turn.results))
        if turn is not trajectory.turns[-1] and not outputs:
            outputs = (violation_output(turn.violation or ""),)
        exact = _writes(dialogue, text, turn.tokens, read)
        read = dialogue.parse(turn.tokens, before=read)
        ids = None if exact else tuple(turn.tokens.tolist())
        turns.append(Said(text=text, token_ids=ids, outputs=outputs))
    return Conversation(
        where=f"problem {trajectory.problem.id!r}",
        problem=trajectory.problem,
        system=dialogue.system_prompt or None,
        turns=tuple(turns),
    )


def imitated(trajectory: Trajectory) -> Trajectory:
    """Marks a demonstration as included, since packing skips trajectories of unknown outcome."""
    if trajectory.included:
        return trajectory
    return dataclasses.replace(trajectory, verdict=Verdict.RIGHT)


def _check_system(system: str | None, dialogue: AnyDialogue) -> None:
    if system is not None and system != dialogue.system_prompt:
        raise ValueError(
            f"the system message {system[:40]!r} is not the run's {dialogue.system_prompt[:40]!r},"
            " with which rollouts begin; set dialogue.system_prompt to it, or"
            " sft.system_messages to drop"
        )


def _check_order(number: int, said: Said, read: ParsedTurn, *, last: bool) -> None:
    """Raises unless a rollout would continue after the turn as the conversation does."""
    where, replies = f"turn {number + 1}", len(said.outputs)
    if last:
        if read.codes:
            raise ValueError(f"{where} calls the tool, and nothing replies to it")
        if read.answer is None and read.acts:
            raise ValueError(f"{where}, the last one: {read.violation}")
    elif read.answer is not None or not read.acts:
        what = read.violation or f"answers {read.answer!r}"
        raise ValueError(f"{where}: {what}, which ends a rollout, but here it goes on")
    elif replies != max(len(read.codes), 1):
        raise ValueError(
            f"{where}: {len(read.codes)} calls have {replies} replies"
            + (f" ({read.violation})" if read.violation else "")
        )


def _tokens(said: Said, dialogue: AnyDialogue, before: ParsedTurn | None) -> np.ndarray:
    """Ids of a turn, including its end."""
    if said.codes:
        return dialogue.call(said.text, *said.codes, before=before)
    if said.token_ids is None:
        return dialogue.turn(said.text, before=before)
    ids, size = said.token_ids, dialogue.tokenizer.vocab_size
    known = ids and min(ids) >= 0 and max(ids) < size
    tokens = np.array(ids if known else (), np.int32)
    if not known or _text_of(tokens, dialogue) != said.text:
        raise ValueError(
            f"the token_ids of {said.text[:40]!r} are not those of this run's tokenizer; remove"
            " them from the file to have its texts tokenized"
        )
    return tokens


def _text_of(tokens: np.ndarray, dialogue: AnyDialogue) -> str:
    """Text of a turn, without the token that ended it."""
    ids = tokens.tolist()
    return dialogue.tokenizer.decode(ids[:-1] if ids[-1] in dialogue.stop_ids else ids)


def _writes(
    dialogue: AnyDialogue, text: str, tokens: np.ndarray, before: ParsedTurn | None
) -> bool:
    """True if the dialogue encodes a text as these tokens."""
    try:
        return np.array_equal(dialogue.turn(text, before=before), tokens)
    except ValueError:  # the token that ended the turn has text after the stop string
        return False
