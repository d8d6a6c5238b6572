"""Demonstrations in files: reading, writing, and the error of each broken line."""

import dataclasses
import gzip
import json
import math

import pytest

from gtpo_jax.tasks.conversations import SHOWN, Conversation, Said, read_conversations
from gtpo_jax.types import Problem, StreamTest, UnitTests

USER = {"role": "user", "content": "What is 2 + 2?"}
TOOL = {"role": "tool", "content": "4"}
LAST = {"role": "assistant", "content": "It is \\boxed{4}."}


def call(code="print(2 + 2)", *, arguments=None, **more):
    function = {"name": "python", "arguments": arguments or {"code": code}}
    return {"type": "function", "function": function, **more}


def calls(*each, content="Let me see."):
    return {"role": "assistant", "content": content, "tool_calls": list(each)}


def write(path, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path):
    return read_conversations([path], lambda conversation: conversation)


def test_chat_of_the_usual_kind_is_read(tmp_path):
    system = {"role": "system", "content": "Use Python."}
    record = {"messages": [system, USER, calls(call()), TOOL, LAST], "source": "elsewhere"}
    [found] = read(write(tmp_path / "chats.jsonl", record))
    assert found == Conversation(
        where=f"{tmp_path / 'chats.jsonl'}, line 1",
        problem=Problem(id="chats-1", question="What is 2 + 2?", answer="", family="chats"),
        system="Use Python.",
        turns=(
            Said(text="Let me see.", codes=("print(2 + 2)",), outputs=("4",)),
            Said(text="It is \\boxed{4}."),
        ),
    )


@pytest.mark.parametrize(
    "message",
    [
        calls(call(arguments='{"code": "print(2 + 2)"}')),
        calls(call(id="call_1", index=0)),
        calls(call(), content=None),
        {**calls(call()), "name": None, "token_ids": None, "refusal": None},
    ],
)
def test_variants_of_the_format_are_the_same(message, tmp_path):
    reply = {**TOOL, "name": "python", "tool_call_id": "call_1"}
    [found] = read(write(tmp_path / "x.jsonl", {"messages": [USER, message, reply, LAST]}))
    assert found.turns[0].codes == ("print(2 + 2)",) and found.turns[0].outputs == ("4",)


def test_tables_write_null_where_a_message_has_no_such_key(tmp_path):
    none = {"tool_calls": None, "tool_call_id": None, "name": None}
    record = {"id": 7, "answer": 4.0, "problem": None}
    record["messages"] = [{**none, **message} for message in (USER, calls(call()), TOOL, LAST)]
    [found] = read(write(tmp_path / "x.jsonl", record))
    assert (found.problem.id, found.problem.answer) == ("7", "4.0")
    assert found.turns[0].codes == ("print(2 + 2)",) and found.turns[1].codes == ()


def test_what_is_written_is_read_back(tmp_path):
    tests = UnitTests(tests=("assert f(1) == 2",), setup="import math", names=("f",))
    conversations = [
        Conversation(
            where=f"{tmp_path / 'x.jsonl'}, line 1",
            problem=Problem(
                id="a", question="q\u2028 {} \ud800", answer="4", family="sums", verifier="math",
                choices=("1", "4"), unit_tests=tests,
            ),
            system="Use Python.",
            turns=(
                Said(text="", codes=("a", "b"), outputs=("", "\n 4")),
                Said(text=" text\n", token_ids=(3, 0, 5), outputs=("Error: it",)),
                Said(text="last"),
            ),
        ),
        Conversation(
            where=f"{tmp_path / 'x.jsonl'}, line 2",
            problem=Problem(id="b", question="q", answer="", family="x"),
            turns=(Said(text="last"),),
        ),
    ]  # fmt: skip
    assert read(write(tmp_path / "x.jsonl", *(c.record() for c in conversations))) == conversations


BROKEN = [
    ("{", "not JSON"),
    ("[]", "expected an object, got list"),
    ("[" * 100_000, "JSON nested too deeply"),
    ({}, "a list of messages"),
    ({"messages": []}, "a list of messages"),
    ({"messages": "hi"}, "a list of messages"),
    ({"messages": ["hi"]}, "message 1: expected an object, got str"),
    ({"messages": [LAST]}, "must be the user's"),
    ({"messages": [{"role": "system", "content": "x"}]}, "must be the user's"),
    ({"messages": [USER]}, "the last message must be the assistant's"),
    ({"messages": [USER, calls(call())]}, "message 2: 1 calls have 0 replies"),
    ({"messages": [USER, calls(call()), TOOL]}, "the last message must be the assistant's"),
    ({"messages": [USER, LAST, USER, LAST]}, "message 2: no reply of the tool follows"),
    ({"messages": [USER, calls(call()), LAST]}, "message 2: no reply"),
    ({"messages": [USER, LAST, LAST]}, "message 2: no reply"),
    ({"messages": [USER, TOOL, LAST]}, "message 2: expected the assistant, got the tool"),
    ({"messages": [USER, calls(call()), TOOL, USER, LAST]}, "message 4: .* got the user; outputs"),
    ({"messages": [USER, calls(call(), call()), TOOL, LAST]}, "2 calls have 1 replies"),
    ({"messages": [USER, calls(call()), TOOL, TOOL, LAST]}, "1 calls have 2 replies"),
    (
        {"messages": [USER, calls(call(id="a")), {**TOOL, "tool_call_id": "b"}, LAST]},
        "the call 'a' has the reply of 'b'",
    ),
    ({"messages": [{"role": "developer", "content": "x"}]}, "the role must be among"),
    ({"messages": [{"content": "x"}]}, "the role must be among"),
    ({"messages": [{"role": "user", "content": " "}, LAST]}, "message 1: the user says nothing"),
    ({"messages": [USER, {"role": "assistant", "content": ""}]}, "the assistant says nothing"),
    ({"messages": [USER, {"role": "assistant"}]}, "`content` must be a text, got None"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}, LAST]},
        "`content` must be a text",
    ),
    ({"messages": [USER, {**LAST, "weight": 0}]}, "unknown keys 'weight'"),
    ({"messages": [USER, {**LAST, "reasoning_content": "hm"}]}, "'reasoning_content'"),
    ({"messages": [USER, {**LAST, "tool_calls": "x"}]}, "`tool_calls` must be a list"),
    ({"messages": [USER, {**LAST, "token_ids": [1.5]}]}, "`token_ids` must be a list"),
    ({"messages": [USER, {**LAST, "token_ids": [True]}]}, "`token_ids` must be a list"),
    (
        {"messages": [USER, {**calls(call()), "token_ids": [1]}, TOOL, LAST]},
        "token_ids are of a text",
    ),
    ({"messages": [USER, calls({"name": "python"}), TOOL, LAST]}, "a call must be"),
    ({"messages": [USER, calls(call(type="custom")), TOOL, LAST]}, "a call must be"),
    (
        {"messages": [USER, calls({"function": {"name": "bash"}}), TOOL, LAST]},
        "the tool is named 'python', the call names 'bash'",
    ),
    ({"messages": [USER, calls(call(arguments="print(1)")), TOOL, LAST]}, "arguments: not JSON"),
    ({"messages": [USER, calls(call(arguments='{"x": 1}')), TOOL, LAST]}, "arguments must be"),
    ({"messages": [USER, calls(call(" ")), TOOL, LAST]}, "arguments must be"),
    (
        {"messages": [USER, calls(call(arguments={"code": "x", "timeout": 9})), TOOL, LAST]},
        "arguments must be",
    ),
    ({"id": ["a"], "messages": [USER, LAST]}, "`id` must be a text or a number"),
    ({"answer": True, "messages": [USER, LAST]}, "`answer` must be a text or a number"),
    ({"choices": "ab", "messages": [USER, LAST]}, "`choices` must be a list of texts"),
    ({"answer": math.inf, "messages": [USER, LAST]}, "`answer` must be a text or a finite number"),
    ({"unit_tests": {"test": []}, "messages": [USER, LAST]}, "`unit_tests` must be an object"),
    (
        {"unit_tests": {"streams": [{"stdin": "1"}]}, "messages": [USER, LAST]},
        "`streams` must be objects with stdin and stdout",
    ),
]


@pytest.mark.parametrize(("record", "reason"), BROKEN)
def test_broken_line_is_named_with_its_reason(record, reason, tmp_path):
    path = write(tmp_path / "x.jsonl", {"messages": [USER, LAST]}, "", record)
    match = rf"^1 of 2 demonstrations cannot be used: .*x\.jsonl, line 3: .*{reason}"
    with pytest.raises(ValueError, match=match):
        read(path)


def test_all_broken_lines_are_told_at_once_also_those_that_their_user_refuses(tmp_path):
    good = {"messages": [USER, LAST]}
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(first, good, "{", {"id": "refused", **good})
    write(second, *["[]"] * (SHOWN + 3))

    def use(conversation):
        if conversation.problem.id == "refused":
            raise ValueError("not this one")

    with pytest.raises(ValueError) as error:
        read_conversations([first, second], use)
    message = str(error.value)
    assert message.startswith(f"{SHOWN + 5} of {SHOWN + 6} demonstrations cannot be used: ")
    assert "a.jsonl, line 2: not JSON" in message and "a.jsonl, line 3: not this one" in message
    assert message.count("b.jsonl, line") == SHOWN - 2 and message.endswith("; and 5 more")
    assert "\n" not in message


def test_file_without_demonstrations_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.jsonl: No such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match=r"x\.jsonl holds no demonstration"):
        read(write(tmp_path / "x.jsonl", ""))
    (tmp_path / "y.jsonl").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"y\.jsonl is not UTF-8"):
        read(tmp_path / "y.jsonl")


@pytest.mark.parametrize(
    "called",
    [
        call(arguments={"code": "print(1)", "query": None}),
        call(arguments='{"code": "print(1)", "query": null}'),
        call(arguments={"code": "print(1)", "timeout": float("nan")}),
        call("print(1)", type=None),
        call("print(1)", id=None, index=0),
    ],
)
def test_keys_that_a_table_gives_to_every_record_count_as_absent(called, tmp_path):
    last = {**LAST, "tool_calls": None, "refusal": None}
    record = {"id": None, "answer": float("nan"), "messages": [USER, calls(called), TOOL, last]}
    [found] = read(write(tmp_path / "x.jsonl", record))
    assert found.turns[0].codes == ("print(1)",)
    assert found.problem.id == "x-1" and found.problem.answer == ""


def test_streams_of_a_program_come_back_as_they_were_written(tmp_path):
    tests = UnitTests(
        streams=(StreamTest(stdin="1\n", stdout="2"), StreamTest(stdin="", stdout=""))
    )
    record = {"unit_tests": dataclasses.asdict(tests), "messages": [USER, LAST]}
    [found] = read(write(tmp_path / "x.jsonl", record))
    assert found.problem.unit_tests == tests
    [again] = read(write(tmp_path / "y.jsonl", found.record()))
    assert again.problem.unit_tests == tests


def test_compressed_demonstrations_are_read(tmp_path):
    with gzip.open(tmp_path / "x.jsonl.gz", "wt", encoding="utf-8-sig") as file:
        file.write(json.dumps({"messages": [USER, LAST]}))
    [found] = read(tmp_path / "x.jsonl.gz")
    assert found.problem.id == "x-1"
