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

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gtpo_jax.dialogue import NO_ACTION, ParsedTurn

UNCLOSED_CALL = "the call is not closed"
UNOPENED_CALL = "a call is closed that was not opened"
CALL_AND_ANSWER = "a call and an answer in one turn"
UNCLOSED_ANSWER = "the answer is not closed"
UNCLOSED_THOUGHT = "the thought is not closed by </think>"
FENCE_NOT_ALONE = "the fence that opens a call has to be a line of its own, such as ```python"
NOT_JSON = 'the call is not JSON like {"name": "python", "arguments": {"code": "print(1)"}}'
UNKNOWN_TOOL = "the call names no tool that exists"
NO_CODE = 'the arguments of the call hold no "code" that is a string'
NOT_UNICODE = "the code of the call holds half of a surrogate pair"

THINK, THINK_END = "<think>", "</think>"
ANSWER, ANSWER_END = "<answer>", "</answer>"

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

    def call(self, code: str) -> str:
        """Text of a call."""
        ...

    def reply(self, output: str) -> str:
        """Content that shows an output."""
        ...

    def parse(self, text: str, *, most_calls: int = 1, in_thought: bool = False) -> ParsedTurn:
        """Reads a turn that has come to its end, without its end marker.

        `in_thought`: the prompt ended with `<think>`, so the turn begins inside of it.
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

    def call(self, code: str) -> str:
        longest = max(map(len, re.findall("`+", code)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}{self.languages[0]}\n{code}\n{fence}"

    def reply(self, output: str) -> str:
        return f"```output\n{output}\n```"

    def parse(self, text: str, *, most_calls: int = 1, in_thought: bool = False) -> ParsedTurn:
        said = _behind_thought(text, in_thought)
        if said is None:
            return ParsedTurn(text=text, violation=UNCLOSED_THOUGHT)
        codes: list[str] = []
        outside: list[str] = []
        lines = said.split("\n")
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
                    return ParsedTurn(text=text, violation=UNCLOSED_CALL)
                break
            if is_call:
                margin = re.compile(f"[ \t]{{0,{len(indent)}}}")
                codes.append("\n".join(margin.sub("", x, count=1) for x in lines[at + 1 : end]))
            at = end + 1
        unfenced = "\n".join(outside)
        opened = re.search(f"```[ \t]*({'|'.join(map(re.escape, self.languages))})\\b", unfenced)
        violation = FENCE_NOT_ALONE if opened else None
        return _turn(text, codes, violation, unfenced, most_calls)


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

    def call(self, code: str) -> str:
        return f"{self.opening}\n{code}\n{self.closing}"

    def reply(self, output: str) -> str:
        return f"<interpreter>\n{output}\n</interpreter>"

    def parse(self, text: str, *, most_calls: int = 1, in_thought: bool = False) -> ParsedTurn:
        del in_thought  # calls are read in thoughts as well
        codes: list[str] = []
        outside, opened, rest = text.partition(self.opening)
        while opened:
            code, closed, rest = rest.partition(self.closing)
            if not closed:
                return ParsedTurn(text=text, violation=UNCLOSED_CALL)
            codes.append(self._bare(code))
            between, opened, rest = rest.partition(self.opening)
            outside += f"\n{between}"
        violation = UNOPENED_CALL if self.closing in outside else None
        return _turn(text, codes, violation, outside.rpartition(THINK_END)[2], most_calls)

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

    def call(self, code: str) -> str:
        call = {"name": self.name, "arguments": {"code": code}}
        return f"{self.opening}\n{json.dumps(call, ensure_ascii=False)}\n{self.closing}"

    def reply(self, output: str) -> str:
        return output

    def parse(self, text: str, *, most_calls: int = 1, in_thought: bool = False) -> ParsedTurn:
        said = _behind_thought(text, in_thought)
        if said is None:
            return ParsedTurn(text=text, violation=UNCLOSED_THOUGHT)
        codes: list[str] = []
        outside, opened, rest = said.partition(self.opening)
        while opened:
            try:
                call, end = _JSON.raw_decode(rest := rest.lstrip())
            except (ValueError, RecursionError):
                violation = NOT_JSON if self.closing in rest else UNCLOSED_CALL
                return ParsedTurn(text=text, violation=violation)
            rest = rest[end:].lstrip()
            if not rest.startswith(self.closing):
                violation = NOT_JSON if self.closing in rest else UNCLOSED_CALL
                return ParsedTurn(text=text, violation=violation)
            code = self._code(call)
            if isinstance(code, _Wrong):
                return ParsedTurn(text=text, violation=code.violation)
            codes.append(code)
            between, opened, rest = rest.removeprefix(self.closing).partition(self.opening)
            outside += f"\n{between}"
        violation = UNOPENED_CALL if self.closing in outside else None
        return _turn(text, codes, violation, outside, most_calls)

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
_BOXED = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # what a backslash stands before is skipped


def read_answer(text: str) -> tuple[str | None, str | None]:
    """The answer of a turn and what is wrong with it; at most one of them is there.

    The last `<answer>…</answer>` counts, without it the last `\\boxed{…}`, its braces balanced; a
    brace behind a backslash is no brace. An `<answer>` that holds a box is what the box holds.
    """
    _, opened, inside = text.rpartition(ANSWER)
    if opened:
        answer, closed, _ = inside.partition(ANSWER_END)
        if not closed:
            return None, UNCLOSED_ANSWER
        boxed, wrong = read_answer(answer)
        return (answer.strip() if boxed is None and wrong is None else boxed), wrong
    begins = [found.end() for found in _BOXED.finditer(text)]
    if not begins:
        return None, None
    inside, depth = text[begins[-1] :], 1
    for found in _BRACE.finditer(inside):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return inside[: found.start()].strip(), None
    return None, UNCLOSED_ANSWER


def _turn(
    text: str, codes: Sequence[str], violation: str | None, outside: str, most_calls: int
) -> ParsedTurn:
    """A turn whose calls are well formed; its answer stands in what is `outside` of them."""
    answer, wrong_answer = read_answer(outside)
    if violation is None and codes and (answer is not None or wrong_answer is not None):
        violation = CALL_AND_ANSWER
    if violation is None and len(codes) > most_calls:
        violation = f"{len(codes)} calls in one turn, where {most_calls} is the most"
    if violation is None and not codes:
        violation = NO_ACTION if answer is None and wrong_answer is None else wrong_answer
    if violation is not None:
        return ParsedTurn(text=text, violation=violation)
    return ParsedTurn(text=text, codes=tuple(codes), answer=answer)


def _behind_thought(text: str, in_thought: bool) -> str | None:
    """What follows the thought that a turn begins with; None if the thought does not end."""
    if not in_thought and not text.lstrip().startswith(THINK):
        return text
    _, closed, said = text.partition(THINK_END)
    return said if closed else None
