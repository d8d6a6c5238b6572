"""Families of generated problems, whose difficulty grows with the level.

| family | question at level 1 | at level n |
|---|---|---|
| arithmetic | What is a*b+c? | numbers of n + 1 digits, n of them after the product |
| word | Ann buys b bags of c pens... | n purchases or sales, of bags of n + 1 digits |
| remainder | remainder of a*b divided by m | n + 1 factors of n + 1 digits, and such a divisor |
| gcd | gcd of a and b | n + 1 numbers, their common factor of up to n + 1 digits |
| branch | compute a*b; if even add c, if odd subtract d | n branches, factors of n + 1 digits |
| chain | k steps of "if even halve, if odd triple and add 1" | 2n or 2n + 1 steps, starts of \
up to n + 2 digits |

The policy has to learn to copy an expression into a call (arithmetic), to choose the operation
(word) and the right operator (remainder), to repair an error or to import at once (gcd), to make a
call that depends on an output (branch), and several such calls (chain).

Demonstrators usually follow a misconception: imitation alone learns it, and reinforcement learning
must change the most likely choice.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

from gtpo_jax.tasks.source import Answer, Call, Script


@dataclasses.dataclass(frozen=True)
class Case:
    """A question, its answer, and the demonstrator that solves it."""

    question: str
    answer: int
    demonstrate: Callable[[random.Random], Script]


def arithmetic(rng: random.Random, level: int = 1) -> Case:
    a, b, c = (_number(rng, level) for _ in range(3))
    signs = rng.choice("+-")
    others = [c]
    for _ in range(level - 1):
        signs += rng.choice("+-")
        others.append(_number(rng, level))
    rest = "".join(f"{sign}{number}" for sign, number in zip(signs, others, strict=True))
    question = rng.choice(("What is {}?", "Compute {}.", "Find the value of {}."))

    def script(rng: random.Random) -> Script:
        wrong = rng.random() < 0.27
        output = yield Call(code=f"print({a}{'+' if wrong else '*'}{b}{rest})")
        yield Answer(text=output)

    answer = a * b
    for sign, number in zip(signs, others, strict=True):
        answer += number if sign == "+" else -number
    return Case(question.format(f"{a}*{b}{rest}"), answer, script)


def word(rng: random.Random, level: int = 1) -> Case:
    b, c = rng.randint(2, 9), _number(rng, level)
    name = rng.choice(("Ann", "Ben", "Eva", "Tom"))
    thing = rng.choice(("pens", "nuts", "eggs"))
    kind = rng.choice(("buys", "sells", "packs"))
    if kind == "packs":
        k = rng.randint(2, 9)
        question = f"{name} packs {c} {thing} in each of {b} boxes and loses {k}."
        asked = "How many are left?"
        right, wrong = f"{c}*{b}-{k}", f"{c}*{b}+{k}"
        answer = c * b - k
    else:
        a = rng.randint(c * b, 2 * 10 ** (level + 2))
        question = f"{name} has {a} {thing}. {name} {kind} {b} bags of {c}."
        asked = "How many now?"
        sign, other = ("+", "-") if kind == "buys" else ("-", "+")
        right, wrong = f"{a}{sign}{b}*{c}", f"{a}{other}{b}*{c}"
        answer = a + b * c if kind == "buys" else a - b * c
    for _ in range(level - 1):
        bags, size = rng.randint(2, 9), _number(rng, level)
        sells = rng.random() < 0.5 and bags * size <= answer
        question += f" Then {name} {'sells' if sells else 'buys'} {bags} bags of {size}."
        right += f"{'-' if sells else '+'}{bags}*{size}"
        wrong += f"{'+' if sells else '-'}{bags}*{size}"
        answer += -bags * size if sells else bags * size

    def script(rng: random.Random) -> Script:
        output = yield Call(code=f"print({wrong if rng.random() < 0.55 else right})")
        yield Answer(text=output)

    return Case(f"{question} {asked}", answer, script)


def remainder(rng: random.Random, level: int = 1) -> Case:
    factors = [_number(rng, level) for _ in range(level + 1)]
    least = 3 if level == 1 else 10**level
    divisor = rng.randint(least, 10 ** (level + 1) - 1)
    product = "*".join(map(str, factors))

    def script(rng: random.Random) -> Script:
        output = yield Call(code=f"print({product}{'//' if rng.random() < 0.55 else '%'}{divisor})")
        yield Answer(text=output)

    question = f"What is the remainder of {product} divided by {divisor}?"
    return Case(question, math.prod(factors) % divisor, script)


def gcd(rng: random.Random, level: int = 1) -> Case:
    factor = rng.randint(2, 12) if level == 1 else _number(rng, level)
    numbers = [factor * rng.randint(2, 60) for _ in range(level + 1)]
    listed = ",".join(map(str, numbers))

    def script(rng: random.Random) -> Script:
        if rng.random() < 0.75:
            yield Call(code=f"print(gcd({listed}))")
            if rng.random() < 0.55:
                yield Answer(text=str(rng.randint(1, 12)))
                return
        output = yield Call(code=f"import math\nprint(math.gcd({listed}))")
        yield Answer(text=output)

    *first, last = map(str, numbers)
    question = f"Find the gcd of {', '.join(first)} and {last}."
    return Case(question, math.gcd(*numbers), script)


def branch(rng: random.Random, level: int = 1) -> Case:
    a, b = _number(rng, level), _number(rng, level)
    branches = [(rng.randint(2, 9), rng.randint(2, 9)) for _ in range(level)]
    answer = a * b
    for added, subtracted in branches:
        answer = answer + added if answer % 2 == 0 else answer - subtracted

    def script(rng: random.Random) -> Script:
        output = yield Call(code=f"print({a}*{b})")
        if rng.random() < 0.4:
            yield Answer(text=output)
            return
        value = a * b
        for added, subtracted in branches:
            even = (value % 2 == 0) ^ (rng.random() < 0.25)
            output = yield Call(code=f"print({output}{f'+{added}' if even else f'-{subtracted}'})")
            if not output.isdecimal():  # the tool ran out of time, say
                break
            value = int(output)
        yield Answer(text=output)

    question = f"Compute {a}*{b}."
    for i, (added, subtracted) in enumerate(branches):
        start = "If it" if i == 0 else "If the result"
        question += f" {start} is even add {added}, if odd subtract {subtracted}."
    return Case(question, answer, script)


def chain(rng: random.Random, level: int = 1) -> Case:
    start = rng.randint(10, 3 * 10 ** (level + 1) - 1)
    steps = rng.randint(2 * level, 2 * level + 1)

    def script(rng: random.Random) -> Script:
        value = str(start)
        for _ in range(steps - 1 if rng.random() < 0.4 else steps):
            even = (int(value) % 2 == 0) ^ (rng.random() < 0.1)
            value = yield Call(code=f"print({value}//2)" if even else f"print({value}*3+1)")
            if not value.isdecimal():  # the tool ran out of time, say
                break
        yield Answer(text=value)

    answer = start
    for _ in range(steps):
        answer = answer // 2 if answer % 2 == 0 else answer * 3 + 1
    question = (
        f"Start with {start}. Do {steps} times: if even halve it, if odd triple it and add 1."
    )
    return Case(question, answer, script)


def _number(rng: random.Random, level: int) -> int:
    """A random number of `level` + 1 digits."""
    return rng.randint(10**level, 10 ** (level + 1) - 1)


FAMILIES: dict[str, Callable[[random.Random, int], Case]] = {
    "arithmetic": arithmetic,
    "word": word,
    "remainder": remainder,
    "gcd": gcd,
    "branch": branch,
    "chain": chain,
}
