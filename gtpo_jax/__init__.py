"""gtpo_jax: Group Turn Policy Optimization for tool-using language models, in functional JAX.

    import gtpo_jax as gx

    method = gx.methods.chain(gx.methods.gtpo(discount=0.95), gx.methods.kl(weight=0.01))

Rooms are imported when they are first asked for: `import gtpo_jax` alone loads no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtpo_jax import (
        decoding,
        devices,
        language,
        learner,
        maths,
        methods,
        parts,
        report,
        results,
        rollout,
        tasks,
        testing,
        tools,
        training,
        types,
        verifiers,
    )

__version__ = "0.1.0"

__all__ = [
    "decoding",
    "devices",
    "language",
    "learner",
    "maths",
    "methods",
    "parts",
    "report",
    "results",
    "rollout",
    "tasks",
    "testing",
    "tools",
    "training",
    "types",
    "verifiers",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
