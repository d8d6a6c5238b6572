"""Demonstrations as JSON lines: chats in which an assistant calls the tool.

    {"id": "p7", "problem": "What is 2**100 % 7?", "answer": "2", "messages": [
        {"role": "user", "content": "What is 2**100 % 7?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [{"type": "function",
            "function": {"name": "python", "arguments": {"code": "print(2**100 % 7)"}}}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is \\boxed{2}."}]}

One object a line. `docs/cold-start.md` says what each key means; keys with null count as absent.
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
"""Lines that an error names, of those that cannot be used."""

_KEYS = {
    "system": ("content",),
    "user": ("content", "name"),
    "assistant": ("content", "name", "tool_calls", "token_ids"),
    "tool": ("content", "name", "tool_call_id"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """What the assistant said, and what was said to it."""

    text: str = ""  # with `codes` what stands before the calls, else all of the turn
    codes: tuple[str, ...] = ()  # calls, still to be written in the protocol of a dialogue
    token_ids: tuple[int, ...] | None = None  # of the turn, where the text does not give them
    outputs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
    """One demonstration. The question of its problem is what the user says."""

    where: str  # file and line, for errors
    problem: Problem
    system: str | None = None
    turns: tuple[Said, ...]

    def record(self) -> dict[str, Any]:
        """As the JSON object of a line."""
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
    """What `use` makes of each demonstration of files, in their order.

    Raises one `ValueError` for all lines that cannot be read or that `use` raises one for, with
    their numbers and reasons; and for a file that cannot be read or holds no demonstration.
    """
    lines: list[tuple[pathlib.Path, int, str]] = []
    for path in map(pathlib.Path, paths):
        # Not `splitlines`: it also breaks at separators that may stand inside a JSON text.
        texts = files.read_text(path).split("\n")
        found = [(n, text) for n, text in enumerate(texts, 1) if text.strip()]
        if not found:
            raise ValueError(f"{path} holds no demonstration; expected one JSON object a line")
        lines += [(path, number, text) for number, text in found]
    done: list[T] = []
    broken: list[str] = []
    for path, number, text in lines:
        try:
            done.append(use(_conversation(path, number, text)))
        except ValueError as error:
            broken.append(f"{path}, line {number}: {error}")
    if broken:
        more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        raise ValueError(
            f"{len(broken)} of {len(lines)} demonstrations cannot be used:"
            f" {'; '.join(broken[:SHOWN])}{more}"
        )
    return done


def _conversation(path: pathlib.Path, number: int, text: str) -> Conversation:
    record = jsonl.decode(text)
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {type(record).__name__}")
    record = _present(record)
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("expected a list of messages under `messages`")
    named = [_message(number, message) for number, message in enumerate(messages, 1)]
    system = named.pop(0)[2]["content"] if named[0][1] == "system" else None
    if not named or named[0][1] != "user":
        raise ValueError("the first message, but for the system's, must be the user's")
    asked = named.pop(0)[2]["content"]
    label = files.uncompressed(path).stem
    _text(record, "problem")
    _text(record, "question")
    return Conversation(
        where=f"{path}, line {number}",
        problem=Problem(
            id=_text(record, "id") or f"{label}-{number}",
            question=asked,
            answer=_text(record, "answer").strip(),
            family=_text(record, "family") or label,
            verifier=_text(record, "verifier"),
            choices=_texts(record, "choices"),
            unit_tests=_unit_tests(record),
        ),
        system=system,
        turns=_turns(named),
    )


def _turns(messages: Sequence[tuple[int, str, dict[str, Any]]]) -> tuple[Said, ...]:
    """Turns of the assistant with the replies of the tool."""
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
        asked, told = call.get("id"), reply.get("tool_call_id")
        if asked is not None and told is not None and asked != told:
            raise ValueError(
                f"message {number}: the call {asked!r} has the reply of {told!r}; replies follow in"
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
    """Number, role, and the keys of a message that are there, each of its kind."""
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
            f"message {number}: nothing is known of {', '.join(map(repr, sorted(unknown)))} in a"
            f" message of the {role}; write what is to be learned as its content"
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
    """The program of a call, its arguments as an object or as JSON text."""
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
    """Without the keys that a table has only because other records have them."""
    return {key: value for key, value in record.items() if not is_missing(value)}


def _text(record: Mapping[str, Any], key: str) -> str:
    """A text or number as text; empty where there is none."""
    return as_text(record.get(key, ""), key)


def _texts(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = record.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"`{key}` must be a list of texts, got {values!r}")
    return tuple(values)


def _unit_tests(record: Mapping[str, Any]) -> UnitTests | None:
    """By what a program is judged, under the names of `types.UnitTests`."""
    said = record.get("unit_tests")
    if said is None:
        return None
    known = {field.name for field in dataclasses.fields(UnitTests)}
    if not isinstance(said, dict) or not said.keys() <= known:
        raise ValueError(f"`unit_tests` must be an object with tests, got {said!r}")
    said = _present(said)
    return UnitTests(
        tests=_texts(said, "tests"),
        streams=tuple(map(_stream, said.get("streams", []))),
        setup=_text(said, "setup"),
        names=_texts(said, "names") if "names" in said else None,
        prompt=_text(said, "prompt"),
    )


def _stream(said: Any) -> StreamTest:
    if not isinstance(said, dict) or said.keys() != {"stdin", "stdout"}:
        raise ValueError(f"`streams` must be objects with stdin and stdout, got {said!r}")
    return StreamTest(stdin=_text(said, "stdin"), stdout=_text(said, "stdout"))
