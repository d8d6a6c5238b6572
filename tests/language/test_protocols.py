"""Tool protocols: what a turn's text says, and what it cannot say."""

import json

import pytest

from gtpo_jax.language.answers import UNCLOSED_ANSWER, read_answer
from gtpo_jax.language.grammar import NO_ACTION
from gtpo_jax.language.protocols import (
    CALL_AND_ANSWER,
    FENCE_NOT_ALONE,
    NO_CODE,
    NOT_JSON,
    NOT_UNICODE,
    UNCLOSED_CALL,
    UNCLOSED_THOUGHT,
    UNKNOWN_TOOL,
    UNOPENED_CALL,
    CodeTags,
    FencedPython,
    HermesCalls,
)

FENCED, TAGS, HERMES = FencedPython(), CodeTags(), HermesCalls()
ALL = pytest.mark.parametrize("protocol", [FENCED, TAGS, HERMES], ids=["fenced", "tags", "hermes"])
FENCE = "```"


def said(protocol, text, **settings):
    turn = protocol.parse(text, **settings)
    assert turn.text == text
    return turn.codes, turn.answer, turn.violation


def call(*codes):
    return codes, None, None


def wrong(violation):
    return (), None, violation


def answers(text):
    return (), text, None


def unrun(label):
    block = f"a block labeled {label!r}" if label else "a block without a label"
    rule = "is not run, those labeled python, py, ipython, tool_code are"
    return wrong(f"{NO_ACTION}; {block} {rule}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Go:\n{FENCE}python\nprint(1)\n{FENCE}", call("print(1)")),
        (f"{FENCE}py\nx\n{FENCE}\nand so on", call("x")),
        (f"{FENCE} Python \r\nx\r\n{FENCE} \r\n", call("x\r")),
        (f"{FENCE}python\n{FENCE}", call("")),
        (f"{FENCE}python\n\n{FENCE}", call("")),
        (f"{FENCE}python\nif x:\n\n    y\n{FENCE}", call("if x:\n\n    y")),
        # A fence inside the code: in a line that has more, or behind a longer fence.
        (f"{FENCE}python\ns = '{FENCE}'\n{FENCE}", call(f"s = '{FENCE}'")),
        (f"{FENCE}python\n{FENCE}text\n{FENCE}", call(f"{FENCE}text")),
        (f"`{FENCE}python\n{FENCE}\n`{FENCE}", call(FENCE)),
        (f"{FENCE}python\nx\n``{FENCE}", call("x")),
        # In a list, the code is indented with its fence.
        (f"1. a\n   {FENCE}python\n   if x:\n       y\n   {FENCE}", call("if x:\n    y")),
        # Other blocks are no calls, whatever they hold.
        (f"{FENCE}\nx\n{FENCE}", unrun("")),
        (f"{FENCE}text\nprint(1)\n{FENCE}", unrun("text")),
        (f"`{FENCE}markdown\n{FENCE}python\nx\n{FENCE}\n`{FENCE}", unrun("markdown")),
        (f"{FENCE}python\nx\n{FENCE}\n{FENCE}output", call("x")),
        (f"{FENCE}\n\\boxed{{3}}\n{FENCE}", unrun("")),
        (f"{FENCE}python-repl\nx\n{FENCE}", unrun("python-repl")),
        (f"{FENCE}python2\nx\n{FENCE}", unrun("python2")),
        (f"{FENCE}Bash\nls\n{FENCE}\nas said", unrun("Bash")),
        (f"{FENCE}bash\nls\n{FENCE}\n{FENCE}python\nx\n{FENCE}", call("x")),
        (f"{FENCE}bash\nls\n{FENCE}\n\\boxed{{4}}", answers("4")),
        # Labels that mean Python.
        (f"{FENCE}python3\nx\n{FENCE}", call("x")),
        (f"{FENCE}PYTHON3.11\nx\n{FENCE}", call("x")),
        (f"{FENCE}py3\nx\n{FENCE}", call("x")),
        (f"{FENCE}ipython3\nx\n{FENCE}", call("x")),
        (f"{FENCE}tool_code\nx\n{FENCE}", call("x")),
        (f"{FENCE}{{.python}}\nx\n{FENCE}", call("x")),
        (f"{FENCE}{{python}}\nx\n{FENCE}", call("x")),
        (f"{FENCE}{{python, echo=FALSE}}\nx\n{FENCE}", call("x")),
        (f"{FENCE}{{.python .numberLines}}\nx\n{FENCE}", call("x")),
        (f'{FENCE}python title="a b.py"\nx\n{FENCE}', call("x")),
        (f"{FENCE}python {{linenos=true}}\nx\n{FENCE}", call("x")),
        (f"{FENCE}python:src/a.py\nx\n{FENCE}", call("x")),
        (f"{FENCE}python main.py\nx\n{FENCE}", call("x")),
        (f"{FENCE}Python 3.11\nx\n{FENCE}", call("x")),
        (f"{FENCE}python linenums\nx\n{FENCE}", call("x")),
        (f"{FENCE}python import math\nx\n{FENCE}", wrong(FENCE_NOT_ALONE)),
        # Tildes, and fences in strings that are indented deeper than the block.
        ("~~~python\nx\n~~~~", call("x")),
        (f"~~~python\n{FENCE}\nx\n~~~", call(f"{FENCE}\nx")),
        (f"{FENCE}python\n~~~\n{FENCE}", call("~~~")),
        (
            f'{FENCE}python\n  """\n  {FENCE}\n  f()\n  {FENCE}\n  """\n{FENCE}',
            call(f'  """\n  {FENCE}\n  f()\n  {FENCE}\n  """'),
        ),
        (
            f'   {FENCE}py\n   def f():\n       """\n       {FENCE}\n       """\n   {FENCE}',
            call(f'def f():\n    """\n    {FENCE}\n    """'),
        ),
        (f"{FENCE}python\nx\n  {FENCE}\n", call("x")),
        (f"{FENCE}python\nx\n    {FENCE}\n", wrong(UNCLOSED_CALL)),
        # A block in an answer is the answer, whatever its label.
        (
            f"<answer>\n{FENCE}python\nx\n{FENCE}\n</answer>",
            answers(f"{FENCE}python\nx\n{FENCE}"),
        ),
        (f"<answer>{FENCE}py\nx\n{FENCE}</answer> is it", answers(f"{FENCE}py\nx\n{FENCE}")),
        (f"<answer>\n{FENCE}\nx\n{FENCE}\n</answer>", answers(f"{FENCE}\nx\n{FENCE}")),
        (f"<answer>\n{FENCE}python\nx\n</answer>", answers(f"{FENCE}python\nx")),
        (
            f"<answer>\n{FENCE}python\ns = '</answer>'\n{FENCE}\n</answer>",
            answers(f"{FENCE}python\ns = '</answer>'\n{FENCE}"),
        ),
        (f"<answer>\n{FENCE}python\nx\n{FENCE}\n", wrong(UNCLOSED_ANSWER)),
        (
            f"{FENCE}python\nx\n{FENCE}\n<answer>\n{FENCE}python\nx\n{FENCE}\n</answer>",
            wrong(CALL_AND_ANSWER),
        ),
        # Not well formed.
        (f"{FENCE}python\nx", wrong(UNCLOSED_CALL)),
        (f"{FENCE}python\nx{FENCE}", wrong(UNCLOSED_CALL)),
        (f"{FENCE}python\nx\n{FENCE} done", wrong(UNCLOSED_CALL)),
        (f"Go: {FENCE}python\nx\n{FENCE}", wrong(FENCE_NOT_ALONE)),
        (f"{FENCE}python x{FENCE}", wrong(FENCE_NOT_ALONE)),
        (f"{FENCE}python print(1)\n{FENCE}", wrong(FENCE_NOT_ALONE)),
        (f"Go: {FENCE}tool_code\nx\n{FENCE}", wrong(FENCE_NOT_ALONE)),
        (f"{FENCE}python\nx\n{FENCE}\n\\boxed{{3}}", wrong(CALL_AND_ANSWER)),
        (f"{FENCE}python\nx\n{FENCE}\n\\boxed{{3", wrong(CALL_AND_ANSWER)),
        (f"{FENCE}python\nprint('\\boxed{{3}}')\n{FENCE}", call("print('\\boxed{3}')")),
        (f"{FENCE}python\nx\n{FENCE}\nThen I answer in \\boxed{{}}.", call("x")),
        ("print(1)", wrong(NO_ACTION)),
        ("", wrong(NO_ACTION)),
    ],
)
def test_fenced_block_is_a_call(text, expected):
    assert said(FENCED, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Go: <code>print(1)</code>", call("print(1)")),
        ("<code>\nprint(1)\n</code>", call("print(1)")),
        ("<code>\n\n x\n\n</code>", call("\n x\n")),
        ("<code></code>", call("")),
        (f"<code>\n{FENCE}python\nprint(1)\n{FENCE}\n</code>", call("print(1)")),
        (f"<code>{FENCE}\nx\n{FENCE}</code>", call("x")),
        # Of whatever label, length, sign and indentation, closed or not.
        (f"<code>\n{FENCE}Python3\nx\n{FENCE}\n</code>", call("x")),
        (f"<code>\n{FENCE}python\nx\n</code>", call("x")),
        (f"<code>\n`{FENCE}py\n{FENCE}\n`{FENCE}\n</code>", call(FENCE)),
        ("<code>~~~python\nx\n~~~</code>", call("x")),
        (f"<code>\n\t{FENCE}python\n\tif x:\n\t\ty\n\t{FENCE}\n</code>", call("if x:\n\ty")),
        (
            f"<code>\n    {FENCE}python\n    if x:\n        y\n    {FENCE}\n</code>",
            call("if x:\n    y"),
        ),
        (f"<code>\n{FENCE}bash\nx\n{FENCE}\n</code>", call(f"{FENCE}bash\nx\n{FENCE}")),
        (f"<code>\nx\n{FENCE}\ny\n{FENCE}\n</code>", call(f"x\n{FENCE}\ny\n{FENCE}")),
        ("<code>s = '<code>'</code>", call("s = '<code>'")),
        ("<code>'<answer>4</answer>'</code>", call("'<answer>4</answer>'")),
        ("<code>x", wrong(UNCLOSED_CALL)),
        ("x</code>", wrong(UNOPENED_CALL)),
        # The first closing tag ends the call: code cannot hold one.
        ("<code>s = '</code>'</code>", wrong(UNOPENED_CALL)),
        ("<code>x</code><answer>4</answer>", wrong(CALL_AND_ANSWER)),
        ("<think>\nhm <code>x</code>", call("x")),
        ("<think>\\boxed{3}</think>\\boxed{4}", ((), "4", None)),
        ("<think>\\boxed{3}</think>", wrong(NO_ACTION)),
        ("<think>hm <code>x</code> \\boxed{3}", call("x")),
        ("code: x", wrong(NO_ACTION)),
    ],
)
def test_tags_enclose_a_call(text, expected):
    assert said(TAGS, text) == expected


def hermes(value):
    return f"<tool_call>\n{value if isinstance(value, str) else json.dumps(value)}\n</tool_call>"


GOOD = {"name": "python", "arguments": {"code": "x"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Go:\n{hermes(GOOD)}", call("x")),
        (f"<tool_call>{json.dumps(GOOD)}</tool_call> more", call("x")),
        (hermes(json.dumps(GOOD, indent=2)), call("x")),
        # Tags inside a string are text.
        (hermes(GOOD | {"arguments": {"code": "'</tool_call>'"}}), call("'</tool_call>'")),
        (hermes(GOOD | {"arguments": {"code": "'<tool_call>'"}}), call("'<tool_call>'")),
        (hermes(GOOD | {"arguments": {"code": "\\boxed{3}"}}), call("\\boxed{3}")),
        (hermes(GOOD | {"arguments": {"code": 'é\n\t"\\'}}), call('é\n\t"\\')),
        (hermes('{"name": "python", "arguments": {"code": "\\u00e9"}}'), call("é")),
        (hermes(GOOD | {"id": 1, "arguments": {"code": "x", "timeout": 9}}), call("x")),
        # As models write it that are not strict.
        (hermes('{"name": "python", "arguments": {"code": "a\n\tb"}}'), call("a\n\tb")),
        (hermes({"name": "python", "parameters": {"code": "x"}}), call("x")),
        (hermes(GOOD | {"arguments": None, "parameters": {"code": "y"}}), call("y")),
        (hermes(GOOD | {"arguments": '{"code": "x"}'}), call("x")),
        (hermes(GOOD | {"arguments": '{"code": "a\nb"}'}), call("a\nb")),
        (hermes(f"{FENCE}json\n{json.dumps(GOOD)}\n{FENCE}"), call("x")),
        (hermes(f"{FENCE}\n{json.dumps(GOOD, indent=1)}\n{FENCE}\n"), call("x")),
        # Malformed.
        (hermes("{'name': 'python'}"), wrong(NOT_JSON)),
        (hermes('{"name": "python", "arguments": {"code": "x"}'), wrong(NOT_JSON)),
        (hermes(json.dumps(GOOD) + "}"), wrong(NOT_JSON)),
        (hermes(""), wrong(NOT_JSON)),
        (hermes("print(1)"), wrong(NOT_JSON)),
        (hermes([GOOD]), wrong(NOT_JSON)),
        (hermes("[" * 100_000), wrong(NOT_JSON)),
        (hermes("1" * 10_000), wrong(NOT_JSON)),
        (hermes('"python"'), wrong(NOT_JSON)),
        (hermes(GOOD | {"name": "bash"}), wrong(UNKNOWN_TOOL)),
        (hermes(GOOD | {"name": ["python"]}), wrong(UNKNOWN_TOOL)),
        (hermes({"arguments": {"code": "x"}}), wrong(UNKNOWN_TOOL)),
        (hermes({"name": "python"}), wrong(NO_CODE)),
        (hermes(GOOD | {"arguments": {}}), wrong(NO_CODE)),
        (hermes(GOOD | {"arguments": {"code": 1}}), wrong(NO_CODE)),
        (hermes(GOOD | {"arguments": {"code": None}}), wrong(NO_CODE)),
        (hermes(GOOD | {"arguments": "x"}), wrong(NO_CODE)),
        (hermes(GOOD | {"arguments": "[" * 100_000}), wrong(NO_CODE)),
        (hermes(GOOD | {"arguments": {"code": "\ud800"}}), wrong(NOT_UNICODE)),
        (f"<tool_call>\n{json.dumps(GOOD)}", wrong(UNCLOSED_CALL)),
        ("<tool_call>", wrong(UNCLOSED_CALL)),
        (f"{json.dumps(GOOD)}</tool_call>", wrong(UNOPENED_CALL)),
        (f"{hermes(GOOD)}</tool_call>", wrong(UNOPENED_CALL)),
        (f"{hermes(GOOD)}\\boxed{{4}}", wrong(CALL_AND_ANSWER)),
        (json.dumps(GOOD), wrong(NO_ACTION)),
    ],
)
def test_json_between_tags_is_a_call(text, expected):
    assert said(HERMES, text) == expected


@pytest.mark.parametrize(
    ("text", "answer", "violation"),
    [
        ("It is \\boxed{4}.", "4", None),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", None),
        ("\\boxed {4}", "4", None),
        ("\\boxed{ 4 }", "4", None),
        ("\\boxed{}", "", None),
        ("\\boxed{3} no, \\boxed{4}", "4", None),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}", None),
        ("\\boxed{\\left\\{ x \\right.}", "\\left\\{ x \\right.", None),
        ("\\boxed{a \\\\}", "a \\\\", None),
        ("\\boxed{x\n}", "x", None),
        ("<answer> 4 </answer>", "4", None),
        ("<answer>\\boxed{4}</answer>", "4", None),
        ("<answer>3</answer> or <answer>4</answer>", "4", None),
        ("\\boxed{3} <answer>4</answer>", "4", None),
        ("<answer></answer>", "", None),
        ("\\boxed{4", None, UNCLOSED_ANSWER),
        ("\\boxed{4\\}", None, UNCLOSED_ANSWER),
        ("\\boxed{\\frac{1}{2}", None, UNCLOSED_ANSWER),
        ("<answer>4", None, UNCLOSED_ANSWER),
        ("<answer>\\boxed{4</answer>", None, UNCLOSED_ANSWER),
        ("boxed{4} 4</answer>", None, None),
        # Other boxes, and boxes without braces.
        ("So \\fbox{\\frac{1}{2}}", "\\frac{1}{2}", None),
        ("So $\\boxed 5$.", "5", None),
        ("\\(\\boxed5\\)", "5", None),
        ("So \\boxed -1,080.", "-1,080", None),
        ("$\\boxed\\frac{1}{2}$", "\\frac{1}{2}", None),
        ("$\\boxed\\text{of two words}$", "\\text{of two words}", None),
        ("$\\boxed \\$18$", "\\$18", None),
        ("It is \\boxed B.", "B", None),
        ("(see \\boxed 5)", "5", None),
        ("\\boxed{\\boxed{5}}", "5", None),
        ("\\boxed{\\text{no}}", "\\text{no}", None),
        # Prose about boxes.
        ("the answer goes in \\boxed and nowhere else", None, None),
        ("in \\boxed, or in `\\boxed`, or \\boxedfoo{3}", None, None),
        ("give \\boxed a number", None, None),
        # An empty one speaks of answers, where there is another.
        ("\\boxed{5}\n\nI gave the final answer in \\boxed{}.", "5", None),
        ("\\boxed{5}\nThe form is \\boxed{...}, or \\boxed{\\ldots}.", "5", None),
        ("I shall answer in \\boxed{…}", "", None),
        ("<answer>...</answer>", "...", None),
        ("<answer>5</answer> between <answer></answer>", "5", None),
        ("\\boxed{5} and <answer> </answer>", "5", None),
        # Nothing is read in blocks that nobody runs, be they closed or not.
        ("\\boxed{8}\n~~~text\n\\boxed{7}\n~~~", "8", None),
        (f"\\boxed{{8}}\n{FENCE}text\n<answer>7</answer>\n{FENCE}", "8", None),
        (f"\\boxed{{8}}\n{FENCE}\n\\boxed{{7}}", "8", None),
        # Nor in thoughts, wherever they begin.
        ("so <think>\\boxed{3}</think> \\boxed{4}", "4", None),
        ("\\boxed{3} </think> \\boxed{4}", "4", None),
        ("so <think>\\boxed{3}", None, UNCLOSED_THOUGHT),
        ("\\boxed{4} <think>or \\boxed{3}", None, UNCLOSED_THOUGHT),
        # The first of several lines keeps its indentation.
        ("<answer>    x\n    y\n</answer>", "    x\n    y", None),
        ("<answer>\n    x\n    y\n</answer>", "    x\n    y", None),
        ("<answer> x\n    y</answer>", "x\n    y", None),
        ("<answer>\n    x\n</answer>", "x", None),
    ],
)
def test_answer_is_the_last_of_the_turn(text, answer, violation):
    # The last box counts.
    if violation is not None:
        assert read_answer(text) == (None, violation)
    else:
        assert read_answer(text) == (answer, None)
    for protocol in (FENCED, TAGS, HERMES):
        expected = NO_ACTION if answer is None and violation is None else violation
        assert said(protocol, text) == ((), answer, expected)


@ALL
def test_no_answer_is_read_in_a_thought_that_is_not_closed(protocol):
    for text, in_thought in (("so \\boxed{1}", True), ("<think>so \\boxed{1}", False)):
        assert said(protocol, text, in_thought=in_thought) == wrong(UNCLOSED_THOUGHT)
    assert said(protocol, "hm</think><answer>3</answer>", in_thought=True) == answers("3")


@pytest.mark.parametrize("protocol", [TAGS, HERMES], ids=["tags", "hermes"])
def test_block_of_python_is_no_answer_where_it_is_no_call(protocol):
    block = f"{FENCE}python\nprint('\\boxed{{7}} <answer>7</answer>')\n{FENCE}"
    tags = f"a call stands between {protocol.opening} and {protocol.closing}"
    assert said(protocol, block) == wrong(f"{NO_ACTION}; a block of Python is not run, {tags}")
    assert said(protocol, block.replace("python", "text")) == wrong(NO_ACTION)
    assert said(protocol, f"It is \\boxed{{8}}.\nCheck:\n{block}") == answers("8")
    assert said(protocol, f"<answer>{block}</answer>") == answers(block)


@ALL
def test_turn_without_marks_is_an_answer_where_programs_are_asked_for(protocol):
    program = "    if x:\n        return 1\n    return 2"
    for text, answer in (
        (program, program),
        (f"<think>hm\n{FENCE}</think>\n{program}\n", program),
        (f"So:\n{FENCE}\nx\n{FENCE}", f"So:\n{FENCE}\nx\n{FENCE}"),
        ("return 1 if x else \\boxed{}", "return 1 if x else \\boxed{}"),
        ("return <answer>4</answer>", "4"),
    ):
        assert said(protocol, text, unmarked=True) == answers(answer)
    assert said(protocol, protocol.call("x"), unmarked=True) == call("x")
    assert said(protocol, "<think>x", unmarked=True) == wrong(UNCLOSED_THOUGHT)
    assert said(protocol, "<think>x</think>\n", unmarked=True) == wrong(NO_ACTION)


@pytest.mark.parametrize("protocol", [FENCED, HERMES], ids=["fenced", "hermes"])
def test_thoughts_neither_call_nor_answer(protocol):
    idea = f"{protocol.call('x')} \\boxed{{3}} "
    assert said(protocol, f"<think>{idea}</think>\\boxed{{4}}") == ((), "4", None)
    assert said(protocol, f"{idea}</think>\n{protocol.call('y')}", in_thought=True) == call("y")
    assert said(protocol, f"\n<think>{idea}</think>") == wrong(NO_ACTION)
    assert said(protocol, f"<think>{idea}") == wrong(UNCLOSED_THOUGHT)
    assert said(protocol, idea, in_thought=True) == wrong(UNCLOSED_THOUGHT)
    # Only what a turn begins with is a thought.
    code = "print('</think>')"
    assert said(protocol, f"so\n{protocol.call(code)}") == call(code)


@ALL
def test_turn_holds_no_more_calls_than_allowed(protocol):
    calls = "\n".join(map(protocol.call, "abc"))
    assert said(protocol, calls, most_calls=3) == call("a", "b", "c")
    codes, _, violation = said(protocol, calls, most_calls=2)
    assert codes == () and "3 calls" in violation and "2" in violation
    assert said(protocol, protocol.call("a"))[2] is None


@ALL
def test_one_call_that_is_not_well_formed_undoes_the_others(protocol):
    text = f"{protocol.call('a')}\n{protocol.call('b')[:-3]}"
    assert said(protocol, text, most_calls=9) == wrong(UNCLOSED_CALL)
