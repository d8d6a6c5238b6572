"""Cells, intervals, ranks, pictures, and the command."""

import json
import pathlib

import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.lab import learning, page, pictures, statistics, suite
from gtpo_jax.lab.suite import Arm, Cell, Missing
from gtpo_jax.lab.worlds import chain
from gtpo_jax.parts import credit
from gtpo_jax.parts.facts import Fact
from launch import lab

SETTINGS = learning.Settings(updates=12, groups=2, size=4)


def arms():
    fact = Fact("moon", None, "[M], its phase", "an almanac")
    needy = methods.add_link(methods.rloo(), credit.stateless(lambda x, e: x, needs=(fact,)))
    return (
        [Arm(name="rloo", value=methods.rloo()), Arm(name="needy", value=needy)],
        [Arm(name="chain", value=chain(needed=1, turns=3))],
    )


def test_cells_are_kept_and_a_second_run_reads_them(tmp_path, monkeypatch):
    chosen, worlds = arms()
    given = {"seeds": range(3), "settings": SETTINGS, "folder": tmp_path, "budgets": (6,)}
    cell, missing = suite.run_suite(chosen, worlds, **given)
    assert missing == Missing("needy", "chain", ("moon",))
    assert set(cell.measures) >= {"solved@6", "solved", "turns", "collapsed", "pushed_down"}
    assert all(len(values) == 3 for values in cell.measures.values()) and len(cell.curve) == 12
    monkeypatch.setattr(suite, "run_cell", lambda *a, **k: pytest.fail("ran again"))
    assert next(suite.run_suite(chosen, worlds, **given)) == cell
    with pytest.raises(pytest.fail.Exception, match="ran again"):
        list(suite.run_suite(chosen, worlds, **{**given, "seeds": range(2)}))
    assert [json.loads(p.read_text())["cell"]["method"] for p in tmp_path.glob("*")] == ["rloo"]


def test_measures_are_means_before_their_budget_and_tell_a_collapse():
    rising = np.concatenate([np.linspace(0, 1, 40), np.full(10, 0.3)])
    steady = np.linspace(0, 1, 50)
    values = np.stack([rising, steady])
    curves = learning.Curves(*[values] * len(learning.Curves._fields))
    found = suite.measures(curves, (20, 90))
    assert "solved@90" not in found
    np.testing.assert_allclose(found["solved@20"], values[:, 10:20].mean(1), atol=1e-6)
    np.testing.assert_allclose(found["solved"], values[:, 40:].mean(1), atol=1e-6)
    assert found["collapsed"] == [1.0, 0.0]


def test_intervals_cover_the_truth_and_equal_values_have_no_width():
    rng = np.random.default_rng(0)
    covered = sum(
        interval.low <= 0.3 <= interval.high
        for interval in (
            statistics.bootstrap(rng.random(64) < 0.3, resamples=300) for _ in range(200)
        )
    )
    assert 170 <= covered <= 199
    assert statistics.bootstrap([0.5] * 9) == (0.5, 0.5, 0.5)
    halves = statistics.ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert halves == (0.5, 0.5, 0.5)
    share = statistics.ratio([1.0, 2.0], [1.0, 4.0])
    assert share == (0.6, 0.5, 1.0)
    with pytest.raises(ValueError, match="share their seeds"):
        statistics.ratio([1.0], [1.0, 2.0])
    paired = statistics.difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    assert paired == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="at least one value"):
        statistics.bootstrap([])


def test_arms_whose_intervals_overlap_share_a_rank():
    interval = statistics.Interval
    ranks = statistics.ranks(
        {
            "best": interval(0.9, 0.85, 0.95),
            "tied": interval(0.84, 0.8, 0.88),
            "worse": interval(0.5, 0.4, 0.6),
            "worst": interval(0.1, 0.05, 0.39),
        }
    )
    assert ranks == {"best": 1, "tied": 1, "worse": 3, "worst": 4}


def make_cell(method, world, level):
    return Cell(
        method=method,
        world=world,
        updates=12,
        budgets=(6,),
        measures={
            name: [level, level + 0.01]
            for name in (
                "solved@6",
                "solved",
                "turns",
                "tokens",
                "collapsed",
                "first_turn_of_right",
            )
        },
        curve=[level] * 12,
        seconds=1.0,
    )


def test_page_ranks_methods_and_pictures_are_drawn(tmp_path):
    cells = [make_cell(m, w, x) for m, x in (("a", 0.2), ("b", 0.8)) for w in ("u", "v")]
    text = page.success_tables(cells)
    assert text.index("| `b` |") < text.index("| `a` |") and "### v" in text
    average = page.average_table([*cells, make_cell("c", "u", 0.1)])
    assert average.index("| `b` | 0.805") < average.index("| `a` | 0.205") and "`c`" not in average
    assert page.average_table(cells[:1]) == ""
    assert "0.805 [0.800, 0.810]" in text
    missing = page.missing_table([Missing("c", "u", ("moon",)), Missing("c", "v", ("moon",))])
    assert "| `c` | moon | u, v |" in missing
    lab.write_results(cells, [], tmp_path / "lab.md", head="# Results")
    pictures_of_it = {f"lab-{kind}.png" for kind in ("map", "profiles", "curves")}
    assert {p.name for p in tmp_path.iterdir()} == {"lab.md", *pictures_of_it}
    assert (tmp_path / "lab.md").read_text().startswith("# Results\n\n![Map](lab-map.png)")
    assert np.isnan(pictures.grid([*cells, make_cell("c", "u", 0.1)], "solved")[2, 1])


def test_quick_suite_is_that_of_the_makefile():
    makefile = (pathlib.Path(lab.__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    assert f"$(or $(ARGS),{' '.join(lab.QUICK)})" in makefile


def test_commands_print_an_audit_and_write_a_suite(tmp_path, capsys):
    lab.run(["audit", "rloo", "--world", "chain", "needed=1", "turns=2", "--size", "2"])
    said = capsys.readouterr().out
    assert "cosine with the exact gradient" in said and "all groups enumerated" in said
    options = ["--worlds", "chain", "--seeds", "2", "--updates", "12", "--budgets", "6", "90"]
    lab.run(["suite", "--methods", "rloo", *options, "--folder", str(tmp_path)])
    assert "| `rloo` |" in (tmp_path / "lab.md").read_text()
    for words in ("audit rlooo --world chain", "audit rloo --world chain needed=x"):
        with pytest.raises(ValueError, match=r"rlooo|must be an integer"):
            lab.run(words.split())
