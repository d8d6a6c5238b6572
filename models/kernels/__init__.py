"""Causal attention with grouped queries: one definition, and kernels that equal it.

`plain.plain` runs everywhere and with any mask; passes with a cache always use it. The kernels
serve passes without a cache, where token t sees token s when s ≤ t, s belongs to the segment of t
or to the prefix of that segment, and, in a local layer, `position t − position s < window`.
"""
