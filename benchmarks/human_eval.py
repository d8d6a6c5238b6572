"""Canonical programs of HumanEval as answers in every form, read by every protocol and judged.

python -m benchmarks.human_eval HumanEval.jsonl.gz --json figures.json

The file is the one that OpenAI published. Each program is written as a turn in several forms; the
protocol reads the turn, and the unit tests of its problem judge it in the executor. All have to be
right. In the fenced protocol a block of Python outside of an answer is a call: it has to be read as
the call of exactly that program.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from concurrent import futures

import tyro

from benchmarks.figures import Figure, publish
from gtpo_jax.language import grammar, protocols, tokenizers
from gtpo_jax.tasks import mappings, reading
from gtpo_jax.tools import PythonExecutor, ToolLimits
from gtpo_jax.types import Problem, Verdict
from gtpo_jax.verifiers import KindVerifier
from launch import cli
from launch.run import display


@dataclasses.dataclass(frozen=True, kw_only=True)
class HumanEvalArguments:
    """Judges the canonical programs of HumanEval as answers."""

    file: tyro.conf.Positional[pathlib.Path]
    """HumanEval.jsonl, plain or compressed."""
    seconds: float = 30.0
    """Seconds allowed for a program and its tests, wall and CPU time each: some take a second."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


Read = Callable[[str], grammar.ParsedTurn]
"""Reads the text of a turn."""

FENCED_TURN = "fence alone"
FORMS: dict[str, Callable[[str, str], str]] = {
    "tag": lambda whole, rest: f"<answer>\n{whole}\n</answer>",
    "fence in tag": lambda whole, rest: (
        f"It is this.\n\n<answer>\n```python\n{whole}\n```\n</answer>"
    ),
    "prose and fence in tag": lambda whole, rest: (
        f"<answer>It is this:\n\n```python\n{whole}\n```\n\nIt does what was asked.</answer>"
    ),
    "completion in tag": lambda whole, rest: f"<answer>{rest}</answer>",
    "completion in fence in tag": lambda whole, rest: (
        f"<answer>```python\n{rest.rstrip()}\n```</answer>"
    ),
    "bare": lambda whole, rest: whole,
    "bare completion": lambda whole, rest: rest,
    FENCED_TURN: lambda whole, rest: f"It is this:\n\n```python\n{whole}\n```\n\nIt works.",
}
"""Forms of a turn, made from the whole program and from its continuation of the prompt."""

MARKED = ("tag", "fence in tag", "completion in tag")
"""Forms in which the built-in dialogue writes answers, with control symbols as tags."""


def readers() -> dict[str, Read]:
    """The reader of each protocol for a turn of a problem whose answer is a program."""
    markers = grammar.Dialogue(
        tokenizers.SentencePieceTokenizer(tokenizers.ASSETS / "tools-256.model")
    )
    read: dict[str, Read] = {
        type(protocol).__name__: lambda text, protocol=protocol: protocol.parse(text, unmarked=True)
        for protocol in (protocols.FencedPython(), protocols.CodeTags(), protocols.HermesCalls())
    }
    return {"Dialogue": lambda text: markers.parse(markers.turn(text), unmarked=True)} | read


def said(name: str, form: str, turn: grammar.ParsedTurn) -> str | None:
    """The program of a turn, if it was read as it must be."""
    if (name, form) == (protocols.FencedPython.__name__, FENCED_TURN):
        return turn.codes[0] if len(turn.codes) == 1 and turn.violation is None else None
    return turn.answer if turn.violation is None else None


def verdicts(
    problems: Sequence[Problem], verifier: KindVerifier
) -> dict[tuple[str, str], list[tuple[str, Verdict]]]:
    """Protocol and form → id and verdict of every problem; an answer is judged once."""
    judged: dict[tuple[str, str], futures.Future[Verdict]] = {}
    submitted: dict[tuple[str, str], list[tuple[str, str]]] = collections.defaultdict(list)
    for problem in problems:
        prompt = problem.unit_tests.prompt if problem.unit_tests else ""
        rest = problem.answer.removeprefix(prompt)
        for name, read in readers().items():
            for form, write in FORMS.items():
                if name == "Dialogue" and form not in MARKED:
                    continue
                program = said(name, form, read(write(problem.answer.rstrip(), rest))) or ""
                key = (problem.id, program)
                if key not in judged:
                    judged[key] = verifier.submit(problem, program)
                submitted[name, form].append(key)
    return {
        place: [(key[0], judged[key].result()) for key in keys] for place, keys in submitted.items()
    }


def run(argv: Sequence[str]) -> None:
    arguments = tyro.cli(
        HumanEvalArguments, args=list(argv), prog="python -m benchmarks.human_eval"
    )
    mapping = mappings.MAPPINGS["humaneval"]
    problems = [
        entry.problem for entry in reading.read_problems(str(arguments.file), mapping).entries
    ]
    limits = ToolLimits(wall_seconds=arguments.seconds, cpu_seconds=round(arguments.seconds))
    with (
        PythonExecutor(max_running=2, preload=(), limits=limits) as tool,
        KindVerifier(tool=tool) as verifier,
    ):
        found = verdicts(problems, verifier)
    figures: dict[str, Figure] = {}
    for (name, form), given in found.items():
        wrong = {identity: verdict for identity, verdict in given if verdict is not Verdict.RIGHT}
        for identity, verdict in wrong.items():
            display.CONSOLE.print(f"{name}, {form}: {identity} is {verdict}", highlight=False)
        figures[f"{name}, {form}"] = Figure(
            value=len(given) - len(wrong), unit=f"of {len(given)} right", at_least=len(given)
        )
    publish(figures, arguments.json)


if __name__ == "__main__":
    cli.main(run)
