"""The fakes keep the protocols that they stand in for."""

import time

import jax
import numpy as np
import pytest

from gtpo_jax.testing import INFRA_FAILURE, ByteTokenizer, FakeTool, scripted_forward
from gtpo_jax.types import ToolStatus

pytestmark = pytest.mark.slow

SCRIPTS = [[1, 2, 3, 4], [1, 2, 9], [5, 2, 3, 7, 8]]
OTHERWISE = 0


def following(tokens, positions, cache=None, sizes=10):
    forward = scripted_forward(SCRIPTS, vocab_size=sizes, otherwise=OTHERWISE)
    run = jax.jit(lambda t, p, c: forward.hidden({}, t, p, cache=c))
    hidden, cache = run(np.asarray(tokens), np.asarray(positions), cache)
    logits = np.asarray(forward.logits({}, hidden))
    assert logits.shape[-1] == sizes and logits.max() == 50.0
    return logits.argmax(-1).tolist(), cache


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1, 2, 3, 4], [2, 3, 4, OTHERWISE]),  # the first script that fits decides behind 1, 2
        ([1, 2, 9, 4], [2, 3, OTHERWISE, OTHERWISE]),
        ([5, 2, 3, 7], [2, 3, 7, 8]),
        ([1, 8, 3, 4], [2, OTHERWISE, OTHERWISE, OTHERWISE]),
        ([6, 2, 3, 4], [OTHERWISE] * 4),
    ],
)
def test_script_goes_on_behind_exactly_its_own_past(row, expected):
    assert following([row], [range(4)])[0] == [expected]
    cache = np.full((1, 6, 1), 3, np.int32)  # stale ids beyond the row must not count
    tokens = []
    for position, token in enumerate(row):
        [[following_token]], cache = following([[token]], [[position]], cache)
        tokens.append(following_token)
    assert tokens == expected


def test_script_in_packed_rows_starts_anew_with_each_document():
    tokens, positions = [[1, 2, 3, 5, 2, 1]], [[0, 1, 2, 0, 1, 0]]
    assert following(tokens, positions)[0] == [[2, 3, 4, 2, 3, 2]]


def test_script_reads_chunks_and_drops_what_is_beyond_its_cache():
    cache = np.zeros((2, 3, 1), np.int32)
    tokens, cache = following([[1, 2], [5, 2]], [[0, 1], [0, 1]], cache)
    assert tokens == [[2, 3], [2, 3]]
    tokens, after = following([[3, 4], [3, 7]], [[2, 3], [2, 3]], cache)
    assert [row[0] for row in tokens] == [4, 7]
    assert after[..., 0].tolist() == [[1, 2, 3], [5, 2, 3]]


def test_script_without_dialogues_is_refused():
    with pytest.raises(ValueError, match="at least one dialogue"):
        scripted_forward([], vocab_size=4, otherwise=0)


def test_byte_tokenizer_keeps_text_and_control_symbols_apart():
    tokenizer = ByteTokenizer(["<a>", "</a>"])
    assert tokenizer.vocab_size == 258
    assert tokenizer.encode("<a>é") == [*b"<a>", 0xC3, 0xA9]
    assert tokenizer.decode([256, *b"x", 257]) == "<a>x</a>"
    assert tokenizer.decode([0xC3, 256]) == "\N{REPLACEMENT CHARACTER}<a>"
    assert tokenizer.token_bytes(0xC3) == b"\xc3" and tokenizer.token_bytes(0) == b"\x00"
    assert tokenizer.token_bytes(256) == tokenizer.token_bytes(257) == b""
    with pytest.raises(ValueError, match="no control symbol <b>"):
        tokenizer.control_id("<b>")


def test_tool_answers_from_its_table_and_remembers_the_code():
    tool = FakeTool({"a": "1\n", "b": INFRA_FAILURE})
    first, second = tool.submit("a"), tool.submit("b", timeout=1.0)
    assert first.done() and first.result().stdout == "1\n"
    assert first.result().status is ToolStatus.OK
    assert second.result().status is ToolStatus.INFRA_ERROR
    assert tool.codes == ["a", "b"] and tool.calls == [first, second]
    with pytest.raises(ValueError, match="no result for 'c'"):
        tool.submit("c")


def test_tool_with_threads_takes_its_time_and_ends_when_closed():
    with FakeTool(str.upper, seconds=lambda code: 0.0 if code == "a" else 60.0, threads=1) as tool:
        quick, slow, queued = (tool.submit(code) for code in "abc")
        assert quick.result(timeout=10).stdout == "A"
        while not slow.running():
            time.sleep(0.001)
        assert not queued.running()
    assert slow.result(timeout=10).stdout == "B" and queued.cancelled()


def test_tool_without_threads_cannot_take_time():
    with pytest.raises(ValueError, match="set threads"):
        FakeTool({}, seconds=0.1)
