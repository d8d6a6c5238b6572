"""The benchmark of HumanEval's programs, on problems of the same form."""

import gzip
import json

import pytest

from benchmarks import human_eval

PROMPT = 'def {name}(xs):\n    """ The {name} of numbers.\n    >>> {name}([1, 2])\n    """\n'
BODY = "    found = xs[0]\n    for x in xs:\n        found = {better}(x, found)\n    return found\n"
TEST = "def check(candidate):\n    assert candidate([3, 1, 2]) == {right}\n"


def record(number, name, better, right):
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": PROMPT.format(name=name),
        "canonical_solution": BODY.format(better=better),
        "test": TEST.format(right=right),
        "entry_point": name,
    }


@pytest.mark.slow
def test_every_program_is_right_in_every_form_but_one_that_is_wrong(tmp_path, capsys):
    records = [record(0, "most", "max", 3), record(1, "least", "min", 1)]
    records.append(record(2, "best", "min", 3))  # the program does not pass its test
    with gzip.open(tmp_path / "some.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, records)))
    path = tmp_path / "figures.json"
    human_eval.run([str(tmp_path / "some.jsonl.gz"), "--json", str(path)])
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    assert len(figures) == 3 * len(human_eval.FORMS) + len(human_eval.MARKED)
    assert {(figure["value"], figure["holds"]) for figure in figures.values()} == {(2, False)}
    assert "FencedPython, fence alone: HumanEval/2 is wrong" in capsys.readouterr().out
