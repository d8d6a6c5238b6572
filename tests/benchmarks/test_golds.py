"""Expected answers of files against themselves and each other, and what their values say."""

import json
import random

import pytest

pytest.importorskip("math_verify")

from benchmarks import golds, golds_spellings, golds_values
from gtpo_jax.verifiers import KindVerifier

ANSWERS = [
    "12",
    "$\\frac{1}{2}$",
    "0.5",
    "$5$;$10$",
    "$(-\\infty, 1) \\cup [2, \\infty)$",
    "x = 3",
    "5\\text{ cm}",
    "\\$1,080",
    "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
    "No solution",
    "The triangle is isosceles, since two of its sides are equal.",
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"answer": answer}) + "\n" for answer in ANSWERS * 2))
    return path


def test_answers_equal_themselves_and_no_other(file):
    arguments = golds.GoldsArguments(files=(str(file),), pairs=30, workers=1)
    with KindVerifier("math", workers=1, seconds=60) as verifier:
        counts = golds.examine(verifier, str(file), arguments)
    assert (counts.golds, counts.spellings) == (11, 110)
    assert counts.pairs == 11 * 10 + 9 + 1  # the others; a digit changed; a sign changed
    assert (counts.unequal, counts.false, counts.unconfirmed) == ([], [], [])
    assert counts.right == 2  # 0.5 and 1/2, either way round
    assert counts.unreadable == 2
    measured = golds.figures({"answers": counts})
    assert measured["equal to themselves, in ten spellings"].holds
    assert measured["called right, values differ"].holds
    assert not measured["golds"].holds


def test_spellings_are_ten_and_differ():
    for answer in ANSWERS[:8]:
        written = golds_spellings.spellings(answer)
        assert len(written) == 10
        assert len(set(written.values())) >= 6, answer


def test_near_misses_change_a_digit_or_a_sign():
    draws = random.Random(0)
    assert list(golds_spellings.near_misses("7-x", draws)) == ["8-x", "7+x"]
    assert list(golds_spellings.near_misses("x>9", draws)) == ["x>0", "x<9"]
    assert list(golds_spellings.near_misses("no", draws)) == []


@pytest.mark.parametrize(
    ("record", "field", "expected"),
    [
        ({"answer": "so 3 #### 5"}, "", ["5"]),
        ({"solution": "thus \\boxed{x^{2}} holds"}, "", ["x^{2}"]),
        ({"answer": "1", "final_answer": ["$2$", "3"]}, "@final_answer", ["$2$", "3"]),
        ({"options": ["A)21", "B) 1/5"]}, "@options", ["21", "1/5"]),
        ({"answer": 7}, "", ["7"]),
    ],
)
def test_answer_is_found_in_its_field(tmp_path, record, field, expected):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert list(golds_spellings.golds(f"{path}{field}")) == expected


def test_file_without_the_field_is_an_error(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text('{"text": "5"}\n')
    with pytest.raises(ValueError, match=r"line 1: there is no field answer or final_answer"):
        list(golds_spellings.golds(str(path)))
    with pytest.raises(ValueError, match="line 1: there is no field gold"):
        list(golds_spellings.golds(f"{path}@gold"))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("$\\frac12$", "\\dfrac{2}{4}", True),
        ("(x+1)^2", "x^2+2x+1", True),
        ("(x+1)^2", "x^2+1", False),
        ("\\sqrt[3]{8}", "2", True),
        ("\\sin^2 x + \\cos^2 x", "1", True),
        ("1, 2", "2,1", True),
        ("(1, 2)", "(2,1)", False),
        ("[1, 2]", "(1,2)", False),
        ("1,000", "1000", True),
        ("x_1 + x_{2}", "x_2+x_1", True),
        ("\\log_2 8", "3", True),
        ("y = 2x", "2x", True),
        ("x=-1, x=0 or x=1", "x=-1,0,1", True),
        ("x=1, y=2", "x=2, y=1", False),
        ("7 \\cdot 8 = 56", "56", True),
        ("7 \\cdot 8 = 57", "57", False),
        ("x > 1", "x < 1", False),
        ("50\\%", "50", False),
        ("10 hours", "10", True),
        ("10 hours", "10 minutes", None),
        ("3 4", "7", None),
        ("No solution", "no solution.", True),
        ("no solution", "one solution", None),
        ("0.1666666667", "0.1666666677", True),
        ("1234567", "1234568", False),
        ("\\vec{a}", "a", None),
        ("", "1", None),
    ],
)
def test_evidence_is_what_the_values_say(first, second, same):
    assert golds_values.evidence(first, second) is same
    assert golds_values.evidence(second, first) is same
