"""Demonstrations as JSON lines: chats in which an assistant calls the tool.

    {"id": "p7", "problem": "What is 2**100 % 7?", "answer": "2", "messages": [
        {"role": "user", "content": "What is 2**100 % 7?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [{"type": "function",
            "function": {"name": "python", "arguments": {"code": "print(2**100 % 7)"}}}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is \\boxed{2}."}]}

One object per line. `docs/cold-start.md` explains the keys; a key with null counts as absent.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from gtpo_jax.language import files
from gtpo_jax.tasks import jsonl
from gtpo_jax.tasks.mappings.fields import as_text, is_missing
from gtpo_jax.types import Problem, StreamTest, UnitTests

T = TypeVar("T")

TOOL = "python"
SHOWN = 8
"""Maximum number of unusable lines that an error names."""

_KEYS = {
    "system": ("content",),
    "user": ("content", "name"),
    "assistant": ("content", "name", "tool_calls", "token_ids"),
    "tool": ("content", "name", "tool_call_id"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """A message of the assistant, and the outputs that reply to it."""

    text: str = ""  # with `codes` the text before the calls, else the whole turn
    codes: tuple[str, ...] = ()  # calls, not yet written in the protocol of a dialogue
    token_ids: tuple[int, ...] | None = None  # of the turn, if its text encodes to other ids
    outputs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
    """One demonstration. The user's message is the question of its problem."""

    where: str  # file and line, for errors
    problem: Problem
    system: str | None = None
    turns: tuple[Said, ...]

    def record(self) -> dict[str, Any]:
        """The conversation as the JSON object of a line."""
        problem = self.problem
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        messages.append({"role": "user", "content": problem.question})
        for turn in self.turns:
            message: dict[str, Any] = {"role": "assistant", "content": turn.text}
            if turn.codes:
                message["tool_calls"] = list(map(_call_record, turn.codes))
            if turn.token_ids is not None:
                message["token_ids"] = list(turn.token_ids)
            messages += [message, *({"role": "tool", "content": x} for x in turn.outputs)]
        record: dict[str, Any] = {"id": problem.id}
        record |= {"problem": problem.question, "answer": problem.answer}
        for name in ("family", "verifier"):
            if value := getattr(problem, name):
                record[name] = value
        if problem.choices:
            record["choices"] = list(problem.choices)
        if problem.unit_tests is not None:
            record["unit_tests"] = dataclasses.asdict(problem.unit_tests)
        return {**record, "messages": messages}


def read_conversations(
    paths: Sequence[str | pathlib.Path], use: Callable[[Conversation], T]
) -> list[T]:
    """Applies `use` to each demonstration in the files, in order.

    Raises one `ValueError` that lists all lines, with reasons, that cannot be read or for which
    `use` raises `ValueError`; also if a file cannot be read or holds no demonstration.
    """
    lines: list[tuple[pathlib.Path, int, str]] = []
    for path in map(pathlib.Path, paths):
        # Not `splitlines`, which also splits at separators that JSON strings may contain.
        texts = files.read_text(path).split("\n")
        numbered = [(n, text) for n, text in enumerate(texts, 1) if text.strip()]
        if not numbered:
            raise ValueError(f"{path} holds no demonstration; expected one JSON object a line")
        lines += [(path, number, text) for number, text in numbered]
    results: list[T] = []
    broken: list[str] = []
    for path, number, text in lines:
        try:
            results.append(use(_conversation(path, number, text)))
        except ValueError as error:
            broken.append(f"{path}, line {number}: {error}")
    if broken:
        more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        raise ValueError(
            f"{len(broken)} of {len(lines)} demonstrations cannot be used:"
            f" {'; '.join(broken[:SHOWN])}{more}"
        )
    return results


def _conversation(path: pathlib.Path, number: int, text: str) -> Conversation:
    record = jsonl.decode(text)
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {type(record).__name__}")
    record = _present(record)
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("expected a list of messages under `messages`")
    checked = [_message(number, message) for number, message in enumerate(messages, 1)]
    system = checked.pop(0)[2]["content"] if checked[0][1] == "system" else None
    if not checked or checked[0][1] != "user":
        raise ValueError("the first message, but for the system's, must be the user's")
    question = checked.pop(0)[2]["content"]
    label = files.uncompressed(path).stem
    _text(record, "problem")
    _text(record, "question")
    return Conversation(
        where=f"{path}, line {number}",
        problem=Problem(
            id=_text(record, "id") or f"{label}-{number}",
            question=question,
            answer=_text(record, "answer").strip(),
            family=_text(record, "family") or label,
            verifier=_text(record, "verifier"),
            choices=_texts(record, "choices"),
            unit_tests=_unit_tests(record),
        ),
        system=system,
        turns=_turns(checked),
    )


def _turns(messages: Sequence[tuple[int, str, dict[str, Any]]]) -> tuple[Said, ...]:
    """Turns of the assistant, with the replies of the tool."""
    if not messages or messages[-1][1] != "assistant":
        raise ValueError("the last message must be the assistant's, with the answer")
    turns: list[Said] = []
    at = 0
    while at < len(messages):
        number, role, message = messages[at]
        if role != "assistant":
            hint = "; outputs have the role tool" if role == "user" else ""
            raise ValueError(f"message {number}: expected the assistant, got the {role}{hint}")
        end = next((i for i in range(at + 1, len(messages)) if messages[i][1] != "tool"), None)
        replies = [each for _, _, each in messages[at + 1 : end]]
        if end is not None and not replies:
            raise ValueError(f"message {number}: no reply of the tool follows")
        turns.append(_said(number, message, replies))
        at = len(messages) if end is None else end
    return tuple(turns)


def _said(number: int, message: dict[str, Any], replies: Sequence[dict[str, Any]]) -> Said:
    calls = message.get("tool_calls", [])
    codes = tuple(_code(number, call) for call in calls)
    if codes and len(codes) != len(replies):
        raise ValueError(f"message {number}: {len(codes)} calls have {len(replies)} replies")
    for call, reply in zip(calls, replies, strict=False):
        call_id, reply_id = call.get("id"), reply.get("tool_call_id")
        if call_id is not None and reply_id is not None and call_id != reply_id:
            raise ValueError(
                f"message {number}: the call {call_id!r} has the reply of {reply_id!r}; replies"
                " follow in"
                " the order of calls"
            )
    ids = message.get("token_ids")
    if ids is not None and codes:
        raise ValueError(f"message {number}: token_ids are of a text, not of tool_calls")
    return Said(
        text=message["content"],
        codes=codes,
        token_ids=None if ids is None else tuple(ids),
        outputs=tuple(reply["content"] for reply in replies),
    )


def _message(number: int, message: Any) -> tuple[int, str, dict[str, Any]]:
    """Number, role and keys of a message, whose types are checked."""
    if not isinstance(message, dict):
        raise ValueError(f"message {number}: expected an object, got {type(message).__name__}")
    message = _present(message)
    role = message.pop("role", None)
    if role not in _KEYS:
        raise ValueError(
            f"message {number}: the role must be among {', '.join(_KEYS)}, got {role!r}"
        )
    if unknown := message.keys() - {*_KEYS[role]}:
        raise ValueError(
            f"message {number}: unknown keys {', '.join(map(repr, sorted(unknown)))} in a message"
            f" of the {role}; put the text to learn into its content"
        )
    calls, ids = message.get("tool_calls", []), message.get("token_ids", [])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ValueError(f"message {number}: `tool_calls` must be a list of objects")
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise ValueError(f"message {number}: `token_ids` must be a list of integers")
    content = message.setdefault("content", "" if calls else None)
    if not isinstance(content, str):
        raise ValueError(f"message {number}: `content` must be a text, got {content!r}")
    if not content.strip() and role != "tool" and not calls:
        raise ValueError(f"message {number}: the {role} says nothing")
    return number, role, message


def _code(number: int, call: dict[str, Any]) -> str:
    """The program of a call, whose arguments are an object or JSON text."""
    call = _present(call)
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise ValueError(f'message {number}: a call must be {{"type": "function", "function": …}}')
    if name != TOOL:
        raise ValueError(f"message {number}: the tool is named {TOOL!r}, the call names {name!r}")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = jsonl.decode(arguments)
        except ValueError as error:
            raise ValueError(f"message {number}: arguments: {error}") from None
    code = None
    if isinstance(arguments, dict) and [*_present(arguments)] == ["code"]:
        code = arguments["code"]
    if not isinstance(code, str) or not code.strip():
        raise ValueError(
            f'message {number}: arguments must be {{"code": "print(1)"}}, got {arguments!r}'
        )
    return code


def _call_record(code: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": TOOL, "arguments": {"code": code}}}


def _present(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without missing values, which tables hold for keys of other records."""
    return {key: value for key, value in record.items() if not is_missing(value)}


def _text(record: Mapping[str, Any], key: str) -> str:
    """A text or number as text; empty if the key is absent."""
    return as_text(record.get(key, ""), key)


def _texts(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = record.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"`{key}` must be a list of texts, got {values!r}")
    return tuple(values)


def _unit_tests(record: Mapping[str, Any]) -> UnitTests | None:
    """The unit tests of a record, whose keys are the fields of `types.UnitTests`."""
    tests = record.get("unit_tests")
    if tests is None:
        return None
    known = {field.name for field in dataclasses.fields(UnitTests)}
    if not isinstance(tests, dict) or not tests.keys() <= known:
        raise ValueError(f"`unit_tests` must be an object with tests, got {tests!r}")
    tests = _present(tests)
    return UnitTests(
        tests=_texts(tests, "tests"),
        streams=tuple(map(_stream, tests.get("streams", []))),
        setup=_text(tests, "setup"),
        names=_texts(tests, "names") if "names" in tests else None,
        prompt=_text(tests, "prompt"),
    )


def _stream(test: Any) -> StreamTest:
    if not isinstance(test, dict) or test.keys() != {"stdin", "stdout"}:
        raise ValueError(f"`streams` must be objects with stdin and stdout, got {test!r}")
    return StreamTest(stdin=_text(test, "stdin"), stdout=_text(test, "stdout"))
