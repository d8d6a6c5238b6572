"""Verifiers and tool protocols: texts in, verdicts and turns out."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.cases.row import Adapter
from gtpo_jax.language import protocols
from gtpo_jax.types import Problem
from gtpo_jax.verifiers import KindVerifier

PROTOCOLS = (protocols.FencedPython, protocols.CodeTags, protocols.HermesCalls)


@contextmanager
def adapters() -> Iterator[dict[str, Adapter]]:
    """The adapter of each area: `verifier KIND`, `protocol NAME`."""
    with KindVerifier("math") as verifier:
        yield {
            **{
                f"verifier {kind}": functools.partial(_verdict, verifier, kind)
                for kind in ("math", "numeric", "exact", "choice")
            },
            **{f"protocol {each.__name__}": functools.partial(_turn, each()) for each in PROTOCOLS},
        }


def _verdict(verifier: KindVerifier, kind: str, given: Mapping[str, Any]) -> str:
    choices = tuple(given.get("choices", ()))
    problem = Problem(id="1", question="?", answer=given["answer"], verifier=kind, choices=choices)
    return verifier(problem, given["given"]).value


def _turn(protocol: protocols.ToolProtocol, given: Mapping[str, Any]) -> dict[str, Any]:
    parsed = protocol.parse(
        given["text"],
        in_thought=given.get("in_thought", False),
        most_calls=given.get("most_calls", 1),
    )
    return {"codes": [*parsed.codes], "answer": parsed.answer, "violation": parsed.violation}
