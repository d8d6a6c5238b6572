"""Answers that are programs, judged by unit tests that the run's own tool runs."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Sequence
from concurrent import futures

from gtpo_jax.language import fences
from gtpo_jax.types import Problem, Tool, UnitTests, Verdict
from gtpo_jax.verifiers import stream_tests, unit_tests

_MEANING = r"^(?:(?:async[ \t]+def|def|class)[ \t]+{name}\b|{name}[ \t]*(?::[^=\n]*)?=(?!=))"
_OF_A_BODY = re.compile(r"^(?:return|yield)\b", re.MULTILINE)
_NOT_OF_A_BODY = re.compile(r"(?:async[ \t]+def|def|class|if[ \t]+__name__)\b|[@#)\]}\"']")
_DEFINITION = re.compile(r"^(?:async[ \t]+def|def|class)[ \t]+(\w+)", re.MULTILINE)


def submit_program(tool: Tool, tests: UnitTests, answer: str) -> futures.Future[Verdict]:
    """Runs the tests of a problem after the program in the answer.

    The verdict is right if all pass and unverifiable if the end of one is unknown. This may wait
    while the queue of the tool is full.
    """
    program = whole_program(tests, answer)
    if tests.streams:
        outcomes = stream_tests.submit_stream_tests(tool, program, tests.streams)
    else:
        outcomes = unit_tests.submit_unit_tests(
            tool, program, tests.tests, setup=tests.setup, names=tests.names
        )
    verdict: futures.Future[Verdict] = futures.Future()
    verdict.set_running_or_notify_cancel()
    outcomes.add_done_callback(lambda done: verdict.set_result(_verdict(done.result())))
    return verdict


def _verdict(outcomes: list[unit_tests.TestOutcome]) -> Verdict:
    if any(outcome.status is unit_tests.TestStatus.UNKNOWN for outcome in outcomes):
        return Verdict.UNVERIFIABLE
    return Verdict.RIGHT if all(outcome.passed for outcome in outcomes) else Verdict.WRONG


def whole_program(tests: UnitTests, answer: str) -> str:
    """The program that an answer means: the answer itself, or a continuation of `tests.prompt`.

    From an answer with fenced blocks this takes the last block that defines the requested names,
    else the last Python block, else the last block. An answer that defines the names outside of
    blocks (with a block in a docstring, say) is taken as a whole.

    A program that defines the names still runs after the prompt, for its imports and helpers, if
    the prompt is a complete program, as a function that ends with a docstring is. Any other program
    continues the prompt (`_continued`).

    The answer is hostile text: this process inspects it but never compiles it.
    """
    prompt = tests.prompt
    asked = tests.names or tuple(_DEFINITION.findall(prompt)[-1:])
    program = _unfenced(answer, asked)
    if not prompt or _defines(program, asked):
        program = _dedented(program)
    if not prompt:
        return program
    if _defines(program, asked):
        future = re.search(r"^from[ \t]+__future__\b", program, re.MULTILINE)
        return program if future or not is_program(prompt) else f"{prompt.rstrip()}\n\n\n{program}"
    between = "" if prompt.endswith(("\n", " ", "\t")) else "\n"
    return prompt + between + _continued(prompt, program)


def is_program(text: str) -> bool:
    """True if a text of the data set is Python. Never call it with text of a policy."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def check(problem: Problem) -> str:
    """The fault of a problem's tests; empty if there is none."""
    if problem.unit_tests is None:
        return "has no unit_tests, by which the verifier unit_tests judges"
    tests = problem.unit_tests
    if not tests.tests and not tests.streams:
        return "has no test among its unit_tests"
    if tests.tests and tests.streams:
        return (
            "has both `tests` and `streams` among its unit_tests; a program is judged by one kind"
        )
    broken = [text for text in (tests.setup, *tests.tests) if not is_program(text)]
    return f"has a unit test that is not Python: {broken[0][:60]!r}" if broken else ""


def _unfenced(answer: str, asked: Sequence[str]) -> str:
    """The program without the text around it."""
    blocks = fences.blocks(answer)
    around = fences.without(answer, [(block.begin, block.end) for block in blocks])
    if not blocks or _defines(around, asked):
        return answer
    best = [block for block in blocks if _defines(block.code, asked)]
    best = best or [block for block in blocks if fences.is_python(block)] or blocks
    return best[-1].code


def _defines(program: str, names: Sequence[str]) -> bool:
    """True if there are names and, for each, a line that defines it.

    Such a line is indented no further than all lines are, and the lines are not a function's body.
    """
    outer = _dedented(program)
    if not names or (outer != program and _OF_A_BODY.search(outer)):
        return False
    meanings = (_MEANING.format(name=re.escape(name)) for name in names)
    return all(re.search(meaning, outer, re.MULTILINE) for meaning in meanings)


def _dedented(program: str) -> str:
    """The program without the indentation that all its lines share."""
    indented = program.lstrip("\r\n").startswith((" ", "\t"))
    return textwrap.dedent(program) if indented else program


def _continued(prompt: str, program: str) -> str:
    """The text that continues a prompt, with its first line indented as the prompt ends.

    The other lines are indented too where they cannot be meant as they stand: when one of them has
    no indentation, or when the first line begins a block and the next is not indented deeper.
    """
    if prompt.endswith((" ", "\t")):
        return program.lstrip()
    indent = _last_indent(prompt)
    first, *others = [line for line in program.split("\n") if line.strip()] or [""]
    if first[:1].isspace():
        return program
    block = first.split("#")[0].rstrip().endswith(":")
    if block and [_columns(line) for line in others[:1]] <= [_columns(indent)]:
        return textwrap.indent(program, indent)
    outer = [line for line in others if not line[:1].isspace()]
    if any(not _NOT_OF_A_BODY.match(line) for line in outer):
        return textwrap.indent(program, indent)
    return indent + program.lstrip("\r\n")


def _columns(line: str) -> int:
    """The number of columns by which a line is indented."""
    line = line.expandtabs(8)
    return len(line) - len(line.lstrip())


def _last_indent(prompt: str) -> str:
    """The indentation of the last line of a prompt, or of the body that this line begins."""
    last = prompt.rstrip().rpartition("\n")[2]
    indent = last[: len(last) - len(last.lstrip())]
    return indent + "    " if last.rstrip().endswith(":") else indent
