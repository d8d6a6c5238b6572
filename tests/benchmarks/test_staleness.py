"""The comparison of stale samplers: the rule that chooses, shares that are kept, and the page."""

import dataclasses

import pytest

from benchmarks import staleness, staleness_page
from benchmarks import staleness_settings as settings
from configs.methods import make_method, split
from gtpo_jax.lab.learning import Settings
from gtpo_jax.lab.statistics import Interval
from gtpo_jax.lab.suite import Cell

EASY = Settings(updates=100, staleness=settings.OLD, noise=0.5)
WORLD = settings.WORLDS[1]


def tried(high, *, world=WORLD, on_policy=0.95, methods=settings.PLAIN, **changes):
    """Plain methods that keep at most `high` of their success at a setting."""
    at = dataclasses.replace(EASY, **changes)
    kept = Interval(high - 0.02, high - 0.04, high)
    return [
        settings.Tried(world=world, method=m, settings=at, on_policy=on_policy, kept=kept)
        for m in methods
    ]


def test_rule_takes_the_mildest_setting_in_which_every_plain_method_loses():
    harder = tried(0.5, noise=1.0)
    assert settings.choose([*tried(0.95), *harder]) == (WORLD, harder[0].settings)
    assert settings.choose([*harder, *tried(0.89)]) == (WORLD, EASY)
    faster = tried(0.5, learning_rate=0.15)
    stays = tried(0.5, noise_lasts=settings.LONG)
    assert settings.choose([*stays, *faster]) == (WORLD, stays[0].settings)
    assert settings.choose([*stays, *tried(0.8)]) == (WORLD, EASY)
    first = tried(0.8, world=settings.WORLDS[0])
    assert settings.choose([*tried(0.8), *first]) == (settings.WORLDS[0], EASY)


@pytest.mark.parametrize(
    "found",
    [
        tried(0.91),
        tried(0.5, on_policy=0.8),
        [*tried(0.5, methods=("grpo",)), *tried(0.95, methods=("gtpo",))],
    ],
)
def test_rule_takes_nothing_where_a_plain_method_keeps_or_never_learns(found):
    assert settings.choose(found) is None


def test_samplers_differ_in_age_noise_or_its_duration():
    points = settings.compared(EASY)
    assert len(set(points.values())) == len(points) == 10
    assert next(iter(points.values())) == dataclasses.replace(EASY, staleness=0, noise=0.0)
    assert EASY in points.values()
    assert {p.noise for p in points.values()} == {0.0, 0.5, 1.0}


def test_every_method_of_the_comparison_can_be_made():
    for plain in settings.PLAIN:
        for text in (plain, *settings.CORRECTED[plain], *settings.OTHERS.get(plain, ())):
            make_method(split(text))


def cells():
    """Corrections that keep everything and plain methods that keep half."""
    on_policy = [0.8, 1.0]
    return [
        Cell(
            method=method,
            world=name,
            updates=100,
            budgets=(),
            measures={
                "success": [
                    x * (0.5 if method == plain and point.staleness else 1.0) for x in on_policy
                ],
                "on_policy": on_policy,
            },
            curve=[0.1],
            seconds=0.0,
        )
        for plain in settings.PLAIN
        for method in (plain, *settings.CORRECTED[plain])
        for name, point in settings.compared(EASY).items()
    ]


def test_figures_hold_corrections_to_the_bar_and_plain_methods_to_a_loss():
    figures = staleness.figures_of(cells(), "16 old, noise 0.5")
    assert figures["lost_by_grpo"].value == pytest.approx(0.5)
    assert figures["kept_by_grpo_rejection_unit_turn"].value == pytest.approx(1.0)
    assert all(figure.holds for figure in figures.values())
    at_home = staleness.figures_of(cells(), "0 old, noise 0")
    assert not at_home["lost_by_gtpo"].holds


def test_page_tells_what_was_tried_and_what_is_kept(tmp_path, monkeypatch):
    found = tried(0.8)
    text = staleness_page.page(found, (WORLD, EASY), cells(), seeds=2, updates=100)
    row = "| difficulty | 0.05 | 0.5 | of a version | 0.950 | 0.780 [0.760, 0.800] |"
    assert text.count(row) == 1
    assert f"That is `{WORLD}` with learning rate 0.05, 16 old, noise 0.5 of a version." in text
    halves = " | ".join(["1.000 [1.000, 1.000]"] + ["0.500 [0.500, 0.500]"] * 3)
    assert text.count(f"| `grpo` | {halves} |") == 2
    nothing = staleness_page.page(found, None, [], seeds=2, updates=100)
    assert "None is hard enough." in nothing and "## Exact samplers" not in nothing
    monkeypatch.setattr(staleness_page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(staleness_page, "PICTURE", tmp_path / "picture.png")
    staleness_page.write(found, (WORLD, EASY), cells(), seeds=2, updates=100)
    assert (tmp_path / "picture.png").stat().st_size > 1000
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text
