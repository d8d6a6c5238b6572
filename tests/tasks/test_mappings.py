"""Ready mappings, on records of the form that their data sets publish (the contents are ours)."""

import hypothesis
import hypothesis.strategies as st
import pytest

from gtpo_jax.tasks.mappings import MAPPINGS, LeftOut
from gtpo_jax.tasks.mappings.fields import number
from gtpo_jax.tasks.mappings.maths import last_boxed
from gtpo_jax.tools import PythonExecutor
from gtpo_jax.verifiers.unit_tests import run_unit_tests


def convert(name, record):
    return MAPPINGS[name].convert(record)


def problem(name, record):
    return convert(name, record).problem


@pytest.mark.parametrize(
    ("end", "answer"),
    [
        ("#### 18", "18"),
        ("#### 1,450", "1450"),
        ("#### 12,345,678.50", "12345678.50"),
        ("####-7", "-7"),
        ("#### $20.0 \n", "20"),
        ("#### 5\nNo:\n#### 6", "6"),
    ],
)
def test_gsm8k_answer_stands_after_the_mark(end, answer):
    record = {"question": " How many? ", "answer": f"He has <<9+9=18>>18.\n{end}"}
    found = problem("gsm8k", record)
    assert (found.question, found.answer) == ("How many?", answer)
    assert (found.verifier, found.family) == ("numeric", "gsm8k")


@pytest.mark.parametrize("answer", ["18", "####", "#### many", "#### 1,2", "#### 3 pens"])
def test_gsm8k_without_a_number_is_refused(answer):
    with pytest.raises(ValueError, match="`answer` must end with #### and a number"):
        convert("gsm8k", {"question": "q", "answer": answer})


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"$\boxed{1}$, no: $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{ \left\{ x \mid x^{2} > 1 \right\} }", r"\left\{ x \mid x^{2} > 1 \right\}"),
        (r"\boxed{\{1\}} and then {", r"\{1\}"),
        (r"\boxed{\left\{0,1\right)}", r"\left\{0,1\right)"),
        (r"\boxed{a\\{b}}", r"a\\{b}"),
        (r"$\boxed 7$", "7"),
        (r"$\boxed\pi$", r"\pi"),
        (r"\fbox{C}", "C"),
        (r"\boxed {12}", "12"),
        (r"\boxed{4} but \boxed{never closed", "4"),
        (r"\boxed{8} \boxed{}", "8"),
    ],
)
def test_last_box_is_read_with_balanced_braces(solution, answer):
    assert last_boxed(solution) == answer


@pytest.mark.parametrize("solution", ["", "5", r"\boxed{", r"\boxed", "boxed{5}", r"\boxed{ }"])
def test_no_box_is_none(solution):
    assert last_boxed(solution) is None


latex = st.recursive(
    st.text("ab1+ ", min_size=1),
    lambda inner: st.lists(inner).map(lambda parts: "{" + "".join(parts) + "}"),
)


@hypothesis.given(latex, latex)
@hypothesis.settings(max_examples=50, deadline=None)
def test_box_around_balanced_text_gives_it_back(before, content):
    hypothesis.assume(content.strip())
    assert last_boxed(rf"\boxed{{{before}}} so $\boxed{{{content}}}$") == content.strip()


def test_math():
    record = {
        "problem": "Find $x$.",
        "level": "Level 3",
        "type": "Algebra",
        "solution": r"It is $\boxed{\frac{3}{4}}$.",
    }
    entry = convert("math", record)
    assert entry.problem.answer == r"\frac{3}{4}" and entry.expression is None
    assert (entry.problem.family, entry.problem.verifier) == ("Algebra", "math")
    with pytest.raises(ValueError, match=r"`solution` has no \\boxed answer, it ends …'It is 5\.'"):
        convert("math", record | {"solution": "It is 5."})


def test_math_500():
    record = {
        "problem": "Find $x$.",
        "solution": r"\boxed{9}",
        "answer": r"\left( 3, \frac{\pi}{2} \right)",
        "subject": "Precalculus",
        "level": 2,
        "unique_id": "test/precalculus/807.json",
    }
    found = problem("math-500", record)
    assert found.answer == record["answer"] and found.id == record["unique_id"]
    assert (found.family, found.verifier) == ("Precalculus", "math")


@pytest.mark.parametrize(
    ("name", "record", "identity", "answer"),
    [
        ("aime24", {"ID": "2024-II-4", "Problem": "q", "Answer": 33}, "2024-II-4", "33"),
        ("aime24", {"id": 60, "problem": "q", "answer": "025", "year": "2024"}, "60", "25"),
        ("aime24", {"id": 0, "problem": "q", "solution": r"\boxed{204}"}, "0", "204"),
        ("aime25", {"problem": "q", "answer": "70", "id": "0"}, "0", "70"),
        ("aime25", {"problem_idx": 3, "problem": "q", "answer": 70}, "3", "70"),
        ("aime25", {"question": "q", "answer": r"336^\circ"}, "", "336"),
        ("amc23", {"id": 2, "question": "q", "answer": 27.0, "url": "x/2023_AMC_12A"}, "2", "27"),
        ("amc23", {"id": "amc23-1", "question": "q", "answer": "-9.5"}, "amc23-1", "-9.5"),
    ],
)  # fmt: skip
def test_competitions_in_their_variants(name, record, identity, answer):
    found = problem(name, record)
    assert (found.id, found.question, found.answer) == (identity, "q", answer)
    assert (found.family, found.verifier) == (name, "math")


@pytest.mark.parametrize(
    "told", [{"year": 2023}, {"url": "a/2023_AIME_II_Problems/1"}, {"ID": "2023-I-4"}]
)
def test_competition_of_another_year_is_left_out(told):
    record = {"problem": "q", "answer": 5, **told}
    assert convert("aime24", record) == LeftOut("of another year than 2024")


@pytest.mark.parametrize("answer", ["1000", "-3", "2.5", "x"])
def test_answer_that_no_aime_has_is_refused(answer):
    with pytest.raises(ValueError, match="from 0 to 999, got"):
        convert("aime25", {"problem": "q", "answer": answer})


def test_competition_without_an_answer_is_refused():
    with pytest.raises(ValueError, match=r"there is no `answer`, and no \\boxed one"):
        convert("aime24", {"problem": "q", "solution": "guess"})
    with pytest.raises(ValueError, match="`problem` must be a text or a number, got None"):
        convert("aime24", {"answer": 4})


def test_svamp():
    record = {
        "ID": "chal-1",
        "Body": "Each pack costs 76 dollars, and there is a discount of 25 dollars.",
        "Question": "What does a pack cost?",
        "Equation": "( 76.0 - 25.05 )",
        "Answer": 51.0,
        "Type": "Subtraction",
    }
    entry = convert("svamp", record)
    assert entry.problem.question == f"{record['Body']} What does a pack cost?"
    assert (entry.problem.answer, entry.expression) == ("51", "( 76 - 25.05 )")
    assert (entry.problem.id, entry.problem.family) == ("chal-1", "Subtraction")
    assert convert("svamp", record | {"Equation": None}).expression is None


DAPO = {
    "data_source": "math_dapo",
    "prompt": [
        {
            "role": "user",
            "content": "Solve the following math problem step by step. End with $Answer.\n\n"
            "Let $x$ be.\n\nFind $x$.\n\nRemember to put your answer on its own line.",
        }
    ],
    "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "9a9b-6eb4"},
}


def test_dapo_question_is_taken_out_of_its_instructions():
    found = problem("dapo-math", DAPO)
    assert found.question == "Let $x$ be.\n\nFind $x$."
    assert (found.id, found.answer, found.verifier) == ("9a9b-6eb4", "34", "math")
    bare = DAPO | {"prompt": [{"role": "user", "content": "Find $x$."}]}
    assert problem("dapo-math", bare).question == "Find $x$."


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": "text"}, "`prompt` must be a list of one message, got 'text'"),
        ({"prompt": DAPO["prompt"] * 2}, "`prompt` must be a list of one message"),
        ({"prompt": [{"role": "user"}]}, "`content` must be a text"),
        ({"prompt": [{"content": "Solve the following math problem."}]}, "has no question"),
        ({"reward_model": None}, "`reward_model` must be an object, got None"),
        ({"reward_model": {}}, "`ground_truth` must be a text or a number, got None"),
    ],
)
def test_dapo_of_another_form_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        convert("dapo-math", DAPO | change)


CHOICES = {"label": ["A", "B", "C"], "text": ["ignore", "enforce", "yell"]}


def test_choices_are_shown_and_the_answer_is_a_letter():
    record = {"id": "x7", "question": "What?", "choices": CHOICES, "answerKey": "B"}
    found = problem("commonsenseqa", record)
    assert found.question.startswith("What?\nA. ignore\nB. enforce\nC. yell\n")
    assert "letter" in found.question.splitlines()[-1]
    assert (found.id, found.answer, found.verifier) == ("x7", "B", "choice")
    assert found.choices == ("ignore", "enforce", "yell")


def test_labels_of_relatives_become_letters():
    listed = [{"label": str(i), "text": f"t{i}"} for i in range(1, 5)]
    record = {"question_stem": "What?", "choices": listed, "answerKey": "3"}
    found = problem("commonsenseqa", record)
    assert found.answer == "C" and found.choices[2] == "t3"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answerKey": ""}, "`answerKey` must be a text or a number, got ''"),
        ({"answerKey": "E"}, "`answerKey` must be one of the labels A, B, C, got 'E'"),
        ({"choices": None}, "`choices` must be an object, got None"),
        ({"choices": {"label": ["A", "B"], "text": ["one"]}}, "one text for each label"),
        ({"choices": {"label": ["A"], "text": ["one"]}, "answerKey": "A"}, "2 to 26 choices"),
    ],
)
def test_choices_of_another_form_are_refused(change, reason):
    record = {"question": "What?", "choices": CHOICES, "answerKey": "B"}
    with pytest.raises(ValueError, match=reason):
        convert("commonsenseqa", record | change)


@pytest.mark.parametrize(
    ("answer", "letter"), [(True, "A"), (False, "B"), ("no", "B"), ("True", "A")]
)
def test_strategyqa_offers_yes_and_no(answer, letter):
    found = problem("strategyqa", {"qid": "q1", "question": "Is it?", "answer": answer})
    assert (found.id, found.answer, found.choices) == ("q1", letter, ("yes", "no"))
    assert "A. yes\nB. no" in found.question
    with pytest.raises(ValueError, match="`answer` must be true or false, got 1"):
        convert("strategyqa", {"question": "Is it?", "answer": 1})


HUMANEVAL = {
    "task_id": "HumanEval/32",
    "prompt": 'import math\n\n\ndef poly(xs, x):\n    """Evaluates."""\n'
    "    return sum(c * math.pow(x, i) for i, c in enumerate(xs))\n\n\n"
    'def find_zero(xs):\n    """ The zero of xs[0] + xs[1] x.\n'
    '    >>> find_zero([1, 2])\n    -0.5\n    """\n',
    "entry_point": "find_zero",
    "canonical_solution": "    return -xs[0] / xs[1]\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    for xs in ([1, 2], [-3, 4]):\n"
    "        assert math.fabs(poly(xs, candidate(xs))) < 1e-4\n",
}  # fmt: skip
MBPP = {
    "task_id": 126,
    "text": "Write a function to find the sum of common divisors.",
    "code": "import math\r\ndef sum(a, b):\r\n    return divisors(math.gcd(a, b))\r\n"
    "def divisors(n):\r\n    total = 0\r\n    for d in range(1, n + 1):\r\n"
    "        total += d if n % d == 0 else 0\r\n    return total",
    "test_list": ["assert sum(10, 15) == 6", "assert sum(100, 150) == 93"],
    "test_setup_code": "",
    "challenge_test_list": [],
}


def test_humaneval_asks_for_the_function():
    found = problem("humaneval", HUMANEVAL)
    assert found.id == "HumanEval/32" and HUMANEVAL["prompt"].strip() in found.question
    assert "program" in found.question.splitlines()[0]
    tests = found.unit_tests
    assert tests.names == ("find_zero",) and tests.prompt == HUMANEVAL["prompt"]
    assert tests.tests[0].endswith("\ncheck(find_zero)") and found.verifier == "unit_tests"


def test_mbpp_shows_its_tests_and_names_what_they_call():
    found = problem("mbpp", MBPP)
    assert found.id == "126" and "assert sum(10, 15) == 6\n" in found.question
    assert found.unit_tests.names == ("sum",) and found.unit_tests.setup == ""
    sanitized = {key: MBPP[key] for key in ("task_id", "code", "test_list")}
    sanitized |= {"prompt": "Write it.", "test_imports": ["import math", "import re"]}
    found = problem("mbpp", sanitized)
    assert found.question.startswith("Write it.\n")
    assert found.unit_tests.setup == "import math\nimport re"


@pytest.mark.slow
def test_programs_are_judged_as_published():
    """The reference passes and a wrong program does not, with the tool that judges in a run."""
    wrong = {
        "humaneval": HUMANEVAL["prompt"].replace("math.pow(x, i)", "0") + "    return 0\n",
        "mbpp": "def sum(a, b):\n    return 6",
    }
    with PythonExecutor(max_running=2) as tool:
        for name, record in (("humaneval", HUMANEVAL), ("mbpp", MBPP)):
            found = problem(name, record)
            tests = found.unit_tests
            for program, expected in ((found.answer, True), (wrong[name], False)):
                outcomes = run_unit_tests(
                    tool, program, tests.tests, setup=tests.setup, names=tests.names, timeout=20
                )
                assert all(outcome.passed for outcome in outcomes) == expected, outcomes


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("humaneval", HUMANEVAL | {"entry_point": "other"}, "defines no function 'other'"),
        ("humaneval", HUMANEVAL | {"prompt": "def f(:"}, "`prompt` is not Python"),
        ("humaneval", HUMANEVAL | {"test": None}, "`test` must be a text, got None"),
        ("mbpp", MBPP | {"test_list": []}, "`test_list` is empty"),
        ("mbpp", MBPP | {"test_list": ["assert f(1)"]}, "calls nothing that `code` defines"),
        ("mbpp", MBPP | {"test_list": ["assert ("]}, "`test_list` is not Python"),
        ("mbpp", MBPP | {"test_list": "assert 1"}, "`test_list` must be a list of texts"),
        ("mbpp", MBPP | {"code": "def"}, "`code` is not Python"),
    ],
)
def test_programs_of_another_form_are_refused(name, record, reason):
    with pytest.raises(ValueError, match=reason):
        convert(name, record)


def test_programs_with_doubtful_escapes_are_read():
    tests = {"test_list": [r"assert sum('\d', 1) == 6"], "code": "def sum(a, b): return '\\d'"}
    assert problem("mbpp", MBPP | tests).unit_tests.tests == tuple(tests["test_list"])


@pytest.mark.parametrize("name", MAPPINGS)
def test_record_without_fields_names_one_of_those_expected(name):
    with pytest.raises(ValueError, match="`") as raised:
        convert(name, {})
    field = str(raised.value).split("`")[1]
    assert field in MAPPINGS[name].expects


@pytest.mark.parametrize(
    ("written", "plain"),
    [("3", "3"), ("3.0", "3"), ("3.", "3"), ("+3.50", "+3.50"), ("007", "7"), ("1,000", "1000"),
     ("1,000.50", "1000.50"), ("1,2", "1,2"), ("-0.0", "0"), ("1e3", "1e3"), ("x.0", "x.0")],
)  # fmt: skip
def test_numbers_lose_what_says_nothing(written, plain):
    assert number(written) == plain
