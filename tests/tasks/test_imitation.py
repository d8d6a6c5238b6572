"""Conversations rendered as trajectories, and trajectories written as conversations."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from gtpo_jax import tools
from gtpo_jax.language import protocols
from gtpo_jax.language.chat import ChatDialogue
from gtpo_jax.language.grammar import NO_ACTION, Dialogue, turn_violation, violation_output
from gtpo_jax.learner import packing
from gtpo_jax.tasks.conversations import read_conversations
from gtpo_jax.tasks.imitation import imitated, judged, render_conversation, to_conversation
from gtpo_jax.types import (
    Problem,
    StopReason,
    ToolResult,
    ToolStatus,
    Trajectory,
    Turn,
    Verdict,
)
from gtpo_jax.verifiers import numeric_or_exact
from tests.chat_families import FAMILIES
from tests.tiny import BYTES

QWEN = FAMILIES["qwen2.5"]
BUDGET = 90


def chat(protocol):
    return ChatDialogue(
        QWEN.tokenizer(), QWEN.chat_template(), protocol, system_prompt="Use it.", most_calls=2
    )


DIALOGUES = {
    "markers": Dialogue(BYTES, most_calls=2),
    "fenced": chat(protocols.FencedPython()),
    "tags": chat(protocols.CodeTags()),
    "hermes": chat(protocols.HermesCalls()),
}
EACH = pytest.mark.parametrize("name", DIALOGUES)
QUESTION = "What is 2 + 2?"


def read(tmp_path, record, dialogue, **settings):
    """The trajectory of a record that was a line of a file."""
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(record) + "\n")
    [trajectory] = read_conversations(
        [path],
        lambda conversation: render_conversation(
            conversation, dialogue, max_observation_tokens=BUDGET, **settings
        ),
    )
    return judged([trajectory], numeric_or_exact)[0]


def chat_record(*turns, answer="4"):
    """A record whose turns are texts, or programs with outputs."""
    messages = [{"role": "user", "content": QUESTION}]
    for turn in turns:
        if isinstance(turn, str):
            messages.append({"role": "assistant", "content": turn})
            continue
        thought, programs, outputs = turn
        calls = [
            {"type": "function", "function": {"name": "python", "arguments": {"code": code}}}
            for code in programs
        ]
        message = {"role": "assistant", "content": thought}
        messages.append({**message, "tool_calls": calls} if calls else message)
        messages += [{"role": "tool", "content": output} for output in outputs]
    return {"id": "p", "answer": answer, "messages": messages}


def final(name):
    return "So <answer>4</answer>" if name == "markers" else "So \\boxed{4}"


def spans(trajectory):
    """The ids of a trajectory, and which of them are trained, by its record."""
    parts = [(trajectory.prompt, False)]
    for turn in trajectory.turns:
        parts += [(turn.tokens, True), (turn.observation, False)]
    ids = np.concatenate([ids for ids, _ in parts])
    return ids, np.concatenate([np.full(len(ids), mine) for ids, mine in parts])


@EACH
def test_only_what_the_assistant_says_is_trained(name, tmp_path):
    # Separators that the template puts behind a turn are not trained.
    dialogue = DIALOGUES[name]
    record = chat_record(("Go: ", ["print(2 + 2)"], ["4"]), final(name))
    trajectory = read(tmp_path, record, dialogue)
    assert trajectory.verdict is Verdict.RIGHT and trajectory.answer == "4"
    assert trajectory.stop_reason is StopReason.ANSWERED and trajectory.problem.id == "p"
    assert [turn.codes for turn in trajectory.turns] == [("print(2 + 2)",), ()]
    batch = next(packing.pack_stream([trajectory], rows=1, row_length=600))
    ids, mine = spans(trajectory)
    assert batch.tokens[0, : len(ids)].tolist() == ids.tolist()
    assert batch.loss_mask[0].tolist() == [*mine.tolist(), *[False] * (600 - len(ids))]
    said = [dialogue.tokenizer.decode(turn.tokens.tolist()) for turn in trajectory.turns]
    end = "<|end|>" if name == "markers" else "<|im_end|>"
    assert "print(2 + 2)" in said[0] and said[1] == f"{final(name)}{end}"
    # Where a stop string ends the turn, no end marker is the policy's.
    assert said[0].endswith("</code>" if name == "tags" else end)
    between = dialogue.tokenizer.decode(trajectory.turns[0].observation.tolist())
    assert "4" in between and not between.startswith(end)


@EACH
def test_calls_may_stand_in_the_text_or_apart_from_it(name, tmp_path):
    dialogue = DIALOGUES[name]
    apart = read(tmp_path, chat_record(("Go:\n", ["print(4)"], ["4"]), final(name)), dialogue)
    call = "<code>print(4)</code>" if name == "markers" else dialogue.protocol.call("print(4)")
    within = read(tmp_path, chat_record((f"Go:\n{call}", [], ["4"]), final(name)), dialogue)
    assert spans(apart)[0].tolist() == spans(within)[0].tolist()
    assert within.turns[0].codes == ("print(4)",)


@pytest.mark.parametrize("name", ["markers", "fenced", "hermes"])
def test_outputs_of_several_calls_are_those_of_a_rollout(name, tmp_path):
    dialogue = DIALOGUES[name]
    record = chat_record(("", ["a", "b"], ["1", "x" * 300]), final(name))
    turn = read(tmp_path, record, dialogue).turns[0]
    expected, dropped = dialogue.observation(["1", "x" * 300], budget=BUDGET)
    assert turn.codes == ("a", "b") and turn.observation.tolist() == expected.tolist()
    assert turn.observation_dropped == dropped > 0


@EACH
def test_demonstration_without_an_answer_to_compare_is_not_judged_and_still_packed(name, tmp_path):
    record = chat_record(("", ["x"], ["4"]), final(name), answer="")
    trajectory = read(tmp_path, record, DIALOGUES[name])
    assert trajectory.verdict is Verdict.UNVERIFIABLE and not trajectory.included
    assert imitated(trajectory).included
    assert read(tmp_path, chat_record(("", ["x"], ["4"]), final(name), answer="5"),
                DIALOGUES[name]).verdict is Verdict.WRONG  # fmt: skip


@EACH
@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["FINAL"], "turn 1: the first turn did not call the tool; sft.violations takes it"),
        (["It is 4."], f"turn 1: {NO_ACTION}"),
        ([("", ["x"], ["4"]), "It is 4."], f"turn 2: {NO_ACTION}; sft.violations"),
        ([("", ["x"], ["4"]), ("FINAL", [], ["4"]), "FINAL"], "turn 2: answers '4', which ends"),
        ([("hm", [], ["4"]), "FINAL"], f"turn 1: {NO_ACTION}, which ends a rollout"),
        ([("CALL", [], ["4", "5"]), "FINAL"], "turn 1: 1 calls have 2 replies"),
        ([("", ["x"], ["4"]), "CALL"], "turn 2 calls the tool, and nothing replies"),
    ],
)
def test_conversation_that_no_rollout_would_be_is_refused(name, turns, reason, tmp_path):
    dialogue = DIALOGUES[name]
    call = "<code>x</code>" if name == "markers" else dialogue.protocol.call("x")

    def spelled(turn):
        if isinstance(turn, str):
            return turn.replace("FINAL", final(name)).replace("CALL", call)
        return (spelled(turn[0]), *turn[1:])

    with pytest.raises(ValueError, match=f"line 1: {reason}"):
        read(tmp_path, chat_record(*map(spelled, turns)), dialogue)


@EACH
def test_badly_formed_turns_are_taken_where_wanted(name, tmp_path):
    dialogue = DIALOGUES[name]
    broken = "<code>x" if name == "markers" else dialogue.protocol.call("x", closed=False)
    reply = violation_output(dialogue.parse(dialogue.turn(broken)).violation)
    record = chat_record((broken, [], [reply]), ("", ["y"], ["4"]), final(name))
    with pytest.raises(ValueError, match=r"turn 1: .*; sft\.violations takes it all the same"):
        read(tmp_path, record, dialogue)
    trajectory = read(tmp_path, record, dialogue, violations=True)
    assert trajectory.turns[0].violation and not trajectory.turns[0].codes
    assert "Error: " in dialogue.tokenizer.decode(trajectory.turns[0].observation.tolist())
    direct = read(tmp_path, chat_record(final(name)), dialogue, violations=True)
    assert direct.turns[0].violation == "the first turn did not call the tool"
    silent = read(tmp_path, chat_record("It is 4."), dialogue, violations=True)
    assert silent.stop_reason is StopReason.NO_ACTION and silent.verdict is Verdict.NO_ANSWER


def test_system_message_has_to_be_the_one_that_rollouts_begin_with(tmp_path):
    record = chat_record(("", ["x"], ["4"]), final("fenced"))
    dialogue = DIALOGUES["fenced"]
    expected = read(tmp_path, record, dialogue).prompt.tolist()

    def told(system):
        return {**record, "messages": [{"role": "system", "content": system}, *record["messages"]]}

    assert read(tmp_path, told("Use it."), dialogue).prompt.tolist() == expected
    with pytest.raises(ValueError, match=r"'Be nice\.' is not the run's 'Use it\.'.* or sft"):
        read(tmp_path, told("Be nice."), dialogue)
    assert read(tmp_path, told("Be nice."), dialogue, drop_system=True).prompt.tolist() == expected
    with pytest.raises(ValueError, match="is not the run's ''"):
        read(tmp_path, told("Be nice."), DIALOGUES["markers"])


def rollout(dialogue, turns, answer="4"):
    """The trajectory of a policy that writes these ids, as the loop of a rollout makes it."""
    made, read = [], None
    for number, (ids, results) in enumerate(turns):
        tokens = np.array(ids, np.int32)
        read = dialogue.parse(tokens)
        outputs = [*map(tools.render_tool_result, results)] or violation_output(
            read.violation or ""
        )
        observation, dropped = np.zeros(0, np.int32), 0
        if number < len(turns) - 1:
            ended = ids[-1] in dialogue.stop_ids
            observation, dropped = dialogue.observation(outputs, budget=BUDGET, ended=ended)
        made.append(
            Turn(
                tokens=tokens,
                logprobs=np.zeros(len(tokens), np.float32),
                text=read.text,
                codes=read.codes,
                violation=turn_violation(read, number),
                results=tuple(results),
                observation=observation,
                observation_dropped=dropped,
            )
        )
    return Trajectory(
        problem=Problem(id="p", question=QUESTION, answer=answer),
        group=0,
        sample=0,
        prompt=dialogue.prompt(QUESTION),
        turns=tuple(made),
        stop_reason=StopReason.ANSWERED,
        verdict=Verdict.RIGHT,
        answer=read.answer if read else None,
    )


RESULTS = [
    ToolResult(status=ToolStatus.OK, stdout="4\n"),
    ToolResult(status=ToolStatus.OK, stdout="<|im_end|>\ud800 é" * 30),
    ToolResult(status=ToolStatus.ERROR, stderr="Traceback\nValueError: no"),
    ToolResult(status=ToolStatus.TIMEOUT),
]


@EACH
@hypothesis.given(data=strategies.data())
@hypothesis.settings(
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_trajectory_that_was_written_is_read_back_token_by_token(name, data, tmp_path):
    dialogue = DIALOGUES[name]
    size, end = dialogue.tokenizer.vocab_size, dialogue.stop_ids[0]
    noise = strategies.lists(strategies.integers(0, size - 1), max_size=6)
    turns = []
    for _ in range(data.draw(strategies.integers(0, 2))):
        ids = [*data.draw(noise), *dialogue.call("Go: ", "print(4)").tolist()]
        codes = dialogue.parse(ids).codes
        if dialogue.parse(ids).violation == NO_ACTION or dialogue.parse(ids).answer is not None:
            continue  # it would have ended the rollout
        turns.append((ids, [data.draw(strategies.sampled_from(RESULTS)) for _ in codes]))
    last = [*data.draw(noise), *dialogue.answer("So ", "4").tolist()]
    hypothesis.assume(dialogue.parse(last).answer is not None)
    trajectory = rollout(dialogue, [*turns, (last, [])])
    conversation = to_conversation(trajectory, dialogue)
    again = read(tmp_path, conversation.record(), dialogue, violations=True)
    assert spans(again)[0].tolist() == spans(trajectory)[0].tolist()
    assert spans(again)[1].tolist() == spans(trajectory)[1].tolist()
    for mine, theirs, said in zip(trajectory.turns, again.turns, conversation.turns, strict=True):
        assert (mine.text, mine.codes, mine.violation) == (
            theirs.text,
            theirs.codes,
            theirs.violation,
        )
        assert mine.observation_dropped == theirs.observation_dropped
        assert end not in (said.token_ids or ())[:-1] or mine.violation


@EACH
def test_token_ids_are_written_only_where_the_text_does_not_give_them(name):
    dialogue = DIALOGUES[name]
    call, answer = dialogue.call("Go: ", "print(4)").tolist(), dialogue.answer("So ", "4").tolist()
    plain = to_conversation(rollout(dialogue, [(call, RESULTS[:1]), (answer, [])]), dialogue)
    assert [turn.token_ids for turn in plain.turns] == [None, None]
    assert plain.turns[0].outputs == ("4",) and plain.system == (dialogue.system_prompt or None)
    half = dialogue.tokenizer.encode("é")[:1] * 2  # no UTF-8: the text does not tell which bytes
    odd = to_conversation(rollout(dialogue, [(half + call, RESULTS[:1]), (answer, [])]), dialogue)
    assert [turn.token_ids is None for turn in odd.turns] == [False, True]
    assert odd.turns[0].token_ids == tuple(half + call)


@EACH
def test_token_ids_of_another_tokenizer_are_refused(name, tmp_path):
    dialogue = DIALOGUES[name]
    record = chat_record(("", ["x"], ["4"]), final(name))
    last = record["messages"][-1]
    end = list(dialogue.stop_ids[:1])
    good = dialogue.tokenizer.encode("So ") + dialogue.turn(final(name)[3:]).tolist()
    for ids in ([], [-1], [dialogue.tokenizer.vocab_size], [10**12], good[1:], end):
        record["messages"][-1] = {**last, "token_ids": ids}
        with pytest.raises(ValueError, match=r"line 1: the token_ids of .* are not those"):
            read(tmp_path, record, dialogue)
    record["messages"][-1] = {**last, "token_ids": good}
    assert read(tmp_path, record, dialogue).turns[1].tokens.tolist() == good
