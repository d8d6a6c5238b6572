"""Methods by name and by path, as a command line spells them."""

import dataclasses
import pathlib
import sys

import pytest

from configs.methods import import_path, make_method, spell, split
from gtpo_jax import methods
from gtpo_jax.parts import credit, facts, losses, rewards
from launch import methods as table

OWN = '''
from gtpo_jax import methods
from gtpo_jax.parts import credit


def brevity(trajectory):
    return -float(sum(len(turn.tokens) for turn in trajectory.turns))


def mine(*, scale: float = 1.0):
    """My method."""
    plain = methods.grpo()
    return plain._replace(credit=credit.weighted(scale, plain.credit))


def louder(*, by: int = 2):
    return lambda method: method._replace(credit=credit.weighted(by, method.credit))


def no_method():
    return 3


class box:
    embed = "an embedding"
'''


@pytest.fixture(scope="module", autouse=True)
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_methods.py").write_text(OWN, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("my_methods", None)


def make(text: str) -> methods.Method:
    return make_method(split(text))


def test_options_have_the_types_of_the_signature():
    method = make(
        "gtpo discount=.5 normalize=turn_index ddof=1 divide_by_std=false + dual_clip limit=3"
    )
    assert method.loss.terms[0].surrogate == losses.Clip(dual=3.0)
    assert make("gspo unit=turn").loss.terms[0].unit == "turn"
    assert make("gtpo embed=policy_states").rewards["partial"].facts == rewards.POLICY_STATES.facts
    method = make("gtpo + kl weight=.01 estimator=k2 + entropy_bonus weight=1e-3")
    assert [type(term).__name__ for term in method.loss.terms[1:]] == [
        "DivergenceTerm",
        "EntropyTerm",
    ]
    assert method.loss.needs == {"reference_logprobs"}


def test_code_of_ones_own_needs_no_edit():
    assert isinstance(make("my_methods:mine scale=2 + my_methods:louder by=3"), methods.Method)
    method = make("gtpo + reward function=my_methods:brevity weight=.5")
    assert list(method.rewards) == ["outcome", "partial", "format", "brevity"]
    assert make("gtpo normalize=gtpo_jax.parts.credit:batch") is not None
    assert import_path("my_methods:box.embed", "an object") == "an embedding"


def test_spelling_is_read_again():
    words = ("gtpo", "discount=.95", "+", "reward", "function=a:b", "name=with space")
    assert split(spell(words)) == words
    assert spell(words[:3]) == "gtpo discount=.95 +"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a method must be as `gtpo discount=.95 \+ kl weight=.01`, got ''"),
        ("gtpo +", "a method must be as"),
        ("+ kl", "a method must be as"),
        ("gtqo", "there is no method 'gtqo'; there are .*cispo, .*dapo, .* as my.module:name"),
        ("kl", "there is no method 'kl'; there are"),
        ("gtpo + grpo", "there is no modifier 'grpo'; grpo is a method, and comes first"),
        ("rloo discount=.9", "rloo has no option discount; it has none"),
        ("gtpo gamma=.9", "gtpo has no option gamma; it has discount, shaping, floor, embed"),
        (
            "gtpo discount",
            "an option of gtpo must be as name=value, each name once, got 'discount'",
        ),
        ("gtpo ddof=0 ddof=1", "each name once, got 'ddof=1'"),
        ("gtpo discount=high", "gtpo discount must be a number, got high"),
        ("gtpo ddof=0.5", "gtpo ddof must be an integer, got 0.5"),
        ("gtpo divide_by_std=no", "gtpo divide_by_std must be true or false, got no"),
        ("gtpo normalize=all", "gtpo normalize must be one of group, turn_index, .*got all"),
        ("gspo unit=token", "gspo unit must be one of sequence, turn, got token"),
        ("gtpo + overlong", "overlong needs longest, buffer; give longest=… buffer=…"),
        ("gtpo + reward function=brevity", "must be as my.module:name, got 'brevity'"),
        ("gtpo discount=1.1", r"discount must lie in \[0, 1\], got 1.1"),
        ("gtpo discount=nan", "discount must lie in"),
        ("gtpo shaping=-0.5", r"weight must lie in \[0, 1\], got -0.5"),
        ("gtpo format_penalty=-1", r"penalty must lie in \[0, inf\], got -1"),
        ("gtpo eps=-1", r"eps must lie in \[0, inf\]"),
        ("grpo ddof=-1", r"ddof must lie in \[0, inf\]"),
        ("gtpo + clip low=2", r"clip_low must lie in \[0, 1\], got 2"),
        ("gtpo + clip high=nan", "clip_high must lie in"),
        ("gtpo + dual_clip limit=.5", "dual_clip must lie in"),
        ("gtpo + two_sided_clip limit=1.2", r"ratio_cap must lie in \[1.28, inf\]"),
        ("cispo + dual_clip", "dual_clip changes a surrogate Clip, this method's is WeightClip"),
        ("gtpo + kl weight=-1", "weight must lie in"),
        ("gtpo + importance limit=0", "limit must be greater than 0"),
        ("gtpo + dynamic_sampling rounds=0", "rounds must be at least 1, got 0"),
        ("dr_grpo length=0", "length must lie in"),
        ("my_methods:nothing", "method my_methods:nothing: my_methods has no nothing"),
        ("no_such_module:x", "method no_such_module:x: No module named 'no_such_module'"),
        ("my_methods:no_method", "my_methods:no_method must return a Method, got int"),
        ("gtpo + my_methods:no_method", "must return a modifier, .* got int"),
        ("my_methods:mine scale=x", "my_methods:mine scale must be a number, got x"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        make(text)
    assert "\n" not in str(error.value)


def test_page_of_the_methods_is_that_of_their_docstrings():
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), (
        "python -m launch.methods --write writes it anew"
    )


def test_facts_are_listed_with_their_providers():
    kinds = [
        facts.Fact("hits", None, "[M, K] float32, |hits|", "an environment with entities"),
        facts.Fact("goals", facts.PROBLEMS.gather, "[M] float32", fields=("goal", "span")),
        facts.PROBLEMS,
    ]
    row = next(row for row in table.rows() if row.name == "rloo")
    rows = [dataclasses.replace(row, facts=tuple(kinds)), dataclasses.replace(row, facts=())]
    text = "\n".join(table.facts_table([*rows, dataclasses.replace(rows[0], name="mine")]))
    assert "| `hits` | [M, K] float32, \\|hits\\| | an environment with entities |" in text
    assert "| records of problems with the fields `goal`, `span` | rloo, mine |" in text
    assert f"| `problems` | {facts.PROBLEMS.meaning} | every trajectory | rloo, mine |" in text


def test_every_method_tells_its_paper_and_its_equation():
    for row in table.rows():
        assert row.summary and row.equation, row.name
        if row.kind == "method":
            assert row.papers, row.name
        assert pathlib.Path(table.PAGE.parents[1], row.file).exists()


def test_table_of_methods_shows_names_options_and_one_of_them_whole(capsys):
    table.run([])
    shown = capsys.readouterr().out
    for name in (*methods.METHODS, *methods.MODIFIERS):
        assert name in shown
    table.run(["gtpo"])
    whole = " ".join(capsys.readouterr().out.split())
    assert "fact code: bytes [M, C] and lengths [M] of the code of all turns" in whole
    assert "Published: discount .9, shaping .5" in whole
    with pytest.raises(ValueError, match="no method 'gtqo'"):
        table.run(["gtqo"])


def test_sets_are_spelled_by_their_names():
    assert credit.SETS["group"] is credit.group
    row = next(row for row in table.rows() if row.name == "gtpo")
    assert "embed=ngrams" in row.options and "normalize=group" in row.options
