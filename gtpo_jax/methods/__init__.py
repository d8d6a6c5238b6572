"""Methods of reinforcement learning, one file each, and modifiers that compose with any of them.

    methods.chain(methods.gtpo(discount=0.95), methods.dual_clip(limit=3.0))

Every public function of this room that returns a `Method` or a `Modifier` is available by its name:
`METHODS` and `MODIFIERS` hold them, and `python -m launch.methods` prints the table. A new file
needs no entry anywhere.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

from gtpo_jax.methods.method import (
    Method,
    Modifier,
    TurnCredit,
    add_link,
    add_reward,
    assign,
    chain,
    change_policy_term,
    change_surrogate,
    correct_policy_term,
    set_plan,
    set_prompts,
    wrap_reward,
)

METHODS: dict[str, Callable[..., Method]] = {}
"""Name → function of options that makes a method."""

MODIFIERS: dict[str, Callable[..., Modifier]] = {}
"""Name → function of options that makes a modifier."""


def _collect() -> None:
    for info in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
        module = importlib.import_module(info.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("_") or function.__module__ != info.name:
                continue
            made = function.__annotations__.get("return")
            if made == Method.__name__ and info.name != Method.__module__:
                METHODS[name] = function
            elif made == "Modifier":
                MODIFIERS[name] = function
            elif name.endswith("_advantages"):
                globals()[name] = function
    globals().update(METHODS | MODIFIERS)


_collect()


def __getattr__(name: str) -> Any:
    known = ", ".join(sorted({**METHODS, **MODIFIERS}))
    raise AttributeError(f"gtpo_jax.methods has no {name!r}; there are {known}")


__all__ = [
    "METHODS",
    "MODIFIERS",
    "Method",
    "Modifier",
    "TurnCredit",
    "add_link",
    "add_reward",
    "assign",
    "chain",
    "change_policy_term",
    "change_surrogate",
    "correct_policy_term",
    "set_plan",
    "set_prompts",
    "wrap_reward",
]
