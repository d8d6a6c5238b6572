"""The page as a text: it is whole, the same every time, and asks for nothing from elsewhere."""

import base64
import hashlib
import re

import pytest

from gtpo_jax.report.page import ASSETS, SCRIPTS, build_page
from tests.report import made

RECORDS = {"train": made.make_step(1)}


def test_equal_arguments_make_equal_pages():
    assert build_page(RECORDS, title="run") == build_page(RECORDS, title="run")


def test_the_page_names_no_address():
    page = build_page(RECORDS, title="run", runs={"run": {"train": made.make_metrics(5)}})
    addresses = set(re.findall(r"[a-z]+://[^\"'\s)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name space, never asked for
    assert set(re.findall(r"(?:src|href)=\"?([^\"\s>]*)", page)) == {"#groups", "data:,"}


def test_the_policy_allows_these_scripts_and_styles_alone():
    page = build_page(RECORDS, title="run")
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)

    def digest(text):
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    assert policy.split("; ") == [
        "default-src 'none'",
        f"script-src 'sha256-{digest(script)}'",
        f"style-src 'sha256-{digest(style)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_no_script_parses_markup():
    for name in SCRIPTS:
        source = (ASSETS / f"{name}.js").read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
            assert word not in source
    assert {path.stem for path in ASSETS.glob("*.js")} == set(SCRIPTS)


@pytest.mark.parametrize("title", ["</title><script>x()</script>", "{{STYLE}} {{TITLE}}"])
def test_a_title_is_text(title):
    page = build_page(RECORDS, title=title)
    assert page.count("<script>") == 1 and page.count("</title>") == 1


def test_without_trajectories_there_is_no_page():
    with pytest.raises(ValueError, match="no trajectory to show in train"):
        build_page({"train": []}, title="run")
