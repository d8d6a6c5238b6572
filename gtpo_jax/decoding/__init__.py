"""The decode programs: prefill, segments of single tokens, sampling and stopping."""

from gtpo_jax.decoding.programs import (
    Appended,
    DecodePrograms,
    DecodeState,
    Prompts,
    Segment,
    make_programs,
    restrict_vocabulary,
)

__all__ = [
    "Appended",
    "DecodePrograms",
    "DecodeState",
    "Prompts",
    "Segment",
    "make_programs",
    "restrict_vocabulary",
]
