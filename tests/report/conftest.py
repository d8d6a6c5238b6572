"""A browser, and a page in it."""

import importlib

import pytest

from gtpo_jax.report.page import build_page
from gtpo_jax.results.evaluation import RIGHT
from tests.outcomes import outcome, samples
from tests.report import made


def _browser():
    """`tests.report.browser`, which needs selenium: other tests of this folder do not."""
    return importlib.import_module("tests.report.browser")


@pytest.fixture(scope="package")
def driver():
    """One browser for all tests."""
    browser = _browser()
    with browser.started() as driver:
        yield driver


@pytest.fixture
def usual_device(driver):
    """A test begins with the same window as the others, and with an empty log."""
    browser = _browser()
    browser.resize(driver, *browser.SIZE)
    browser.emulate(driver, "light")
    driver.get_log("browser")
    driver.get_log("performance")


@pytest.fixture(scope="package")
def page(driver, tmp_path_factory):
    """Steps 1 and 2 of 4 groups of 3, trajectories of an evaluation, and two whole ones."""
    sources = {"train": made.make_step(1) + made.make_step(2)}
    sources["evaluation/train-2/greedy"] = made.make_step(20, groups=2, samples=1)
    runs = {"mine": {"train": made.make_metrics(20)}}
    greedy = [*samples("a", RIGHT), *samples("b", "wrong")]
    before = [*samples("a", RIGHT, "no call"), *samples("b", *4 * ["no call"], "wrong", "cut off")]
    after = [*samples("a", RIGHT, RIGHT), *samples("b", RIGHT, "wrong", "wrong")]
    evaluations = [
        made.make_held_out("sft-4", sampled=before, greedy=greedy),
        made.make_held_out(
            "train-2", sampled=[*after, outcome("b", 3, included=False)], greedy=greedy
        ),
    ]
    text = build_page(
        sources,
        title="mine",
        subtitle="GTPO",
        note="8 of 9",
        runs=runs,
        evaluations={"mine": evaluations},
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, encoding="utf-8")
    return _browser().Page(driver, path)
