"""Methods by name and by path: `gtpo discount=.95 + dual_clip limit=3`, `my.module:method scale=2`.

The method comes first, then modifiers, each after a `+`. Options are `name=value` and are checked
against the signature of the function that the name stands for.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import json
import shlex
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gtpo_jax import methods
from gtpo_jax.methods import Method, Modifier

PLUS = "+"


def make_method(words: Sequence[str]) -> Method:
    """The method that words on a command line stand for.

    Raises `ValueError`, with one line, for an unknown name, an unknown option or a bad value.
    """
    pieces: list[list[str]] = [[]]
    for word in words:
        if word == PLUS:
            pieces.append([])
        else:
            pieces[-1].append(word)
    if not all(pieces):
        raise ValueError(
            f"a method must be as `gtpo discount=.95 {PLUS} kl weight=.01`, got {spell(words)!r}"
        )
    first, *others = pieces
    method = make_named(first, methods.METHODS, "method")
    if not isinstance(method, Method):
        raise ValueError(f"{first[0]} must return a Method, got {type(method).__name__}")
    for piece in others:
        modifier: Modifier = make_named(piece, methods.MODIFIERS, "modifier")
        if not callable(modifier):
            raise ValueError(
                f"{piece[0]} must return a modifier, a function Method → Method, got"
                f" {type(modifier).__name__}"
            )
        method = modifier(method)
    return method


def spell(words: Sequence[str]) -> str:
    """Joins words into one text, which `split` reads."""
    return shlex.join(words)


def split(text: str) -> tuple[str, ...]:
    """Splits a text into its words."""
    return tuple(shlex.split(text))


def import_path(path: str, what: str) -> Any:
    """The object at `package.module:name`, such as a function of your own.

    Raises `ValueError` where there is none. The module is imported from the current folder or from
    the installed packages.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"{what} by path must be as my.module:name, got {path!r}")
    try:
        value = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{what} {path}: {error}") from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise ValueError(f"{what} {path}: {module} has no {name}")
        value = getattr(value, part)
    return value


def make_named(piece: Sequence[str], known: Mapping[str, Callable[..., Any]], kind: str) -> Any:
    """Calls the function that a name, or a path, stands for, with the options `name=value`.

    `known` are the functions by name, `kind` is the word for them in errors. Raises `ValueError`,
    with one line.
    """
    name, *pairs = piece
    if ":" in name:
        function = import_path(name, kind)
    elif name in known:
        function = known[name]
    else:
        hint = f"; {name} is a method, and comes first" if name in methods.METHODS else ""
        raise ValueError(
            f"there is no {kind} {name!r}{hint}; there are {', '.join(sorted(known))}, and those of"
            " your own as my.module:name"
        )
    try:
        return function(**_options(name, function, pairs))
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def _options(name: str, function: Callable[..., Any], pairs: Sequence[str]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function, include_extras=True)
    options: dict[str, Any] = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not equals or option in options:
            raise ValueError(
                f"an option of {name} must be as name=value, each name once, got {pair!r}"
            )
        if option not in parameters:
            raise ValueError(
                f"{name} has no option {option}; it has {', '.join(parameters) or 'none'}"
            )
        options[option] = read_value(f"{name} {option}", value, hints.get(option, Any))
    missing = [
        option
        for option, parameter in parameters.items()
        if parameter.default is parameter.empty and option not in options
    ]
    if missing:
        raise ValueError(
            f"{name} needs {', '.join(missing)}; give {' '.join(f'{m}=…' for m in missing)}"
        )
    return options


def read_value(what: str, text: str, hint: Any) -> Any:
    """A value of the type that a parameter is annotated with, from its text.

    `Annotated[kind, {name: value}]` is a choice by name or by path. Without an annotation the text
    is read as JSON, and stays a text if it is not JSON.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _choice(what, text, arguments[1])
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError(f"{what} must be one of {', '.join(arguments)}, got {text}")
        return text
    if type(None) in arguments:
        if text == "None":
            return None
        rest = [kind for kind in arguments if kind is not type(None)]
        return read_value(what, text, rest[0])
    if origin is collections.abc.Callable:
        return import_path(text, what)
    if hint is bool:
        words = {"true": True, "false": False}
        if text.lower() not in words:
            raise ValueError(f"{what} must be true or false, got {text}")
        return words[text.lower()]
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            expected = "an integer" if hint is int else "a number"
            raise ValueError(f"{what} must be {expected}, got {text}") from None
    if hint is str:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return import_path(text, what) if ":" in text else text


def spell_value(value: Any, function: Callable[..., Any]) -> str:
    """The text from which `read_value` reads a value of a function's parameter."""
    for hint in typing.get_type_hints(function, include_extras=True).values():
        if typing.get_origin(hint) is typing.Annotated:
            for name, choice in typing.get_args(hint)[1].items():
                if choice is value:
                    return name
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choice(what: str, text: str, choices: Mapping[str, Any]) -> Any:
    if text in choices:
        return choices[text]
    if ":" in text:
        return import_path(text, what)
    raise ValueError(
        f"{what} must be one of {', '.join(choices)}, or of your own as my.module:name, got {text}"
    )
