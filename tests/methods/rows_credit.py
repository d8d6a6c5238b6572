"""Rows of the suite of relatives: advantages and baselines."""

from tests.methods.relatives import Row

ROWS: dict[str, Row] = {}
