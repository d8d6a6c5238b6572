"""Expected answers of published files, and ten ways of writing one."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from gtpo_jax.tasks import rows
from gtpo_jax.tasks.mappings.maths import last_boxed

FIELDS = ("answer", "final_answer", "Answer", "target", "solution")
"""Fields that may hold the expected answer; the first one that a record has is used."""

_DIGITS = {str(digit): str((digit + 1) % 10) for digit in range(10)}
_SIGNS = {"-": "+", "+": "-", "<": ">", ">": "<"}

_LONGEST = 400  # characters; longer texts are proofs

_UNICODE = (
    *(("\\times", "×"), ("\\cdot", "·"), ("\\pi", "π"), ("\\infty", "∞"), ("\\pm", "±")),
    *(("\\leq", "≤"), ("\\le", "≤"), ("\\geq", "≥"), ("\\ge", "≥"), ("\\neq", "≠"), ("\\ne", "≠")),
    *(("\\cup", "∪"), ("\\in", "∈"), ("\\alpha", "α"), ("\\beta", "β"), ("\\theta", "θ")),
    *(("\\lambda", "λ"), ("\\omega", "ω"), ("\\mu", "μ"), ("\\phi", "φ"), ("\\rho", "ρ")),
)


def golds(source: str) -> Iterator[str]:
    """The distinct expected answers of `FILE` or `FILE@FIELD`, in order."""
    path, _, field = source.partition("@")
    seen: set[str] = set()
    for place, record in rows.open_rows(path).rows:
        name = field or next((name for name in FIELDS if name in record), "")
        if name not in record:
            raise ValueError(f"{path}, {place}: there is no field {name or ' or '.join(FIELDS)}")
        values = record[name] if isinstance(record[name], list) else [record[name]]
        for value in values:
            text = _answer(str(value))
            if text and len(text) <= _LONGEST and text not in seen:
                seen.add(text)
                yield text


def _answer(value: str) -> str:
    """The answer in a field: behind `####`, in the last box, or all of it without its letter."""
    if "####" in value:
        return value.rpartition("####")[2].strip()
    boxed = last_boxed(value) if "\\boxed" in value or "\\fbox" in value else None
    return re.sub(r"^\(?[A-E]\)\s*", "", value.strip()) if boxed is None else boxed


def spellings(gold: str) -> dict[str, str]:
    """Ten ways of writing an answer with the same meaning."""
    body, opening, closing = _body(gold)
    return {
        "as it is": gold,
        "dollar signs": f"{opening}{body}{closing}",
        "a box": f"\\boxed{{{gold}}}",
        "stress": f"**{gold}**",
        "a full stop": f"{opening}{body}{closing}".removesuffix(".") + ".",
        "a display": f"\\[\n{body}\n\\]" if opening == "$" else f" {gold} ",
        "Unicode": _in_unicode(gold),
        "sizes": _in_sizes(gold),
        "spaces": _with_spaces(gold),
        "looks": f"$\\displaystyle\\textcolor{{blue}}{{{body}}}$" if opening else _upright(gold),
    }


def near_misses(gold: str, draws: random.Random) -> Iterator[str]:
    """The answer with one digit changed, and with one sign changed, if it has any."""
    for pattern, changed in ((r"\d", _DIGITS), (r"[-+<>]", _SIGNS)):
        places = [found.start() for found in re.finditer(pattern, gold)]
        if places:
            at = draws.choice(places)
            yield gold[:at] + changed[gold[at]] + gold[at + 1 :]


def _body(gold: str) -> tuple[str, str, str]:
    """The text between dollar signs, and the signs; several spans get signs of another kind."""
    inner = gold[1:-1] if re.fullmatch(r"\$[^$]+(?<!\\)\$", gold) else gold
    if len(re.findall(r"(?<!\\)\$", inner)) % 2:
        return gold, "", ""
    if re.search(r"(?<!\\)\$", inner):
        return re.sub(r"(?<!\\)\$([^$]*)(?<!\\)\$", r"\\(\1\\)", inner), "", ""
    return inner, "$", "$"


def _in_unicode(gold: str) -> str:
    for latex, character in _UNICODE:
        gold = re.sub(rf"{re.escape(latex)}(?![a-zA-Z])\s*", character, gold)
    gold = re.sub(r"\^\{?\\circ\}?", "°", gold)
    gold = re.sub(r"(?<=[a-z\d)])\^(?:\{2\}|2)(?!\d)", "²", gold)
    return gold.replace("-", "−") if re.search(r"[\d\\+=(]", gold) else gold


def _in_sizes(gold: str) -> str:
    gold = re.sub(r"\\frac(?![a-zA-Z])", r"\\dfrac", gold)
    if "\\left" in gold:
        return re.sub(r"\\(?:left|right)(?![a-zA-Z])(?!\.)", "", gold) if "." not in gold else gold
    if gold.count("(") + gold.count("[") != gold.count(")") + gold.count("]") or "text" in gold:
        return gold
    gold = re.sub(r"(?<!\\)(?=[(\[])", r"\\left", gold)
    return re.sub(r"(?<!\\)(?=[)\]])", r"\\right", gold)


def _with_spaces(gold: str) -> str:
    gold = re.sub(r"\s*(=|<|>|\+)\s*", r"\\, \1\\; ", gold)
    return re.sub(r",(?!\d|\\!)\s*", ", ", gold)


def _upright(gold: str) -> str:
    return gold.replace("\\mathrm{", "\\text{")
