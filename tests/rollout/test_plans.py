"""Plans of second rollouts with the real engine and a policy that replays dialogues."""

import dataclasses

import numpy as np
import pytest

from gtpo_jax import methods, rollout
from gtpo_jax.decoding import sampling
from gtpo_jax.language import grammar
from gtpo_jax.parts.plans import Moment, at_moment
from gtpo_jax.parts.plans.corrected import CORRECT
from gtpo_jax.parts.plans.delegated import MAIN
from gtpo_jax.parts.plans.experienced import WITH_EXPERIENCES
from gtpo_jax.parts.plans.guided import CUE, WAYS
from gtpo_jax.parts.plans.refined import REFINE
from gtpo_jax.parts.plans.texts import fill
from gtpo_jax.rollout import RolloutEngine, RolloutLimits, services
from gtpo_jax.testing import FakeTool, scripted_forward
from gtpo_jax.types import Problem
from gtpo_jax.verifiers import numeric_or_exact
from tests.methods.plans_hosted import Lessons
from tests.rollout.test_services import of_text
from tests.tiny import BYTES, DIALOGUE

LIMITS = RolloutLimits(
    slots=8,
    context=400,
    prompt_tokens=16,
    max_turns=4,
    turn_tokens=48,
    observation_tokens=48,
    segment_steps=16,
    prefill_prompts=2,
    extend_width=32,
    first_cache=400,
)
END = BYTES.control_id(grammar.END)
WRONG, RIGHT = DIALOGUE.answer("", "5"), DIALOGUE.answer("", "4")
CALL = DIALOGUE.call("", "2+2")
HANDED = DIALOGUE.turn("<delegate>part</delegate>")


def observed(output):
    return DIALOGUE.observation(output, budget=LIMITS.observation_tokens)[0]


MAIN_QUESTION = fill(MAIN, question="main")
# Question → all that follows its prompt.
SCRIPTS = {
    "hard": [WRONG],
    "hard\nKnowledge: one": [WRONG],
    "hard\nKnowledge: one two": [CALL, observed("4"), RIGHT],
    "draft": [WRONG],
    fill(REFINE, question="draft", draft="<answer>5</answer>"): [RIGHT],
    "guide": [CALL, observed("4"), WRONG, observed(CUE), RIGHT],
    "plan": [CALL, observed("4"), RIGHT],
    MAIN_QUESTION: [HANDED, observed("7"), CALL, observed("4"), RIGHT],
    "part": [DIALOGUE.answer("", "7")],
    fill(WITH_EXPERIENCES, question="lesson", experiences="1. be short"): [RIGHT],
}


@pytest.fixture(scope="module")
def engine():
    dialogues = [np.concatenate([DIALOGUE.prompt(q), *parts]) for q, parts in SCRIPTS.items()]
    policy = scripted_forward(dialogues, vocab_size=BYTES.vocab_size, otherwise=END)
    tool = FakeTool({"2+2": "4"})
    return RolloutEngine(policy, DIALOGUE, tool, numeric_or_exact, LIMITS, sampling.categorical)


def play(engine, modifier, question, *, size=3, step=60, others=None, **info):
    """The group of one problem, and the tokens that the rollouts sampled."""
    method = methods.chain(methods.grpo(), modifier)
    provided = services.of_dialogue(DIALOGUE, observation_tokens=LIMITS.observation_tokens)
    provided |= others or {}
    moment = Moment(0, step, provided, max_turns=LIMITS.max_turns)
    found = rollout.collect_groups(
        engine.rounds({}, seed=0, step=step),
        [Problem(id=question, question=question, answer="4", info=info)],
        wanted=1,
        group_size=size,
        rounds=1,
        has_signal=lambda group: True,
        plan=at_moment(method.plan, moment),
    )
    return found.kept


def outcomes(group):
    return "".join("R" if t.success else "W" for t in group)


def asked(trajectory, question):
    return trajectory.prompt.tolist() == DIALOGUE.prompt(question).tolist()


def test_hints(engine):
    group = play(engine, methods.scaf_grpo(), "hard", knowledge=["one", "two", "three"])
    assert outcomes(group) == "RWW"
    assert asked(group[0], "hard\nKnowledge: one two") and group[0].facts["hint_levels"] == 2
    assert group[0].turns[0].results[0].stdout == "4"
    assert len(group[0].turns[0].logprobs) == len(CALL)


def test_refinements(engine):
    group = play(engine, methods.igrpo(drafts=2), "draft")
    assert outcomes(group) == "RRR" and all(len(t.turns) == 1 for t in group)
    assert asked(group[0], fill(REFINE, question="draft", draft="<answer>5</answer>"))


def test_corrections(engine):
    group = play(engine, methods.multi_layer_grpo(corrections=2), "draft", size=2)
    assert len(group) == 6
    text = CORRECT.split("{phrase}")[0]
    begin = fill(text, question="draft", response="<answer>5</answer>")
    for correction in group[2:]:
        assert BYTES.decode(correction.prompt.tolist()).startswith(f"<|user|>{begin}")


def test_guided_corrections(engine):
    seen = {}
    for step in range(6):
        info = {"solution": ["<code>2+2</code>", "<answer>4</answer>"]}
        for t in play(engine, methods.guided_correction(), "guide", step=step, **info):
            seen.setdefault(WAYS[t.facts["guided"] - 1], t)
    assert {way: t.success for way, t in seen.items()} == dict.fromkeys(WAYS, True)
    reflected, told, solved = (seen[way] for way in WAYS)
    assert [t.text for t in reflected.turns] == [
        "<code>2+2</code><|end|>",
        "<answer>5</answer><|end|>",
        "<answer>4</answer><|end|>",
    ]
    assert reflected.turns[1].observation.tolist() == observed(CUE).tolist()
    assert len(reflected.turns[1].logprobs) and not reflected.off_policy
    assert told.off_policy and not len(told.turns[-1].logprobs) and len(told.turns) == 3
    assert solved.off_policy and solved.turns[0].results[0].stdout == "4"


def test_gold_members(engine):
    group = play(engine, methods.tempsamp(), "hard")
    assert outcomes(group) == "WWR" and group[2].turns[0].tokens.tolist() == RIGHT.tolist()
    assert group[2].off_policy and group[2].turns[0].violation is None
    turns = ["<code>2+2</code>", "<answer>4</answer>"]
    group = play(engine, methods.gcpo_contrastive(gold="turns"), "hard", turns=turns)
    assert outcomes(group) == "RWW" and group[0].turns[0].results[0].stdout == "4"


def test_solutions_after_plans(engine):
    group = play(engine, methods.pta_grpo(solutions=3), "plan", size=6)
    assert outcomes(group) == "RRRRRR"
    assert [t.shared_turns for t in group] == [0, 0, 1, 1, 1, 1]
    assert all(t.turns[0].tokens.tolist() == CALL.tolist() for t in group)


def test_delegation(engine):
    group = play(engine, methods.m_grpo(), "main", size=2)
    assert outcomes(group) == "RRRR"
    main, sub = group[0], group[2]
    assert asked(main, MAIN_QUESTION) and asked(sub, "part") and sub.answer == "7"
    assert main.turns[0].observation.tolist() == observed("7").tolist()
    assert [turn.violation for turn in main.turns] == [None] * 3
    assert [t.facts["agents"] for t in group] == [0, 0, 1, 1]


def test_experiences(engine, tmp_path):
    modifier = methods.training_free_grpo()
    lessons = Lessons(["be short"])
    group = play(engine, modifier, "lesson", others={"experiences": lessons})
    assert outcomes(group) == "RRR" and not lessons.edits
    kept = services.ExperienceFile(tmp_path / "e.jsonl", most=5)
    group = play(engine, modifier, "lesson", others={"experiences": kept})
    assert outcomes(group) == "WWW" and asked(group[0], "lesson")


def test_groups_of_other_runs_are_played_again(engine, tmp_path):
    theirs = Problem(id="p", question="other", answer="4")
    right = dataclasses.replace(
        play(engine, methods.tempsamp(), "hard", size=2)[1],
        problem=theirs,
        turns=(of_text("<code>2+2</code>"), of_text("<answer>4</answer>")),
    )
    wrong = dataclasses.replace(
        play(engine, methods.tempsamp(), "hard", size=2)[0],
        problem=theirs,
        turns=(of_text("<answer>5</answer>"),),
    )

    def make(name):
        return services.SharedGroups(
            services.FolderStore(tmp_path / "common"),
            run=name,
            record=tmp_path / f"{name}.jsonl",
            text=lambda turn: services.turn_text(DIALOGUE, turn.tokens),
            accept=lambda shared: None,
            tell=lambda line: None,
        )

    make("one").share(0, 0, [right, wrong])
    modifier = methods.sapo_swarm(local=1, external=1)
    ours = make("two")
    group = play(engine, modifier, "hard", others={"swarm": ours})  # group 0 is a local one
    assert outcomes(group) == "WWW" and not any(t.off_policy for t in group)
    method = methods.chain(methods.grpo(), modifier)
    moment = Moment(0, 60, {"swarm": ours}, max_turns=LIMITS.max_turns)
    episodes = at_moment(method.plan, moment)(theirs, 1, 3)
    played, _ = engine.run({}, next(episodes), seed=0, step=60)
    with pytest.raises(StopIteration) as done:
        episodes.send(played)
    group = done.value.value
    assert outcomes(group) == "RW" and all(t.off_policy for t in group)
    assert group[0].turns[0].tokens.tolist() == CALL.tolist()
    assert group[0].turns[0].results[0].stdout == "4"
    assert asked(group[0], "other") and group[0].problem.id == "swarm/one/0/0"
