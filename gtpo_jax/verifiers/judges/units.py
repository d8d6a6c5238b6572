"""Units after or before a number: names, and their products, quotients and powers."""

from __future__ import annotations

import collections
import re

_WORDS = {
    "degree": "degrees deg",
    "celsius": "centigrade",
    "fahrenheit": "",
    "kelvin": "kelvins",
    "meter": "meters metre metres",
    "inch": "in inches",
    "foot": "ft feet",
    "yard": "yd yds yards",
    "mile": "mi miles",
    "unit": "units",
    "acre": "acres",
    "hectare": "ha hectares",
    "gram": "grams gm gms",
    "pound": "lb lbs pounds gbp £",
    "ounce": "oz ounces",
    "ton": "tons tonne tonnes",
    "liter": "liters litre litres",
    "gallon": "gal gallons",
    "quart": "qt quarts",
    "pint": "pt pints",
    "second": "sec secs seconds",
    "minute": "min mins minutes",
    "hour": "h hr hrs hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "yr yrs years",
    "dollar": "dollars usd $",
    "cent": "cents ¢",
    "euro": "euros eur €",
    "rupee": "rupees rs inr ₹",
    "yen": "jpy ¥",
    "yuan": "rmb cny",
    "radian": "rad rads radians",
    "newton": "newtons",
    "joule": "joules",
    "watt": "watts",
    "volt": "volts",
    "ampere": "amperes amp amps",
    "ohm": "ohms",
    "pascal": "pascals",
    "hertz": "",
    "coulomb": "coulombs",
    "farad": "farads",
    "tesla": "teslas",
    "mole": "moles mol",
    "calorie": "calories cal",
    "byte": "bytes",
    "bit": "bits",
    "decibel": "decibels db",
    "atmosphere": "atmospheres atm",
    "lightyear": "lightyears ly",
    "parsec": "parsecs",
    "angstrom": "angstroms",
    "erg": "ergs",
    "dyne": "dynes dyn",
    "gauss": "",
    "revolution": "revolutions rev revs",
    "arcsecond": "arcseconds arcsec",
    "arcminute": "arcminutes arcmin",
    "knot": "knots",
}
_SYMBOLS = {
    **{"m": "meter", "g": "gram", "s": "second", "A": "ampere", "K": "kelvin", "mol": "mole"},
    **{"Hz": "hertz", "N": "newton", "Pa": "pascal", "J": "joule", "W": "watt", "V": "volt"},
    **{"C": "coulomb", "F": "farad", "H": "henry", "T": "tesla", "Ω": "ohm", "eV": "eV"},
    **{"L": "liter", "l": "liter", "cal": "calorie", "Wh": "watthour", "bar": "bar"},
    **{"pc": "parsec", "S": "siemens", "sr": "steradian", "G": "gauss"},
}
_PREFIXES = {
    **{"k": "kilo", "c": "centi", "m": "milli", "M": "mega", "G": "giga", "d": "deci"},
    **{"µ": "micro", "n": "nano", "p": "pico", "T": "tera", "h": "hecto"},
}
_PER_HOUR = {"mph": "mile", "kmh": "kilometer", "kmph": "kilometer", "kph": "kilometer"}

_NAMES = {name: word for word, names in _WORDS.items() for name in (word, *names.split())}
_EXACT = {
    **_SYMBOLS,
    **{
        prefix + symbol: _PREFIXES[prefix] + word
        for symbol, word in _SYMBOLS.items()
        for prefix in _PREFIXES
    },
    "Å": "angstrom",
    **{"°C": "celsius", "°F": "fahrenheit", "°": "degree", "deg": "degree"},
    **{"min": "minute", "ft": "foot", "pt": "pint", "cd": "candela", "ha": "hectare"},
}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_RAISED = {"squared": 2, "cubed": 3}

_ALSO_VARIABLES = "mgshlACFHTL"
# Two letters that are hardly ever a product; other pairs must be marked.
_SHORT = {
    *("cm", "mm", "km", "nm", "kg", "mg", "ms", "ml", "mL", "cl", "cL", "dl", "dL", "kL", "kN"),
    *("kJ", "MJ", "kW", "MW", "GW", "kV", "mV", "mA", "Hz", "Pa", "eV", "in", "ft", "yd", "mi"),
    *("lb", "oz", "hr", "yr", "gm", "Rs", "sq", "cu"),
}
# Without a space in front of them they are products.
_ALSO_PRODUCTS = {"in", "mi", "hr", "gm", "cal"}

_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))\s*")
_ANGLE = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])"
)  # its degrees belong to the argument
_MARK = (
    r"\\text\s*\{|\\frac\s*\{\s*\\text|\\mu(?![a-zA-Z])|\^\s*(?:\{\s*\\circ|\\circ)|\\\$|[$€£¥₹¢]"
)
_MARKED = re.compile(rf"\s*(?:\\cdot\s*|\\times\s*)?(?={_MARK})")
_BARE = re.compile(r"(?<=[\d})!.])(\s*)(?=[a-zA-Z°]|\\Omega)")
_BEFORE = re.compile(
    r"([+-]?)\s*(?:\\?([$€£¥₹])|\\text\{\s*\\?([$€£¥₹]|Rs\.?)\s*\}|(Rs\.?|USD|EUR|GBP|INR)(?=[\s\d]))"
    r"\s*([+-]?)\s*(?=[\d.(]|\\frac)"
)
_PIECE = re.compile(r"\s+|([*/()])|\^(\([+-]?\d\)|[+-]?\d)|(°[CF]|[a-zA-ZµΩÅ]+|[°$€£¥₹¢])\.?")


# `18\\text{ ways}`, `9 (apples)`, `350 pages`, `1010_2`: the unit is no measure.
_COUNTED = re.compile(
    r"(-?[\d.,]*\d)\s*(?:\\text\{\s*([a-zA-Z]{2}[a-zA-Z ]*?)[\s.]*\}|\(([a-zA-Z]{3}[a-zA-Z ]*)\)"
    r"|\s([a-zA-Z]{4,}(?: [a-zA-Z]{2,})*)|_\{?(\d+)\}?)\.?"
)
_NOT_COUNTED = re.compile(
    r"\b(?:hundred|thousand|million|billion|trillion|dozen|half|third|quarter|tenth|percent|per|or|and"
    r"|to|mod|more|less|least|most|than|times|plus|minus|over|am|pm|if|is|are|not|for)s?\b"
)


def split_count(text: str) -> tuple[str, str]:
    """A number and what is counted, or its base, after a `#`; without one it is empty."""
    found = _COUNTED.fullmatch(text)
    if found is None:
        return text, ""
    name = " ".join((found[2] or found[3] or found[4] or f"base {found[5]}").lower().split())
    return (text, "") if _NOT_COUNTED.search(name) else (found[1], f"#{name}")


def split_unit(text: str, *, by_letters: bool = False) -> tuple[str, str]:
    """The text before the unit, and the unit in its one spelling; without one it is empty.

    A unit is marked, as in `5\\text{ m}`, or is made of known names that stand apart: `5 cm`.
    Single letters that are not marked are variables, but for `5 m/s`. With `by_letters` they are a
    unit if they hardly stand for a variable: `5 J`, not `5 m`.
    """
    found = _BEFORE.match(text)
    if found and not (found[1] and found[5]):
        name = (found[2] or found[3] or found[4]).rstrip(".").lower()
        return found[1] + found[5] + text[found.end() :], f"{_NAMES[name]}^1"
    if _ANGLE.search(text) and "\\circ" in text:
        return text, ""
    for pattern in (_MARKED, _BARE):
        for found in pattern.finditer(text):
            before, behind = text[: found.start()].strip(), text[found.end() :]
            bare = pattern is _BARE
            if not before or (bare and not _is_bare_unit(behind, found[1] != "", by_letters)):
                continue
            unit = _read(_flat(behind))
            if unit:
                return before, unit
    return text, ""


def _is_bare_unit(name: str, apart: bool, by_letters: bool) -> bool:
    """True if unmarked letters may be a unit rather than variables."""
    if name.startswith("\\Omega"):
        return True
    long = re.search(r"[a-zA-Z°]{2,}", name)
    if any(
        short not in _SHORT for short in re.findall(r"(?<![a-zA-Z])[a-zA-Z]{2}(?![a-zA-Z])", name)
    ):
        return False
    if not apart:
        return long is not None and long.start() == 0 and name not in _ALSO_PRODUCTS
    if long or re.fullmatch(r"m/s(?:\^\{?2\}?)?", name):
        return True
    are_variables = not set(re.findall("[a-zA-Z]", name)) - set(_ALSO_VARIABLES)
    return by_letters and not (are_variables and re.search(r"/|\^\{?-", name) is None)


def _flat(text: str) -> str:
    """The unit as a program would write it: `kg*m^-1`."""
    text = re.sub(r"\^\s*\{\s*([+-]?\d)\s*\}", r"^\1", text)
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    text = _DEGREE.sub("°", text)
    text = re.sub(r"°\s+(?=[CF](?![a-zA-Z]))", "°", text)
    text = re.sub(r"\\(?:cdot|times)(?![a-zA-Z])", "*", text)
    text = re.sub(r"\\mu(?![a-zA-Z])\s*", "µ", text)
    text = re.sub(r"\\(?:Omega|ohm)(?![a-zA-Z])", "Ω", text).replace("\\$", "$")
    text = re.sub(r"\\(?:AA|r?ing\s*\{A\})", "Å", text)
    return re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)", text)


def _read(text: str) -> str:
    """The unit of a text in its one spelling; empty when the text is anything else."""
    tokens = _tokens(text)
    powers: collections.Counter[str] = collections.Counter()
    percent = tokens[:2] == ["per", "cent"]
    if not tokens or percent or not _take(tokens, powers, 1) or tokens:
        return ""
    return " ".join(f"{name}^{power}" for name, power in sorted(powers.items()) if power)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        found = _PIECE.match(text, at)
        if found is None:
            return []
        token = found[1] or (found[2] and f"^{int(found[2].strip('()'))}") or found[3]
        tokens += [token] if token else []
        at = found.end()
    return tokens


def _take(tokens: list[str], powers: collections.Counter[str], sign: int) -> bool:
    """Takes a product of units off the tokens, as far as the parenthesis that closes it."""
    direction, taken, ahead = 1, 0, 1
    while tokens and tokens[0] != ")":
        token = tokens.pop(0)
        if token in ("*", "/", "per"):
            if direction == -1 or (not taken and token == "*"):
                return False
            direction = 1 if token == "*" else -1
            continue
        if token in _POWERS:
            ahead = _POWERS[token]
            continue
        factor = _factor(token, tokens)
        if factor is None:
            return False
        exponent = ahead * (int(tokens.pop(0)[1:]) if tokens and tokens[0][0] == "^" else 1)
        for name, power in factor.items():
            powers[name] += sign * direction * exponent * power
        direction, taken, ahead = 1, taken + 1, 1
    return taken > 0 and direction == ahead == 1


def _factor(token: str, tokens: list[str]) -> dict[str, int] | None:
    """The units of a name or of a parenthesis, each with its power."""
    if token == "(":
        inner: collections.Counter[str] = collections.Counter()
        if not _take(tokens, inner, 1) or not tokens:
            return None
        tokens.pop(0)
        return dict(inner)
    if token.lower() in _PER_HOUR:
        return {_PER_HOUR[token.lower()]: 1, "hour": -1}
    name = _EXACT.get(token) or _NAMES.get(token.lower()) or _prefixed(token.lower())
    if name is None:
        return None
    if name == "degree" and tokens and tokens[0].lower() in ("c", "celsius", "f", "fahrenheit"):
        name = "celsius" if tokens.pop(0).lower()[0] == "c" else "fahrenheit"
    raised = _RAISED.get(tokens[0], 0) if tokens else 0
    if raised:
        tokens.pop(0)
    return {name: raised or 1}


def _prefixed(word: str) -> str | None:
    """The unit of a word such as `kilometers`."""
    for prefix in _PREFIXES.values():
        name = _NAMES.get(word.removeprefix(prefix)) if word.startswith(prefix) else None
        if name and len(word.removeprefix(prefix)) > 3:
            return prefix + name
    return None
