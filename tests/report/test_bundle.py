"""Records as the data of a page: an index that agrees with them, and all bodies."""

import base64
import gzip
import json
import math

import pytest

from gtpo_jax.report import bundle
from tests.report import made


def everything(found):
    """All trajectories of a bundle, with the group, step and source that the index gives them."""
    index, bodies = found.index, [body for chunk in found.chunks for body in chunk]
    groups, rows = index["groups"], index["trajectories"]
    for g in range(len(groups["first"])):
        for i in range(groups["first"][g], groups["first"][g] + groups["count"][g]):
            where = (index["sources"][groups["source"][g]], groups["step"][g], groups["group"][g])
            problem = {n: column[groups["problem"][g]] for n, column in index["problems"].items()}
            yield where, problem, {name: column[i] for name, column in rows.items()}, bodies[i]


def test_the_index_says_what_the_records_say():
    sources = {"b": made.make_step(3), "a": made.make_step(2)[::-1]}
    found = bundle.bundle(sources)
    listed = list(everything(found))
    assert len(listed) == 24
    assert [where for where, *_ in listed] == sorted(
        (where for where, *_ in listed), key=lambda w: (w[0] == "a", w[1:])
    )
    for (source, step, group), problem, row, body in listed:
        [record] = [
            r
            for r in sources[source]
            if (r["step"], r["group"], r["sample"]) == (step, group, row["sample"])
        ]
        family = found.index["families"][problem.pop("family")]
        assert problem | {"family": family} == record["problem"]
        assert body == {name: record[name] for name in ("prompt", "answer", "turns", "facts")}
        assert row["verdict"] == record["verdict"]
        assert found.index["stops"][row["stop"]] == record["stop_reason"]
        assert row["violations"] == sum(t["violation"] is not None for t in record["turns"])
        assert (row["turns"], row["calls"], row["failed"]) == (2, 1, 0)
        assert row["tokens"] == sum(len(t["pieces"]) for t in record["turns"])
        assert row["reward"] == sum(t["credit"]["reward"] for t in record["turns"])


def test_groups_are_not_split_between_chunks(monkeypatch):
    monkeypatch.setattr(bundle, "CHUNK_BYTES", 10_000)
    found = bundle.bundle({"train": made.make_step(1, groups=9)})
    groups = found.index["groups"]
    sizes = [0] * len(found.chunks)
    for chunk, count in zip(groups["chunk"], groups["count"], strict=True):
        sizes[chunk] += count
    assert sizes == [len(chunk) for chunk in found.chunks] and len(sizes) > 2
    assert groups["chunk"] == sorted(groups["chunk"])


def test_problems_are_kept_once():
    problem = made.make_problem(4)
    records = [made.make_record(made.make_trajectory(problem, 0, 0), step) for step in range(5)]
    found = bundle.bundle({"train": records})
    assert found.index["problems"]["id"] == ["sum-4"]
    assert found.index["groups"]["problem"] == [0] * 5


def test_reward_is_unknown_where_a_turn_has_none():
    record = made.make_step(1)[0]
    del record["turns"][0]["credit"]["reward"]
    found = bundle.bundle({"train": [record]})
    assert found.index["trajectories"]["reward"] == [None]


def test_records_of_earlier_versions_have_no_facts():
    record = made.make_step(1)[0]
    del record["facts"]
    [[body]] = bundle.bundle({"train": [record]}).chunks
    assert body["facts"] == {}


def test_scales_are_of_the_largest_sizes():
    assert bundle.scale([]) is None
    assert bundle.scale([0.0, 0.0]) == 1.0
    assert bundle.scale([0.0] * 99 + [5.0]) == 5.0  # the quantile alone would be 0
    assert bundle.scale([2.0] * 99 + [1000.0]) == pytest.approx(2.0)
    found = bundle.bundle({"train": made.make_step(1)})
    assert found.index["scales"]["advantage"] == 1.0


def test_packed_values_come_back_and_hold_no_markup():
    value = {"text": "</script><script>\udc80é", "numbers": [1, None, 0.5]}
    packed = bundle.pack(value)
    assert not set(packed) & set("<>&\"'")
    assert json.loads(gzip.decompress(base64.b64decode(packed))) == value
    assert packed == bundle.pack(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        bundle.pack(math.inf)
