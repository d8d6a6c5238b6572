"""Unicode as LaTeX: superscripts, fractions, Greek, operators, full width, invisible signs."""

from __future__ import annotations

import re
import unicodedata

_OPERATORS = {
    "-": "−–‒—―‐‑﹣➖",
    "/": "÷∕⁄",
    "\\times ": "×✕✖⨯",
    "\\cdot ": "·⋅∙•∗⋆・",
    "\\pm ": "±",
    "\\mp ": "∓",
    "\\le ": "≤⩽≦",
    "\\ge ": "≥⩾≧",
    "\\ne ": "≠",
    "\\approx ": "≈",
    "\\equiv ": "≡",
    "\\in ": "∈",
    "\\notin ": "∉",
    "\\cup ": "∪⋃",
    "\\cap ": "∩⋂",
    "\\subset ": "⊂",
    "\\subseteq ": "⊆",
    "\\setminus ": "∖",
    "\\emptyset ": "∅⌀Ø",
    "\\infty ": "∞",
    "\\to ": "→",
    "\\Rightarrow ": "⇒",
    "\\angle ": "∠",
    "\\triangle ": "△",
    "\\perp ": "⊥",
    "\\parallel ": "∥‖",
    "\\sum ": "∑",
    "\\prod ": "∏",
    "\\int ": "∫",
    "\\lfloor ": "⌊",
    "\\rfloor ": "⌋",
    "\\lceil ": "⌈",
    "\\rceil ": "⌉",
    "\\langle ": "⟨〈",
    "\\rangle ": "⟩〉",
    "\\mid ": "∣",
    "\\land ": "∧",
    "\\lor ": "∨",
    "^\\circ ": "°º˚",
    "\\text{°C}": "℃",
    "\\text{°F}": "℉",
    ":": "∶",
    ",": "、",
    ".": "。",
    "'": "′’‘ʹ",
    "''": "″",
    '"': "“”",
    "\\mathbb{R}": "ℝ",
    "\\mathbb{N}": "ℕ",
    "\\mathbb{Z}": "ℤ",
    "\\mathbb{Q}": "ℚ",
    "\\mathbb{C}": "ℂ",
}
_TABLE = {character: latex for latex, group in _OPERATORS.items() for character in group}

_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}
# A root without parentheses covers a number or a letter: `√12`, `√3/3`.
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[^\W\d_])?")

_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (?:FINAL )?([A-Z]+)")
# These look like Latin letters; LaTeX has no command for them.
_LATIN = {"Alpha", "Beta", "Epsilon", "Zeta", "Eta", "Iota", "Kappa", "Mu", "Nu", "Omicron", "Rho"}
_LATIN |= {"Tau", "Chi", "omicron"}

_OVERLINED = re.compile("(?:[0-9]\u0305)+|(?:[0-9]\u0304)+")


def in_ascii(text: str) -> str:
    """The text with every character replaced by its LaTeX, if it has one."""
    if text.isascii():
        return text
    text = _OVERLINED.sub(lambda m: rf"\overline{{{re.sub('[^0-9]', '', m[0])}}}", text)
    text = _ROOT.sub(lambda m: _ROOTS[m[1]] + (f"{{{m[2]}}}" if m[2] else ""), text)
    pieces: list[str] = []
    raised = ""  # "super" or "sub", while a run of them lasts
    for character in text:
        latex, height = _in_latex(character)
        if height != raised:
            pieces.append("}" if raised else "")
            pieces.append({"super": "^{", "sub": "_{"}.get(height, ""))
            raised = height
        pieces.append(latex)
    return "".join(pieces) + ("}" if raised else "")


def _in_latex(character: str) -> tuple[str, str]:
    """The spelling of one character, and its height: `super`, `sub` or nothing."""
    if character.isascii():
        return character, ""
    if character in _TABLE:
        return _TABLE[character], ""
    category = unicodedata.category(character)
    if category == "Cf":  # invisible: joiners, marks of direction, an applied function
        return "", ""
    if category == "Zs":
        return " ", ""
    tag, _, rest = unicodedata.decomposition(character).partition("> ")
    if tag in ("<super", "<sub"):
        plain = "".join(chr(int(code, 16)) for code in rest.split())
        return _in_latex(plain)[0] if len(plain) == 1 else plain, tag[1:]
    if tag == "<fraction":
        above, _, below = unicodedata.normalize("NFKC", character).partition("⁄")
        return rf"\frac{{{above}}}{{{below}}}" if below else character, ""
    plain = unicodedata.normalize("NFKC", character)
    if tag == "<square":  # `㎡`
        return re.sub(r"([a-zμ]+)(\d?)", r"\\text{\1}^\2", plain).rstrip("^"), ""
    if plain != character:
        return in_ascii(plain), ""
    return _greek(character), ""


def _greek(character: str) -> str:
    found = _GREEK.fullmatch(unicodedata.name(character, ""))
    if not found:
        return character
    name = found[2].replace("LAMDA", "LAMBDA").capitalize()
    name = name.lower() if found[1] == "SMALL" else name
    return character if name in _LATIN else f"\\{name} "
