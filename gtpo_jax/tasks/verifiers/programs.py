"""Answers that are programs, judged by unit tests that the run's own tool runs."""

from __future__ import annotations

import ast
import re
from concurrent import futures

from gtpo_jax.tools import stream_tests, unit_tests
from gtpo_jax.types import Problem, Tool, UnitTests, Verdict

_FENCE = re.compile(r"(`{3,})[ \t]*(?:python3?|py)?[ \t]*\r?\n", re.IGNORECASE)
_DEFINITION = re.compile(r"^(?:async[ \t]+def|def|class)[ \t]+(\w+)", re.MULTILINE)


def submit_program(tool: Tool, tests: UnitTests, answer: str) -> futures.Future[Verdict]:
    """Runs the tests of a problem after the program that was answered.

    Right when all of them pass, unverifiable when one of them could not tell. May wait for a place
    in the queue of the tool.
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
    """The program that an answer means: itself, or what continues `tests.prompt`.

    An answer that defines what is asked for runs after the prompt all the same, for its imports and
    helpers, if the prompt is a program by itself, as one is that ends with a docstring. Any other
    answer is the rest of the prompt. Its first line is indented as the prompt ends where it is not,
    since answers come without the spaces around them.

    The answer is hostile text and is looked at, not compiled, in this process.
    """
    program, prompt = _unfenced(answer), tests.prompt
    if not prompt:
        return program
    defined = _DEFINITION.findall(prompt)
    asked = tests.names if tests.names else tuple(defined[-1:])
    if asked and all(_defines(program, name) for name in asked):
        future = re.search(r"^from[ \t]+__future__\b", program, re.MULTILINE)
        return program if future or not is_program(prompt) else f"{prompt.rstrip()}\n\n\n{program}"
    if program[:1].strip() and not prompt.endswith((" ", "\t")):
        program = _last_indent(prompt) + program
    return prompt + ("" if prompt.endswith(("\n", " ", "\t")) else "\n") + program


def is_program(text: str) -> bool:
    """Whether a text of the data set is Python; not for what a policy wrote."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def check(problem: Problem) -> str:
    """What is wrong with the tests of a problem; empty when nothing is."""
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


def _unfenced(answer: str) -> str:
    """Without the fence around the whole of it."""
    text = answer.strip()
    fence = _FENCE.match(text)
    if fence is None or not text.endswith(f"\n{fence[1]}"):
        return answer
    inside = text[fence.end() : -len(fence[1])]
    return answer if fence[1] in inside else inside.rstrip()


def _defines(program: str, name: str) -> bool:
    """Whether a line without indentation gives the name a meaning."""
    name = re.escape(name)
    pattern = rf"^(?:(?:async[ \t]+def|def|class)[ \t]+{name}\b|{name}[ \t]*(?::[^=\n]*)?=(?!=))"
    return re.search(pattern, program, re.MULTILINE) is not None


def _last_indent(prompt: str) -> str:
    """The indentation of what the prompt ends with, of a body that it only begins."""
    last = prompt.rstrip().rpartition("\n")[2]
    indent = last[: len(last) - len(last.lstrip())]
    return indent + "    " if last.rstrip().endswith(":") else indent
