"""Judges of answers, as programs that need neither JAX nor the library.

A worker process runs them (`worker.py`). No module here imports a module of `gtpo_jax` outside of
this package at its top, so a worker starts fast and holds no device.

    characters   Unicode
    groups       braces
    printed      what programs print
    notation     one way of writing for many
    nodes        the parts of an answer
    structure    lists, tuples, intervals, equations
    sets         of real numbers, however they are described
    units        of a number
    spelling     what the parser of math-verify would misread
    leaves       numbers, words and expressions
    parsing      the parser of math-verify
    building     expressions evaluated within bounds
    values       of expressions at points
    agreement    of values
    proving      what values do not decide
    budget       processor time
    equivalence  two answers, part by part
    unit_test    one test of a program; runs in the tool instead
"""
