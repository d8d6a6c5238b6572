"""Demonstrations of problems whose solution is one arithmetic expression."""

from __future__ import annotations

import random
import re

from gtpo_jax.tasks.source import Answer, Call, Script


def expression_script(expression: str, rng: random.Random, *, slip: float) -> Script:
    """Prints the expression, with probability `slip` with a wrong operator or its operands
    swapped, and answers with the output.
    """
    code = "".join(expression.split())
    if rng.random() < slip:
        code = _slip(code, rng)
    output = yield Call(code=f"print({code})")
    yield Answer(text=output)


def _slip(code: str, rng: random.Random) -> str:
    numbers = re.findall(r"\d+\.?\d*", code)
    operators = re.findall(r"[-+*/]", code)
    if operators and rng.random() < 0.5:
        wrong = rng.choice([o for o in "+-*/" if o != operators[0]])
        return code.replace(operators[0], wrong, 1)
    if len(numbers) >= 2:
        return re.sub(r"\d+\.?\d*", lambda _: numbers.pop(), code)
    return code
