"""Scripts played against a tool: the trajectories that imitation is trained on."""

import numpy as np
import pytest

from gtpo_jax.language import protocols
from gtpo_jax.language.chat import ChatDialogue
from gtpo_jax.language.grammar import END
from gtpo_jax.learner import packing
from gtpo_jax.tasks.demonstrations import demonstrate, play
from gtpo_jax.tasks.source import Answer, Call
from gtpo_jax.testing import INFRA_FAILURE, FakeTool
from gtpo_jax.types import Problem, StopReason, ToolResult, ToolStatus, Verdict
from gtpo_jax.verifiers import numeric_or_exact
from tests.chat_families import FAMILIES
from tests.tiny import BYTES, DIALOGUE

OUTPUTS = {
    "2+2": "4\n",
    "1/0": ToolResult(status=ToolStatus.ERROR, stderr="Traceback\nZeroDivisionError: by zero"),
    "long": "0123456789" * 3,
}


def script(*actions):
    """Takes the actions in turn; `None` as the text of an answer stands for the last output."""
    output = ""
    for action in actions:
        if isinstance(action, Answer) and action.text is None:
            action = Answer(text=output)
        output = yield action


def make(*scripts, budget=40, tool=None, dialogue=DIALOGUE):
    problems = [Problem(id=f"p{i}", question="2+2?", answer="4") for i in range(len(scripts))]
    return demonstrate(
        zip(problems, scripts, strict=True),
        dialogue,
        FakeTool(OUTPUTS) if tool is None else tool,
        numeric_or_exact,
        max_observation_tokens=budget,
    )


def render(trajectory):
    ids = [trajectory.prompt]
    for turn in trajectory.turns:
        ids += [turn.tokens, turn.observation]
    return BYTES.decode(np.concatenate(ids))


LAST = Answer(thought="So ", text=None)


def test_demonstration_is_the_dialogue_that_a_rollout_would_be():
    [trajectory] = make(script(Call(thought="Go. ", code="2+2"), Answer(text="4")))
    assert render(trajectory) == (
        "<|user|>2+2?<|end|><|assistant|>Go. <code>2+2</code><|end|>"
        "<|tool|>4<|end|><|assistant|>The answer is <answer>4</answer><|end|>"
    )
    assert trajectory.stop_reason is StopReason.ANSWERED and trajectory.verdict is Verdict.RIGHT
    first, last = trajectory.turns
    assert (first.code, first.results[0].stdout, first.violation) == ("2+2", "4\n", None)
    assert last.code is None and last.results == () and len(last.observation) == 0


def test_every_written_token_is_trained_and_nothing_else():
    trajectories = make(
        script(Call(code="2+2"), LAST), script(Call(code="1/0"), Call(code="2+2"), LAST)
    )
    batch = next(packing.pack_stream(trajectories, rows=1, row_length=160))
    written = sum(len(turn.tokens) for t in trajectories for turn in t.turns)
    assert batch.loss_mask.sum() == written
    trained = batch.tokens[batch.loss_mask]
    assert np.count_nonzero(trained == BYTES.control_id(END)) == 5
    for turn in trajectories[0].turns:
        assert np.all(turn.logprobs == 0) and turn.logprobs.shape == turn.tokens.shape


CHATS = {
    "fenced": (
        protocols.FencedPython(),
        "```python\n2+2\n```<|im_end|>",
        "\n<|im_start|>user\n```output\n4\n```<|im_end|>\n<|im_start|>assistant\n",
    ),
    "tags": (
        protocols.CodeTags(),
        "<code>\n2+2\n</code>",
        "\n<interpreter>\n4\n</interpreter>\n",
    ),
    "hermes": (
        protocols.HermesCalls(),
        '<tool_call>\n{"name": "python", "arguments": {"code": "2+2"}}\n</tool_call><|im_end|>',
        "\n<|im_start|>user\n<tool_response>\n4\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
}


@pytest.mark.parametrize("name", CHATS)
def test_script_is_played_in_the_protocol_of_a_chat(name):
    protocol, call, reply = CHATS[name]
    qwen = FAMILIES["qwen2.5"]
    dialogue = ChatDialogue(qwen.tokenizer(), qwen.chat_template(), protocol, system_prompt="")
    decode = dialogue.tokenizer.decode
    [good, bad] = make(
        script(Call(thought="Go.", code="2+2"), LAST),
        script(Call(code="2+2", closed=False), LAST),
        dialogue=dialogue,
        budget=100,
    )
    first, last = good.turns
    assert decode(first.tokens.tolist()) == f"Go.\n{call}" and first.codes == ("2+2",)
    assert decode(first.observation.tolist()) == reply
    assert decode(last.tokens.tolist()) == "The answer is \\boxed{4}<|im_end|>"
    assert good.verdict is Verdict.RIGHT and good.answer == "4"
    # The tag of Hermes is a token of its own, as a policy writes it.
    if name == "hermes":
        assert dialogue.tokenizer.control_id("<tool_call>") in first.tokens
    assert bad.turns[0].violation == protocols.UNCLOSED_CALL and bad.turns[0].codes == ()
    assert f"Error: {protocols.UNCLOSED_CALL}" in decode(bad.turns[0].observation.tolist())
    assert bad.verdict is Verdict.WRONG


def test_script_reads_the_output_that_it_is_shown():
    trajectories = make(
        script(Call(code="2+2"), LAST),
        script(Call(code="1/0"), LAST),
        script(Call(code="2+2", closed=False), LAST),
    )
    assert [t.answer for t in trajectories] == [
        "4",
        "ZeroDivisionError: by zero",
        "Error: the code is not enclosed once",
    ]
    assert [t.verdict for t in trajectories] == [Verdict.RIGHT, Verdict.WRONG, Verdict.WRONG]


def test_unclosed_call_is_not_run_and_is_a_violation():
    tool = FakeTool(OUTPUTS)
    [trajectory] = make(script(Call(code="2+2", closed=False), Answer(text="5")), tool=tool)
    first = trajectory.turns[0]
    assert tool.codes == [] and first.results == () and first.code is None
    assert first.violation == "the code is not enclosed once"
    assert "<code>2+2<|end|><|tool|>Error: the code is" in render(trajectory)


def test_answer_without_a_call_is_a_violation():
    [trajectory] = make(script(Answer(text="4")))
    assert trajectory.turns[0].violation == "the first turn did not call the tool"
    assert trajectory.verdict is Verdict.RIGHT


def test_long_output_is_cut_as_in_a_rollout():
    [trajectory] = make(script(Call(code="long"), Answer(text="4")), budget=10)
    first = trajectory.turns[0]
    assert len(first.observation) == 10 and first.observation_dropped == 30 - 4


def test_scripts_are_played_side_by_side_in_their_order():
    tool = FakeTool(OUTPUTS)
    scripts = [script(Call(code="2+2"), Call(code="long"), LAST), script(Call(code="1/0"), LAST)]
    trajectories = make(*scripts, tool=tool)
    assert tool.codes == ["2+2", "1/0", "long"]
    assert [t.problem.id for t in trajectories] == ["p0", "p1"]
    assert [t.group for t in trajectories] == [0, 1]
    assert [len(t.turns) for t in trajectories] == [3, 2]


def test_slow_calls_run_at_the_same_time():
    with FakeTool(OUTPUTS, seconds=lambda code: 0.05, threads=4) as tool:
        trajectories = make(*(script(Call(code="2+2"), LAST) for _ in range(4)), tool=tool)
    assert all(t.success for t in trajectories)


def test_broken_tool_is_an_error_and_nothing_to_imitate():
    tool = FakeTool({"2+2": INFRA_FAILURE})
    with pytest.raises(RuntimeError, match="the tool broke in the demonstration of problem 'p0'"):
        make(script(Call(code="2+2"), LAST), tool=tool)


def test_no_scripts_give_no_demonstrations():
    assert play([], DIALOGUE, FakeTool({})) == []
