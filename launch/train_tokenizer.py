"""Trains a small SentencePiece tokenizer on the texts of demonstrations.

    python -m launch.train_tokenizer tiny --out gtpo_jax/assets/tools-256.model --vocab-size 256
"""

from __future__ import annotations

from collections.abc import Iterator

from gtpo_jax import tools
from gtpo_jax.tasks.source import Call, ProblemSource
from gtpo_jax.types import Tool


def demonstration_texts(source: ProblemSource, tool: Tool, count: int) -> Iterator[str]:
    """Questions, thoughts, code, outputs and answers of `count` demonstrations."""
    for index in range(count):
        problem, script = source.demonstration(index)
        yield problem.question
        turn = next(script)
        while isinstance(turn, Call):
            yield turn.thought
            yield turn.code
            output = tools.render_tool_result(tool.submit(turn.code).result())
            yield output
            turn = script.send(output)
        yield turn.thought
        yield turn.text
