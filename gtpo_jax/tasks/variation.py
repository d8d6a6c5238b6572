"""Changes the numbers of a word problem whose solution is an arithmetic expression.

    Ann has 3 pens and buys 12 more. How many now?      3 + 12
    Ann has 8 pens and buys 47 more. How many now?      8 + 47

A number that occurs in both is replaced in both. A number that occurs only in the question is
replaced too, since it may be there to mislead. A 1 stays ("if 1 pen costs 12"), and so does a
constant that occurs only in the expression. Intermediate results stay nonnegative integers if they
were so before.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Mapping
from fractions import Fraction

from gtpo_jax.types import Problem

_NUMBER = re.compile(r"(?<![\w.,])\d+(?![\w%]|[.,/:]\d)")
_TRIES = 20
_FEWEST = 2
"""Smallest number drawn: with a 1, a wrong operator often gives the right result."""


def vary_numbers(
    problem: Problem, expression: str, rng: random.Random
) -> tuple[Problem, str] | None:
    """The problem with other numbers and a matching answer, and its expression.

    None if the expression does not give the problem's answer, if it has no number to replace, or if
    none of a few draws keeps intermediate results valid.
    """
    tree = _parse(expression)
    if tree is None or _value(tree, {}, whole=False) != _fraction(problem.answer):
        return None
    whole = _value(tree, {}, whole=True) is not None
    literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    shown = [int(text) for text in _NUMBER.findall(problem.question)]
    drawn = sorted({number for number in shown if number > 1})
    if not any(literal.value in drawn for literal in literals):
        return None
    for _ in range(_TRIES):
        numbers: dict[float, int] = {number: _draw(number, rng) for number in drawn}
        if whole:
            _mend_quotients(tree, numbers)
        value = _value(tree, numbers, whole=whole)
        if (
            value is not None
            and value.denominator == 1
            and len(set(numbers.values())) == len(drawn)
        ):
            break
    else:
        return None
    question = _NUMBER.sub(lambda at: str(numbers.get(int(at[0]), at[0])), problem.question)
    varied = re.sub(
        r"\d+(\.\d+)?",
        lambda at: at[0] if at[1] else str(numbers.get(int(at[0]), at[0])),
        expression,
    )
    marks = "-".join(str(numbers.get(number, number)) for number in shown)
    problem = Problem(
        id=f"{problem.id}/{marks}",
        question=question,
        answer=str(value),
        family=problem.family,
        verifier=problem.verifier,
        info=problem.info,
    )
    return problem, varied


def _parse(expression: str) -> ast.expr | None:
    """Parses an expression of nonnegative numbers and + − × ÷; None for any other."""
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
        operator = isinstance(node, ast.Add | ast.Sub | ast.Mult | ast.Div)
        if not (number or operator or isinstance(node, ast.BinOp)):
            return None
    return tree


def _value(node: ast.expr, numbers: Mapping[float, int], *, whole: bool) -> Fraction | None:
    """The value of an expression after replacing its numbers.

    None for a division by 0; with `whole`, also if an intermediate value is negative or fractional.
    """
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int | float)
        value = Fraction(str(numbers.get(node.value, node.value)))
    else:
        assert isinstance(node, ast.BinOp)
        left = _value(node.left, numbers, whole=whole)
        right = _value(node.right, numbers, whole=whole)
        if left is None or right is None or (isinstance(node.op, ast.Div) and right == 0):
            return None
        if isinstance(node.op, ast.Add):
            value = left + right
        elif isinstance(node.op, ast.Sub):
            value = left - right
        elif isinstance(node.op, ast.Mult):
            value = left * right
        else:
            value = left / right
    return None if whole and (value < 0 or value.denominator != 1) else value


def _draw(number: int, rng: random.Random) -> int:
    """A random number with as many digits as `number`, one more, or one fewer."""
    digits = max(len(str(number)) + rng.choice((-1, 0, 0, 0, 1)), 1)
    return rng.randint(max(10 ** (digits - 1), _FEWEST), 10**digits - 1)


def _mend_quotients(node: ast.expr, numbers: dict[float, int]) -> None:
    """Increases a summand of every dividend, innermost first, to make each quotient an integer."""
    if not isinstance(node, ast.BinOp):
        return
    _mend_quotients(node.left, numbers)
    _mend_quotients(node.right, numbers)
    if not isinstance(node.op, ast.Div):
        return
    dividend = _value(node.left, numbers, whole=False)
    divisor = _value(node.right, numbers, whole=False)
    first = _first_summand(node.left)
    if dividend is None or not divisor or first not in numbers:
        return
    missing = -dividend % divisor
    if missing.denominator == 1:
        numbers[first] += int(missing)


def _first_summand(node: ast.expr) -> int | None:
    """The first literal of a sum or difference; None if it begins with something else."""
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        node = node.left
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _fraction(text: str) -> Fraction | None:
    try:
        return Fraction(text.replace(",", ""))
    except ValueError:
        return None
