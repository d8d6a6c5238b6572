"""Trains a small SentencePiece tokenizer on the texts of demonstrations.

python -m launch.train_tokenizer tiny --vocab-size 256 \\
    --out gtpo_jax/language/assets/tools-256.model
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from configs.parts import make_tool
from configs.problems import make_source
from configs.schema import RunConfig
from gtpo_jax.language import tokenizers
from gtpo_jax.language.grammar import CONTROL_SYMBOLS, Dialogue
from gtpo_jax.tasks.demonstrations import play
from gtpo_jax.tasks.source import ProblemSource
from gtpo_jax.types import Tool
from launch import cli
from launch.run import display, playing

TEXTS = 6_000


def demonstration_texts(source: ProblemSource, tool: Tool, count: int) -> Iterator[str]:
    """Questions, thoughts, code, outputs and answers of `count` demonstrations."""
    # The reply to an unclosed call does not depend on the tokenizer.
    shipped = Dialogue(tokenizers.SentencePieceTokenizer(tokenizers.ASSETS / "tools-256.model"))
    for played in play((source.demonstration(index) for index in range(count)), shipped, tool):
        yield played.problem.question
        for step in played.calls:
            yield from (step.call.thought, step.call.code, step.output)
        yield from (played.answer.thought, played.answer.text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerArguments(cli.Arguments):
    """Trains a SentencePiece model on the texts of a task's demonstrations."""

    WRITES = ("out",)

    out: pathlib.Path = pathlib.Path("tokenizer.model")
    """File to write."""
    vocab_size: int = 256
    """Size of the vocabulary, control symbols included."""
    texts: int = TEXTS
    """Number of demonstrations to learn from."""


def make_tokenizer(
    config: RunConfig, out: pathlib.Path, *, vocab_size: int, texts: int = TEXTS
) -> int:
    """Writes a SentencePiece model; returns the number of tokens of the longest prompt."""
    source = make_source(config)
    with contextlib.closing(make_tool(config.tool)) as tool, playing.shown(tool) as shown:
        lines = [text for text in demonstration_texts(source, shown, texts) if text]
    out.parent.mkdir(parents=True, exist_ok=True)
    with display.working(f"a tokenizer of {len(lines):,} texts"):
        tokenizers.train_sentencepiece(
            lines, out, vocab_size=vocab_size, control_symbols=CONTROL_SYMBOLS
        )
    dialogue = Dialogue(tokenizers.SentencePieceTokenizer(out))
    with display.working("tokens of prompts"):
        problems = [source.train_problem(index) for index in range(texts)]
        problems += source.held_out(texts)
        return max(len(dialogue.prompt(problem.question)) for problem in problems)


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(TokenizerArguments, argv, program="launch.train_tokenizer")
    longest = make_tokenizer(
        arguments.config, arguments.out, vocab_size=arguments.vocab_size, texts=arguments.texts
    )
    display.CONSOLE.print(
        f"{arguments.out}: {arguments.vocab_size} tokens; the longest prompt takes {longest}"
        " (rollout.prompt_tokens)"
    )


if __name__ == "__main__":
    cli.main(run)
