"""Claims of the relatives, committed before their results; each file of the folder has some."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = tuple(
    claim
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__))
    for claim in getattr(importlib.import_module(f"{__name__}.{module}"), "CLAIMS", ())
)
"""The claims of all files, in the order of their names."""
