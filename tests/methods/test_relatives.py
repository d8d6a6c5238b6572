"""One suite over the relatives that act on rewards and credit: every row, the same episodes."""

import dataclasses
import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.methods.method import token_numbers
from gtpo_jax.parts import facts
from gtpo_jax.parts.spreads import Written
from tests.methods import relatives
from tests.methods.relatives import ROWS, SEEDS, Row

TABLE: dict[str, Row] = {
    name: row
    for path in sorted(pathlib.Path(__file__).parent.glob("rows_*.py"))
    for name, row in importlib.import_module(f"tests.methods.{path.stem}").ROWS.items()
}
each = pytest.mark.parametrize("name", TABLE)
NOTHING_WRITTEN = Written(
    *(
        np.full((ROWS, 4), fill, kind)
        for fill, kind in ((0, int), (-1, int), (0, float), (0, float))
    )
)
ORDER = np.random.default_rng(5).permutation(ROWS)


def reorder(batch, order):
    return jax.tree.map(lambda x: np.asarray(x)[order], batch)


def variants():
    """Seeds, then the first seed permuted, with other excluded rows, with junk, and degenerate."""
    seeds = [relatives.episodes(seed) for seed in range(SEEDS)]
    first, rng = seeds[0], np.random.default_rng(9)
    others = relatives.episodes(SEEDS)
    out = ~first.included
    changed = jax.tree.map(
        lambda x, y: np.where(out.reshape(-1, *[1] * (np.ndim(x) - 1)), y, x), first, others
    )
    changed = dataclasses.replace(changed, included=first.included, group_ids=first.group_ids)
    junk = {name: _with_junk(value, first.turn_mask, rng) for name, value in first.facts.items()}
    made = {
        "permuted": reorder(first, ORDER),
        "other excluded": changed,
        "junk": dataclasses.replace(first, facts=junk),
        "all right": dataclasses.replace(first, success=first.turn_mask.any(1)),
        "all wrong": dataclasses.replace(first, success=np.zeros(ROWS, bool)),
        "alone": dataclasses.replace(first, group_ids=np.arange(ROWS, dtype=np.int32)),
        "nothing": dataclasses.replace(
            first,
            included=np.zeros(ROWS, bool),
            turn_mask=np.zeros_like(first.turn_mask),
            success=np.zeros(ROWS, bool),
            violations=np.zeros_like(first.violations),
        ),
    }
    return seeds, made


def _with_junk(value, mask, rng):
    """Other numbers where there is no turn."""
    if np.shape(value) != mask.shape:
        return value
    return np.where(mask, value, rng.permutation(np.asarray(value).ravel()).reshape(mask.shape))


@functools.cache
def stacked():
    seeds, made = variants()
    stack = jax.tree.map(lambda *xs: np.stack(xs), *seeds, *made.values())
    return seeds, list(made), stack


def needed(method, stack):
    """The stack with the facts of a method only."""
    names = [fact.name for fact in method.facts]
    missing = [name for name in names if name not in stack.facts]
    assert not missing, f"add {missing} to FACTS"
    return dataclasses.replace(stack, facts={name: stack.facts[name] for name in names})


def assign(method, stack):
    """Advantages of every entry of the stack, each from the first state of the credit."""

    def advantages(batch):
        return methods.assign(method, method.credit.init(), batch)[1].advantages

    return np.asarray(jax.jit(jax.vmap(advantages))(needed(method, stack)))


@functools.cache
def advantages(name):
    return assign(TABLE[name].make(), stacked()[2])


def variant(name, which):
    return advantages(name)[SEEDS + stacked()[1].index(which)]


def test_table_holds_every_relative():
    known = {*methods.METHODS, *methods.MODIFIERS}
    assert {name.split()[0] for name in TABLE} <= known


@each
def test_advantages_are_those_of_the_reference(name):
    row = TABLE[name]
    for seed, batch in enumerate(stacked()[0]):
        expected = np.where(relatives.kept(batch), row.reference(batch), 0.0)
        np.testing.assert_allclose(
            advantages(name)[seed], expected, atol=row.atol, rtol=1e-4, err_msg=f"seed {seed}"
        )
    assert not row.signs or np.abs(advantages(name)[:SEEDS]).max() > 0.05


@each
def test_order_excluded_rows_and_padding_change_nothing(name):
    first = stacked()[0][0]
    before = advantages(name)[0]
    np.testing.assert_allclose(variant(name, "permuted"), before[ORDER], atol=3e-5)
    np.testing.assert_allclose(variant(name, "other excluded"), before, atol=1e-5)
    np.testing.assert_allclose(variant(name, "junk"), before, atol=1e-5)
    assert not np.any(before[~relatives.kept(first)])


@each
def test_degenerate_groups_give_finite_advantages(name):
    for which in ("all right", "all wrong", "alone", "nothing"):
        assert np.isfinite(variant(name, which)).all(), which
    assert not np.any(variant(name, "nothing"))


@pytest.mark.parametrize("name", list(TABLE)[::25])
def test_one_call_is_the_same_outside_jit(name):
    method, batch = TABLE[name].make(), stacked()[0][0]
    batch = jax.tree.map(jnp.asarray, needed(method, batch))
    eager = methods.assign(method, method.credit.init(), batch)[1]
    np.testing.assert_allclose(eager.advantages, advantages(name)[0], atol=2e-5)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.neutral])
def test_neutral_options_give_the_parent(name):
    row = TABLE[name]
    assert row.neutral and row.parent
    _, _, stack = stacked()
    np.testing.assert_allclose(assign(row.neutral(), stack), assign(row.parent(), stack), atol=2e-5)


@each
def test_missing_fact_is_named_with_its_provider(name):
    method = TABLE[name].make()
    bare = jax.tree.map(jnp.asarray, dataclasses.replace(stacked()[0][0], facts={}))
    for fact in method.facts:
        assert fact.meaning and (fact.gather or fact.provider), fact.name
    if method.facts:
        with pytest.raises(ValueError, match="the method needs the fact"):
            advantages = methods.assign(method, method.credit.init(), bare)[1].advantages
            token_numbers(method, advantages, NOTHING_WRITTEN, bare)
        absent = [fact for fact in method.facts if fact.gather is None]
        if absent:
            with pytest.raises(ValueError, match=absent[0].name):
                facts.check_provided(method.facts, ())
