"""Tool protocols: how a chat model calls the tool, answers, and is shown outputs, as plain text.

| protocol | a call | its output |
|---|---|---|
| `FencedPython` | a Markdown block of Python | a user message with a block of output |
| `CodeTags` | `<code>…</code>` | `<interpreter>…</interpreter>`, within the assistant's message |
| `HermesCalls` | `<tool_call>{"name": …, "arguments": {"code": …}}</tool_call>` | a tool message |

An answer is `<answer>…</answer>` or `\\boxed{…}`, the last of the turn, outside calls. A turn holds
calls or an answer; if one of its calls is not well formed, none of them counts and the violation
says what is wrong. Reading never raises, whatever the text.

All of it is text: a tool that prints `</interpreter>` or three backticks can make its output look
ended. Control symbols of the chat template it cannot write.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gtpo_jax.answers import ANSWER, ANSWER_END, read_answer
from gtpo_jax.dialogue import NO_ACTION, ParsedTurn
from gtpo_jax.templates import Segment

UNCLOSED_CALL = "the call is not closed"
UNOPENED_CALL = "a call is closed that was not opened"
CALL_AND_ANSWER = "a call and an answer in one turn"
UNCLOSED_THOUGHT = "the thought is not closed by </think>"
FENCE_NOT_ALONE = "the fence that opens a call has to be a line of its own, such as ```python"
NOT_JSON = 'the call is not JSON like {"name": "python", "arguments": {"code": "print(1)"}}'
UNKNOWN_TOOL = "the call names no tool that exists"
NO_CODE = 'the arguments of the call hold no "code" that is a string'
NOT_UNICODE = "the code of the call holds half of a surrogate pair"

THINK, THINK_END = "<think>", "</think>"
TAGS = (THINK, THINK_END, ANSWER, ANSWER_END)
"""Of every protocol, besides those around calls."""

PYTHON_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs a Python program and returns what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The program."}},
            "required": ["code"],
        },
    },
}
"""The tool as chat templates take it."""

_RULES = (
    " Only what a program prints is shown to you. Use the tool before you answer, and give the"
    " final answer in \\boxed{}, in a turn of its own."
)

FENCED_PROMPT = (
    "Solve the problem step by step with the help of Python. To run a program, write it in a block"
    " that begins with ```python and ends with ```, then end your turn. Its output is sent to you"
    f" in a block that begins with ```output.{_RULES}"
)
TAGS_PROMPT = (
    "Solve the problem step by step with the help of Python. To run a program, write it between"
    " <code> and </code>. Its output follows between <interpreter> and </interpreter>; then go"
    f" on.{_RULES}"
)
HERMES_PROMPT = f"Solve the problem step by step with the help of the tool python.{_RULES}"
HERMES_DESCRIBED_PROMPT = (
    "Solve the problem step by step with the help of the tool python. To run a program, write a"
    " JSON object with the name of the tool and its arguments between <tool_call> and </tool_call>,"
    " then end your turn:\n"
    '<tool_call>\n{"name": "python", "arguments": {"code": "print(1 + 1)"}}\n</tool_call>\n'
    f"Its output is sent to you.{_RULES}"
)
"""For templates that describe tools in a format of their own, or not at all."""


class ToolProtocol(Protocol):
    """How calls and their outputs are written in the messages of a chat."""

    @property
    def system_prompt(self) -> str:
        """What the policy is told of the tool and of answers."""
        ...

    @property
    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """Tools that the chat template describes in its own words."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end a turn besides the template's end marker."""
        ...

    @property
    def reply_role(self) -> str:
        """`tool`: a message for each output. `user`: one message with all of them."""
        ...

    @property
    def inline(self) -> bool:
        """Outputs go on within the assistant's message where a stop string has ended the turn."""
        ...

    def call(self, code: str, *, closed: bool = True) -> str:
        """Text of a call; without `closed`, as one writes it who forgets its end."""
        ...

    def reply(self, output: str) -> str:
        """Content that shows an output."""
        ...

    def parse(self, text: str, *, most_calls: int = 1, in_thought: bool = False) -> ParsedTurn:
        """Reads a turn that has come to its end, without its end marker.

        `in_thought`: the prompt ended with `<think>`, so the turn begins inside of it.
        """
        ...

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        """The text of a turn with its tags apart from the rest.

        Where the tokenizer has tokens for tags, they are meant, as a policy writes them; in the
        code of calls they are text.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FencedPython:
    """Calls are Markdown blocks of Python, as instruction-tuned models write them.

    A fence is a line of three or more backticks, indented perhaps; a block ends at a line of at
    least as many and nothing else. Any code can be written: with fences longer than those in it.
    Other blocks are neither calls nor answers. A thought in `<think>` at the beginning of a turn is
    neither, too. The stop string keeps a policy from writing the output itself.
    """

    system_prompt: str = FENCED_PROMPT
    languages: tuple[str, ...] = ("python", "py")  # lower case
    tools: tuple[Mapping[str, Any], ...] = ()
    stop_strings: tuple[str, ...] = ("```output",)
    reply_role: str = "user"
    inline: bool = False

    def call(self, code: str, *, closed: bool = True) -> str:
        longest = max(map(len, re.findall("`+", code)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}{self.languages[0]}\n{code}" + f"\n{fence}" * closed

    def reply(self, output: str) -> str:
        return f"```output\n{output}\n```"

    def parse(self, text: str, *, most_calls: int = 1, in_thought: bool = False) -> ParsedTurn:
        return _turn(text, self._read(text, in_thought), most_calls)

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        return _segments(text, self._read(text, in_thought).held, TAGS)

    def _read(self, text: str, in_thought: bool) -> _Calls:
        begin = _thought_end(text, in_thought)
        if begin is None:
            return _Calls(violation=UNCLOSED_THOUGHT)
        codes: list[str] = []
        outside: list[str] = []
        held: list[tuple[int, int]] = []
        lines = text[begin:].split("\n")
        starts = [*itertools.accumulate((len(line) + 1 for line in lines), initial=begin)]
        at = 0
        while at < len(lines):
            opening = _FENCE.fullmatch(lines[at])
            if opening is None:
                outside.append(lines[at])
                at += 1
                continue
            indent, fence, label = opening.groups()
            is_call = label.strip().lower() in self.languages
            closing = re.compile(f"[ \t]*`{{{len(fence)},}}[ \t\r]*")
            ends = (i for i in range(at + 1, len(lines)) if closing.fullmatch(lines[i]))
            end = next(ends, None)
            if end is None:
                if is_call:
                    return _Calls(held=(*held, (starts[at], len(text))), violation=UNCLOSED_CALL)
                break
            held.append((starts[at], starts[end]))
            if is_call:
                margin = re.compile(f"[ \t]{{0,{len(indent)}}}")
                codes.append("\n".join(margin.sub("", x, count=1) for x in lines[at + 1 : end]))
            at = end + 1
        unfenced = "\n".join(outside)
        opened = re.search(f"```[ \t]*({'|'.join(map(re.escape, self.languages))})\\b", unfenced)
        violation = FENCE_NOT_ALONE if opened else None
        return _Calls(tuple(codes), unfenced, tuple(held), violation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeTags:
    """Calls stand between two tags, and the outputs go on in the same message.

    The closing tag is a stop string: a turn has one call, and its code cannot hold the closing tag.
    A fence around the whole code is taken off. Thoughts may call, so nothing in `<think>` is left
    out but answers.
    """

    system_prompt: str = TAGS_PROMPT
    opening: str = "<code>"
    closing: str = "</code>"
    tools: tuple[Mapping[str, Any], ...] = ()
    reply_role: str = "user"
    inline: bool = True

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.closing,)

    def call(self, code: str, *, closed: bool = True) -> str:
        return f"{self.opening}\n{code}" + f"\n{self.closing}" * closed

    def reply(self, output: str) -> str:
        return f"<interpreter>\n{output}\n</interpreter>"

    def parse(self, text: str, *, most_calls: int = 1, in_thought: bool = False) -> ParsedTurn:
        del in_thought  # calls are read in thoughts as well
        calls = self._read(text)
        outside = calls.outside.rpartition(THINK_END)[2]
        return _turn(text, dataclasses.replace(calls, outside=outside), most_calls)

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        del in_thought
        return _segments(text, self._read(text).held, (self.opening, self.closing, *TAGS))

    def _read(self, text: str) -> _Calls:
        codes: list[str] = []
        outside: list[str] = []
        held: list[tuple[int, int]] = []
        behind = 0
        while (opening := text.find(self.opening, behind)) >= 0:
            begin = opening + len(self.opening)
            end = text.find(self.closing, begin)
            if end < 0:
                return _Calls(held=(*held, (begin, len(text))), violation=UNCLOSED_CALL)
            outside.append(text[behind:opening])
            codes.append(self._bare(text[begin:end]))
            held.append((begin, end))
            behind = end + len(self.closing)
        unenclosed = "\n".join([*outside, text[behind:]])
        violation = UNOPENED_CALL if self.closing in unenclosed else None
        return _Calls(tuple(codes), unenclosed, tuple(held), violation)

    def _bare(self, code: str) -> str:
        code = code.removeprefix("\n").removesuffix("\n")
        fenced = _FENCED_WHOLE.fullmatch(code)
        return fenced[1] if fenced else code


@dataclasses.dataclass(frozen=True, kw_only=True)
class HermesCalls:
    """Calls are JSON between two tags, as Hermes and Qwen models are tuned to write them.

    A call ends with its JSON: a closing tag inside a string is text. Any code can be written. The
    chat template describes `tools`; for one that does not, or in another format, use
    `HermesCalls(tools=(), system_prompt=HERMES_DESCRIBED_PROMPT)`. A thought in `<think>` at the
    beginning of a turn neither calls nor answers.
    """

    system_prompt: str = HERMES_PROMPT
    tools: tuple[Mapping[str, Any], ...] = (PYTHON_TOOL,)
    name: str = "python"
    opening: str = "<tool_call>"
    closing: str = "</tool_call>"
    stop_strings: tuple[str, ...] = ()
    reply_role: str = "tool"
    inline: bool = False

    def call(self, code: str, *, closed: bool = True) -> str:
        call = {"name": self.name, "arguments": {"code": code}}
        said = f"{self.opening}\n{json.dumps(call, ensure_ascii=False)}"
        return said + f"\n{self.closing}" * closed

    def reply(self, output: str) -> str:
        return output

    def parse(self, text: str, *, most_calls: int = 1, in_thought: bool = False) -> ParsedTurn:
        return _turn(text, self._read(text, in_thought), most_calls)

    def segments(self, text: str, *, in_thought: bool = False) -> list[Segment]:
        held = self._read(text, in_thought).held
        return _segments(text, held, (self.opening, self.closing, *TAGS))

    def _read(self, text: str, in_thought: bool) -> _Calls:
        behind = _thought_end(text, in_thought)
        if behind is None:
            return _Calls(violation=UNCLOSED_THOUGHT)
        codes: list[str] = []
        outside: list[str] = []
        held: list[tuple[int, int]] = []
        while (opening := text.find(self.opening, behind)) >= 0:
            begin = end = opening + len(self.opening)
            code: str | _Wrong = _Wrong(NOT_JSON)
            with contextlib.suppress(ValueError, RecursionError):
                call, end = _JSON.raw_decode(text, _behind_spaces(text, begin))
                code = self._code(call)
            held.append((begin, end))
            closing = _behind_spaces(text, end)
            if end == begin or not text.startswith(self.closing, closing):
                unclosed = text.find(self.closing, end) < 0
                violation = UNCLOSED_CALL if unclosed else NOT_JSON
                return _Calls(held=tuple(held), violation=violation)
            if isinstance(code, _Wrong):
                return _Calls(held=tuple(held), violation=code.violation)
            outside.append(text[behind:opening])
            codes.append(code)
            behind = closing + len(self.closing)
        unenclosed = "\n".join([*outside, text[behind:]])
        violation = UNOPENED_CALL if self.closing in unenclosed else None
        return _Calls(tuple(codes), unenclosed, tuple(held), violation)

    def _code(self, call: Any) -> str | _Wrong:
        if not isinstance(call, dict):
            return _Wrong(NOT_JSON)
        if call.get("name") != self.name:
            return _Wrong(UNKNOWN_TOOL)
        arguments = call.get("arguments")
        code = arguments.get("code") if isinstance(arguments, dict) else None
        if not isinstance(code, str):
            return _Wrong(NO_CODE)
        try:
            code.encode()
        except UnicodeEncodeError:
            return _Wrong(NOT_UNICODE)
        return code


@dataclasses.dataclass(frozen=True)
class _Wrong:
    """Why a call is not well formed."""

    violation: str


_JSON = json.JSONDecoder()
_FENCE = re.compile("([ \t]*)(`{3,})([^`\n]*)")
_FENCED_WHOLE = re.compile(r"\s*```(?:python|py)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class _Calls:
    """The calls of a turn; without them when one is not well formed."""

    codes: tuple[str, ...] = ()
    outside: str = ""  # the text around them, in which an answer may stand
    held: tuple[tuple[int, int], ...] = ()  # where in the text code stands, in which no tag is one
    violation: str | None = None


def _turn(text: str, calls: _Calls, most_calls: int) -> ParsedTurn:
    """What a turn says, its calls read."""
    answer, wrong_answer = read_answer(calls.outside)
    codes, violation = calls.codes, calls.violation
    if violation is None and codes and (answer is not None or wrong_answer is not None):
        violation = CALL_AND_ANSWER
    if violation is None and len(codes) > most_calls:
        violation = f"{len(codes)} calls in one turn, where {most_calls} is the most"
    if violation is None and not codes:
        violation = NO_ACTION if answer is None and wrong_answer is None else wrong_answer
    if violation is not None:
        return ParsedTurn(text=text, violation=violation)
    return ParsedTurn(text=text, codes=codes, answer=answer)


def _segments(text: str, held: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Segment]:
    """The text cut at its tags, those that do not stand in what is held."""
    pieces: list[Segment] = []
    behind = 0
    for tag in re.finditer("|".join(map(re.escape, tags)), text):
        if not any(begin <= tag.start() < end for begin, end in held):
            pieces += [Segment(text[behind : tag.start()], False), Segment(tag[0], True)]
            behind = tag.end()
    return [*pieces, Segment(text[behind:], False)]


def _thought_end(text: str, in_thought: bool) -> int | None:
    """Where the thought that a turn begins with has ended; None if it does not end."""
    if not in_thought and not text.lstrip().startswith(THINK):
        return 0
    end = text.find(THINK_END)
    return None if end < 0 else end + len(THINK_END)


def _behind_spaces(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())
