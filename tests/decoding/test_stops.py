"""Stop strings in sampled tokens, against a search in the text so far."""

import dataclasses
import itertools
import re

import chex
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gtpo_jax.decoding import stops
from gtpo_jax.language import tokenizers
from gtpo_jax.testing import ByteTokenizer

BYTES = ByteTokenizer()
SHIPPED = tokenizers.SentencePieceTokenizer(tokenizers.ASSETS / "tools-256.model")


def vocabulary(tokenizer) -> list[bytes]:
    return [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]


def run(table: stops.StopTable, tokens) -> list[bool]:
    """True behind each token after which the row has stopped."""

    def step(states, token):
        states, stopped = stops.advance(table, states, token[None])
        return states, stopped[0]

    start = jnp.full(1, stops.START, jnp.int32)
    return jax.lax.scan(step, start, jnp.asarray(tokens, jnp.int32))[1].tolist()


def walk(table: stops.StopTable, tokens) -> list[bool]:
    """The same on the host, where no length compiles a program."""
    state, stopped = stops.START, []
    for token in tokens:
        state = int(table.next_state[state, token])
        stopped.append(state == len(table.next_state) - 1)
    return stopped


def reference_stopped(stop_strings, token_bytes, tokens) -> list[bool]:
    """By a search in all bytes so far. Tokens without bytes end one text and begin another."""
    texts, found, out = [b""], False, []
    for token in tokens:
        if not token_bytes[token]:
            texts.append(b"")
        texts[-1] += token_bytes[token]
        found = found or any(s.encode() in text for s in stop_strings for text in texts)
        out.append(found)
    return out


def steps_to_stop(stop_strings, text: str, token_bytes=None) -> int | None:
    """Tokens sampled when the row stops; None when it does not."""
    ids = list(text.encode())
    stopped = run(stops.build(stop_strings, token_bytes or vocabulary(BYTES)), ids)
    return stopped.index(True) + 1 if any(stopped) else None


@pytest.mark.parametrize(
    ("stop_strings", "text", "steps"),
    [
        (["ab"], "ab", 2),
        (["ab"], "aab", 3),
        (["ab"], "ba", None),
        (["aab"], "aaaab", 5),
        (["abab"], "abaabab", 7),  # falls back to a, and to ab
        (["abc", "bd"], "abd", 3),  # falls back into another string
        (["abcd", "bc"], "abcd", 3),  # a string inside another ends first
        (["abc", "ab"], "abc", 2),  # a prefix
        (["abc", "c"], "abc", 3),  # a suffix
        (["abc", "c"], "ac", 2),
        (["a", "a"], "ba", 2),
        (["aXb", "Xa"], "aaXa", 4),
        (["é"], "xé", 3),
        (["é"], "è", None),  # the first byte is the same
        (["日本", "本語"], "日本語", 6),
        (["\n\nUser:"], "\n\n\nUser:", 8),
        ([], "anything", None),
    ],
)
def test_stop_is_found_where_the_first_string_ends(stop_strings, text, steps):
    assert steps_to_stop(stop_strings, text) == steps
    if steps is not None:
        assert stops.cut(text + "more", stop_strings).encode() == text.encode()[:steps]


@pytest.mark.parametrize(
    ("tokens", "stopped"),
    [
        ([b"<", b"/a", b">x"], [False, False, True]),  # ends inside the last token
        ([b"x<", b"/", b"a>"], [False, False, True]),
        ([b"x</a>y"], [True]),  # begins and ends inside one
        ([b"</a", b"</a", b">"], [False, False, True]),
        ([b"</a", b"", b">"], [False, False, False]),  # a control symbol stands between
        ([b"</a>", b"", b"x"], [True, True, True]),  # nothing undoes a stop
        ([b"</a> </", b"b"], [True, True]),
    ],
)
def test_stop_is_found_wherever_it_lies_in_the_tokens(tokens, stopped):
    token_bytes = sorted(set(tokens))
    table = stops.build(["</a>"], token_bytes)
    assert run(table, [token_bytes.index(token) for token in tokens]) == stopped


# Few letters, of one to three bytes that share some of them, so that matches are common.
LETTERS = "abé\u00e8\u65e5"
stop_lists = strategies.lists(strategies.text(LETTERS, min_size=1, max_size=5), max_size=4)


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    stop_strings=stop_lists,
    # Pieces of text cut anywhere: tokens begin and end inside characters.
    pieces=strategies.lists(strategies.text(LETTERS, max_size=4), min_size=1, max_size=6),
    data=strategies.data(),
)
def test_table_agrees_with_a_search_over_random_vocabularies(stop_strings, pieces, data):
    cuts = strategies.integers(0, 12)
    token_bytes = [p.encode()[data.draw(cuts) :][: 1 + data.draw(cuts)] for p in pieces]
    table = stops.build(stop_strings, token_bytes)
    states, ids = len(table.next_state), np.arange(len(token_bytes))
    assert table.next_state.shape == (states, len(ids))
    assert states <= 2 + len("".join(stop_strings).encode())
    np.testing.assert_array_equal(table.next_state[-1], states - 1)
    row = data.draw(strategies.lists(strategies.sampled_from(ids.tolist()), max_size=12))
    stopped = walk(table, row)
    assert stopped == reference_stopped(stop_strings, token_bytes, row)


@pytest.mark.parametrize("tokenizer", [BYTES, SHIPPED], ids=["bytes", "sentencepiece"])
@hypothesis.settings(max_examples=60)
@hypothesis.given(data=strategies.data())
def test_table_agrees_with_a_search_in_what_a_tokenizer_writes(tokenizer, data):
    text = "print(1+2)\n\nThe answer is 3"
    pieces = strategies.integers(0, len(text) - 2).flatmap(
        lambda i: strategies.integers(1, 6).map(lambda n: text[i : i + n])
    )
    stop_strings = data.draw(strategies.lists(pieces, min_size=1, max_size=3))
    control = [i for i in range(tokenizer.vocab_size) if not tokenizer.token_bytes(i)]
    tokens = strategies.sampled_from([*tokenizer.encode(text), *control[:1]])
    runs = strategies.one_of(pieces.map(tokenizer.encode), tokens.map(lambda token: [token]))
    ids = [*itertools.chain(*data.draw(strategies.lists(runs, min_size=1, max_size=8)))]
    token_bytes = vocabulary(tokenizer)
    stopped = walk(stops.build(stop_strings, token_bytes), ids)
    assert stopped == reference_stopped(stop_strings, token_bytes, ids)
    # The text between control symbols, cut, ends with what stopped the row.
    plain = [i for i in ids if token_bytes[i]]
    if len(plain) == len(ids):
        text = tokenizer.decode(ids)
        cut = stops.cut(text, stop_strings)
        assert (cut != text or cut.endswith(tuple(stop_strings))) == any(stopped)
        if any(stopped):
            before = b"".join(token_bytes[i] for i in ids[: stopped.index(True)])
            behind = b"".join(token_bytes[i] for i in ids[: stopped.index(True) + 1])
            assert len(before) < len(cut.encode()) <= len(behind)


def test_table_takes_the_smallest_integers_that_hold_its_states():
    token_bytes = vocabulary(BYTES)
    for length, dtype in [(255, np.uint8), (256, np.uint16)]:
        table = stops.build(["a" * length], token_bytes)
        assert table.next_state.shape[0] == length + 1
        assert table.next_state.dtype == dtype
        assert run(table, [ord("a")] * length).index(True) == length - 1


def test_table_of_a_large_vocabulary_is_built_by_columns_of_bytes():
    # Every token reads as it would alone, the longest and the empty ones too.
    rng = np.random.default_rng(0)
    token_bytes = [bytes(rng.choice(list(b"ab<>"), n)) for n in rng.integers(0, 40, 3000)]
    token_bytes[7] = b"ab" * 100
    table = stops.build(["ab<a", "<>b", ">>>"], token_bytes)
    for v in [*rng.choice(3000, 50).tolist(), 7, token_bytes.index(b"")]:
        alone = stops.build(["ab<a", "<>b", ">>>"], [token_bytes[v]])
        np.testing.assert_array_equal(table.next_state[:, v], alone.next_state[:, 0])


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_rows_shared_by_devices_advance_the_same(axis_type):
    table = stops.build(["ab", "ba"], vocabulary(BYTES))
    tokens = jnp.asarray(np.random.default_rng(0).choice(list(b"abc"), 16), jnp.int32)
    states = jnp.asarray(np.random.default_rng(1).integers(0, 4, 16), jnp.int32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = jax.device_put(table, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh):
        placed = jax.device_put(states, rows), jax.device_put(tokens, rows)
        found = jax.jit(stops.advance)(whole, *placed)
    assert all(x.sharding.is_equivalent_to(rows, 1) for x in found)
    alone = jax.jit(stops.advance)(table, states, tokens)
    chex.assert_type(alone, [jnp.int32, jnp.bool_])
    chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(alone))
    expected = table.next_state[np.asarray(states), np.asarray(tokens)]
    np.testing.assert_array_equal(alone[0], expected)
    np.testing.assert_array_equal(alone[1], expected == 3)


def test_another_table_of_the_same_size_compiles_nothing():
    call = jax.jit(lambda *args: stops.advance(*args))  # shares no programs with other tests
    rows = jnp.zeros(2, jnp.int32), jnp.full(2, ord("b"), jnp.int32)
    first, second = (stops.build([stop], vocabulary(BYTES)) for stop in ("ab", "bb"))
    assert call(first, *rows)[0].tolist() == [0, 0]
    assert call(second, *rows)[0].tolist() == [1, 1]
    assert call._cache_size() == 1


@pytest.mark.parametrize(
    ("text", "stop_strings", "expected"),
    [
        ("a</a>b</a>", ["</a>"], "a</a>"),
        ("abc", ["x"], "abc"),
        ("abc", [], "abc"),
        ("", ["x"], ""),
        ("abcd", ["abcd", "bc"], "abc"),  # ends earliest, though it begins later
        ("xab", ["ab", "b"], "xab"),
        ("日本語", ["本"], "日本"),
    ],
)
def test_text_is_cut_behind_the_stop_that_ends_first(text, stop_strings, expected):
    assert stops.cut(text, stop_strings) == expected


@pytest.mark.parametrize(
    ("stop_strings", "error", "message"),
    [
        ([""], ValueError, "must not be empty"),
        (["a", ""], ValueError, "must not be empty"),
        ("END", TypeError, "'END'; wrap it in a list"),
        (["\ud800"], ValueError, "cannot be encoded as UTF-8: surrogates"),
        (["a\ufffd"], ValueError, re.escape("contains U+FFFD")),
    ],
)
def test_stop_string_that_no_text_holds_is_refused(stop_strings, error, message):
    with pytest.raises(error, match=message):
        stops.build(stop_strings, [b"a"])


def test_table_is_a_frozen_pytree():
    table = stops.build(["ab"], [b"a", b"b"])
    assert [leaf.shape for leaf in jax.tree.leaves(table)] == [(3, 2)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.next_state = table.next_state
