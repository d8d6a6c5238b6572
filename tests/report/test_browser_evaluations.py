"""Evaluations of the page in a real browser: bars, numbers, words, and the way to trajectories."""

import re

import pytest

pytest.importorskip("selenium.webdriver", reason="needs selenium")

from selenium.webdriver.common import keys

from tests.report import browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("usual_device"),
    pytest.mark.skipif(
        browser.DRIVER is None or browser.CHROMIUM is None,
        reason="needs chromium on PATH",
    ),
]


def test_bars_and_numbers_of_evaluations(page):
    page.open()
    rows = page.run(
        "return [...document.querySelectorAll('.bars tr')].map(row =>"
        " [...row.cells].map(cell => cell.textContent))"
    )
    ways = ["right", "wrong", "failed call", "badly formed", "no call", "cut off"]
    assert rows == [
        ["Evaluation", "Share of samples", *ways],
        ["sft-4 sampled2 problems, 8 samples", "", "0.250", "0.083", "0", "0", "0.583", "0.083"],
        ["sft-4 greedy2 problems, 2 samples", "", "0.500", "0.500", "0", "0", "0", "0"],
        ["train-2 sampled2 problems, 5 samples, 1 unknown", "", "0.667", "0.333", *4 * "0"],
        ["train-2 greedy2 problems, 2 samples", "", "0.500", "0.500", *4 * "0"],
    ]
    # Parts are as long as their shares, and none is of one pattern and color with another.
    parts = page.run(
        "return [...document.querySelectorAll('.bars tbody tr:first-child .shares i')].map(part =>"
        " [part.dataset.way, part.getBoundingClientRect().width])"
    )
    total = sum(width for _, width in parts)
    assert [(way, round(width / total, 2)) for way, width in parts] == [
        ("right", pytest.approx(0.25, abs=0.02)),
        ("wrong", pytest.approx(0.083, abs=0.02)),
        ("no call", pytest.approx(0.583, abs=0.02)),
        ("cut off", pytest.approx(0.083, abs=0.02)),
    ]
    looks = page.run(
        "return [...document.querySelectorAll('.bars .swatch')].map(e => getComputedStyle(e))"
        ".map(s => [s.backgroundImage, s.borderColor])"
    )
    assert len({image for image, _ in looks}) == len({color for _, color in looks}) == len(ways)


def test_a_gain_in_words_and_numbers(page):
    page.open()
    assert page.texts(".comparison summary") == ["From sft-4 to train-2: +0.417"]
    assert page.texts(".comparison p") == [
        "The share of right samples rises by 0.417 (standard error 0.083) over 2 problems: "
        "+0.250 on 1 problem that sft-4 solves greedily (surer of what it knew), "
        "+0.167 on 1 that it does not (learned). "
        "Among failures, “no call” falls most, by 0.583, and “wrong” rises most, by 0.250."
    ]
    tables = page.run(
        "return [...document.querySelectorAll('.gain')].map(table =>"
        " [...table.rows].slice(1).map(row => [...row.cells].map(cell => cell.textContent)))"
    )
    right = ["0.250", "0.667", "+0.417"]
    assert tables == [
        [
            ["wrong", "0.083", "0.333", "−0.250"],
            ["failed call", "0", "0", "0"],
            ["badly formed", "0", "0", "0"],
            ["no call", "0.583", "0", "+0.583"],
            ["cut off", "0.083", "0", "+0.083"],
            ["right", *right],
        ],
        [
            ["1 solved greedily before", "0.500", "1.000", "+0.250"],
            ["1 not solved greedily before", "0", "0.333", "+0.167"],
            ["2 in all", *right],
        ],
    ]


def test_a_mode_leads_to_its_trajectories(page):
    page.open(search="10", source="train")
    # The page holds those of one mode of one evaluation.
    assert page.texts(".bars button") == ["greedy"]
    page.run("document.querySelector('.bars button').focus()")
    page.press(keys.Keys.ENTER)
    assert page.run("return document.getElementById('source').value") == "evaluation/train-2/greedy"
    assert page.count == "2 groups, 2 of 26 trajectories"
    assert page.run("return document.activeElement.id") == "groups"


def luminance(color):
    """Relative luminance (WCAG 2.2) of a color such as `rgb(1, 2, 3)`."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_parts_of_a_bar_stand_out(page, scheme):
    browser.emulate(page.driver, scheme)
    page.open()
    behind, *outlines = page.run(
        "return [getComputedStyle(document.querySelector('.bars')).backgroundColor,"
        " ...[...document.querySelectorAll('.bars .swatch')]"
        ".map(e => getComputedStyle(e).borderTopColor)]"
    )
    for color in outlines:
        low, high = sorted((luminance(behind), luminance(color)))
        assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2.2, level AA, of graphics
