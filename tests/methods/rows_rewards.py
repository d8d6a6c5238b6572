"""Rows of the suite of relatives: shaping of rewards."""

from tests.methods.relatives import Row

ROWS: dict[str, Row] = {}
