"""Units behind or before a number, by the names that answers give them."""

from __future__ import annotations

import re

_UNITS = {
    "degree": "degrees deg °",
    "cm": "centimeter centimeters centimetre centimetres",
    "mm": "millimeter millimeters millimetre millimetres",
    "km": "kilometer kilometers kilometre kilometres",
    "meter": "m meters metre metres",
    "inch": "in inches",
    "foot": "ft feet",
    "yard": "yd yards",
    "mile": "mi miles",
    "unit": "units",
    "acre": "acres",
    "gram": "g grams",
    "kg": "kilogram kilograms",
    "pound": "lb lbs pounds",
    "ounce": "oz ounces",
    "ton": "tons",
    "liter": "l liters litre litres",
    "gallon": "gal gallons",
    "second": "s sec secs seconds",
    "minute": "min mins minutes",
    "hour": "h hr hrs hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "yr yrs years",
    "mph": "",
    "km/h": "kmh kmph",
    "m/s": "",
    "dollar": "dollars usd $",
    "cent": "cents ¢",
    "euro": "euros eur €",
    "sterling": "gbp £",
    "radian": "rad radians",
}
_NAMES = {name: unit for unit, names in _UNITS.items() for name in (unit, *names.split())}
_POWERS = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}

# Between the number and the end: `\text{ cm}^2`, ` square feet`, `^\circ`.
_MARKED = re.compile(r"\\text\{([^{}]*)\}(?:\^\{?([23])\}?)?$")
_BARE = re.compile(r"(?<=[\d})!])\s+((?:[a-z]+\s+)?[a-zA-Z/]{2,})\.?(?:\^\{?([23])\}?)?$")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?$")
_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")  # the degrees are its own
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|([€£]))\s*(?=[\d.])")


def split_unit(text: str) -> tuple[str, str]:
    """What comes before the unit, and the unit in its one spelling; without one it is empty.

    Bare letters are a unit only where they are a known name of two letters or more and stand apart:
    `5 m` is a product. What is no known unit stays where it is.
    """
    found = _CURRENCY.match(text)
    if found:
        unit = _NAMES[found[2] or "$"]
        return found[1] + text[found.end() :], unit
    found = _DEGREES.search(text)
    if found and not _ANGLE.search(text):
        return text[: found.start()].strip(), "degree"
    for pattern in (_MARKED, _BARE):
        found = pattern.search(text)
        unit = _unit(found[1], found[2]) if found else ""
        if found and unit and text[: found.start()].strip():
            return text[: found.start()].strip(), unit
    return text, ""


def _unit(name: str, power: str | None) -> str:
    words = name.lower().strip(" .").split()
    exponent = f"^{power}" if power else ""
    if len(words) == 2 and words[0] in _POWERS and not exponent:
        exponent = _POWERS[words.pop(0)]
    if len(words) != 1 or words[0] not in _NAMES:
        return ""
    return _NAMES[words[0]] + exponent
