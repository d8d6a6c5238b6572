"""Beginnings that requests put before the turns they sample, and the caches that they find."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest

from gtpo_jax.decoding import sampling
from gtpo_jax.devices import sharding
from gtpo_jax.language.grammar import Dialogue
from gtpo_jax.learner import packing
from gtpo_jax.parts import plans
from gtpo_jax.rollout import Request, RolloutEngine, collect_groups
from gtpo_jax.rollout.progress import total_stats
from gtpo_jax.rollout.sharing import deal
from gtpo_jax.testing import FakeTool, scripted_forward
from gtpo_jax.types import Problem, StopReason, Turn, Verdict
from gtpo_jax.verifiers import numeric_or_exact
from models import decoder
from tests.rollout.test_policy import TALKATIVE, TEMPERATURE, make_engine, output, same
from tests.tiny import BYTES, CONFIG, DIALOGUE, make_params

pytestmark = pytest.mark.slow

PROBLEM = Problem(id="p0", question="0+1", answer="1")
OTHER = Problem(id="p1", question="1+1", answer="1")
LONG = "please add 0 and 1"
SCRIPT = ("<code>1</code>", "<answer>1</answer>")
SHAPE: dict[str, Any] = {"slots": 12, "prompt_tokens": 12, "context": 96, "turn_tokens": 14}


def plain(samples, problem=PROBLEM, group=0):
    return [Request(problem=problem, group=group, sample=s) for s in samples]


ROOTS = [*plain(range(3)), *plain(range(2), OTHER, 1)]


def continuing(parent, samples, **fields):
    return [
        Request(problem=parent.problem, group=parent.group, sample=s, **fields) for s in samples
    ]


def cut(turn, count):
    """The beginning of a turn, as a plan makes it."""
    parts = ("tokens", "logprobs", "sampled_logprobs", "entropies")
    fields = {name: getattr(turn, name)[:count] for name in parts}
    nothing = fields["tokens"][:0]
    return dataclasses.replace(turn, **fields, text="", codes=(), results=(), observation=nothing)


def second_round(roots):
    """Requests of every kind after plain rollouts; those of each kind share their beginning."""
    deep = max(roots, key=lambda t: len(t.turns))
    assert len(deep.turns) > 2, "choose other samples"
    first = deep.turns[:1]
    return [
        *continuing(deep, [20, 21], turns=first),
        *continuing(deep, [22, 23], turns=deep.turns[:2]),
        *continuing(deep, [24], turns=first, begun=cut(deep.turns[1], 1)),
        *continuing(deep, [25, 26], turns=first, opening="so "),
        *continuing(deep, [27, 28], question=LONG),
        *continuing(deep, [29], temperature=0.0),
        *continuing(deep, [30], script=SCRIPT[:1]),
        *continuing(deep, [31], script=SCRIPT),
    ]


def ids(trajectory):
    parts = [part for turn in trajectory.turns for part in (turn.tokens, turn.observation)]
    return tuple(map(int, np.concatenate([trajectory.prompt, *parts])))


def agree(first, second):
    """True if two trajectories hold the same tokens; log-probs of sampled turns are then close."""
    known = [
        dataclasses.replace(t, turns=tuple(turn for turn in t.turns if len(turn.logprobs)))
        for t in (first, second)
    ]
    return ids(first) == ids(second) and same(*known)


def prefixes(tokens):
    return {tokens[:n] for n in range(1, len(tokens) + 1)}


def beginning(request, trajectory):
    """The tokens that a trajectory begins with, before it samples any."""
    turns = trajectory.turns[: len(request.turns) + len(request.script)]
    whole = ids(dataclasses.replace(trajectory, turns=turns))
    led = len(request.opening) + (0 if request.begun is None else len(request.begun.tokens))
    return ids(trajectory)[: len(whole) + led]


def distinct(*rounds):
    """Number of distinct tokens of rounds of requests and trajectories. Tokens that two of them
    sample are two, even if they are equal.
    """
    count, known = 0, set()
    for requests, trajectories in rounds:
        begun = {}
        for request, trajectory in zip(requests, trajectories, strict=True):
            start = beginning(request, trajectory)
            count += len(ids(trajectory)) - len(start)
            if len(ids(trajectory)) > len(start):
                begun.setdefault(request.problem.id, set()).update(prefixes(start))
        count += sum(len(found - known) for found in begun.values())
        known |= {prefix for trajectory in trajectories for prefix in prefixes(ids(trajectory))}
    return count


def work(stats):
    return stats.fed_tokens + stats.sampled_tokens


@pytest.fixture(scope="module")
def params():
    return make_params()


@pytest.fixture(scope="module")
def engine():
    usual = make_engine(**SHAPE)
    sampler = functools.partial(sampling.categorical, temperature=TEMPERATURE)
    sampler = sampling.recording(sampler, count=2, temperature=TEMPERATURE)
    return RolloutEngine(TALKATIVE, DIALOGUE, usual.tool, numeric_or_exact, usual.limits, sampler)


@pytest.fixture(scope="module")
def played(engine, params):
    """Two rounds of one collection: trajectories and costs of each."""
    rounds = engine.rounds(params, seed=1, step=5)
    roots, first = rounds(ROOTS)
    requests = second_round(roots[:3])
    later, second = rounds(requests)
    return roots, requests, later, (first, second)


@pytest.fixture(scope="module")
def alone(engine, params, played):
    """The second round without the first, whose caches it then does not find."""
    return engine.run(params, played[1], seed=1, step=5)


def test_trajectories_begin_with_what_their_requests_say(played):
    _, requests, later, _ = played
    for request, trajectory in zip(requests, later, strict=True):
        shared = len(request.turns)
        assert trajectory.shared_turns == shared
        assert trajectory.turns[:shared] == request.turns
        assert trajectory.off_policy == bool(request.script)
        assert (trajectory.group, trajectory.sample) == (request.group, request.sample)
        asked = request.question or request.problem.question
        np.testing.assert_array_equal(trajectory.prompt, DIALOGUE.prompt(asked))
        if shared < len(trajectory.turns):
            turn, given = trajectory.turns[shared], len(request.opening)
            assert turn.given == given and turn.text.startswith(request.opening)
            begun = request.begun
            if begun is not None:
                np.testing.assert_array_equal(turn.tokens[:1], begun.tokens)
                np.testing.assert_array_equal(turn.logprobs[:1], begun.logprobs)
            assert len(turn.entropies) == len(turn.logprobs) in (0, len(turn.tokens))


def test_script_is_run_by_the_tool_and_judged_as_any_other(played):
    half, whole = played[2][-2:]
    assert whole.stop_reason is StopReason.ANSWERED and whole.verdict is Verdict.RIGHT
    assert [turn.codes for turn in whole.turns] == [("1",), ()]
    assert whole.turns[0].results[0].stdout == output("1")
    assert all(not len(turn.logprobs) for turn in whole.turns)
    assert len(half.turns) > 1 and len(half.turns[1].logprobs) == len(half.turns[1].tokens)


def test_tokens_are_computed_once(played, alone):
    roots, requests, later, costs = played
    assert work(total_stats(costs)) == distinct((ROOTS, roots), (requests, later))
    # Scripts begin later than others, and may find by chance what these have sampled.
    assert work(costs[1]) < work(alone[1]) <= distinct((requests, alone[0]))


def test_caches_of_before_change_nothing(played, alone):
    for one, other in zip(played[2], alone[0], strict=True):
        assert agree(one, other)


def test_scarce_rows_compute_again_what_they_have_lost(engine, params, played):
    requests = played[1]
    more = [dataclasses.replace(r, sample=r.sample + 100 * n) for n in range(4) for r in requests]
    rounds = engine.rounds(params, seed=1, step=5)
    rounds(ROOTS)
    later, stats = rounds(more[::-1])
    for one, other in zip(played[2], later[::-1], strict=False):
        assert agree(one, other)
    assert len(more) > 3 * engine.limits.slots and work(stats) > 0


def test_refresh_between_segments_changes_nothing_but_the_work(engine, params, played):
    newer = itertools.cycle([None, (params, 1), None, None])
    rounds = engine.rounds(params, seed=1, step=5, refresh=functools.partial(next, newer))
    rounds(ROOTS)
    for one, other in zip(played[2], rounds(played[1])[0], strict=True):
        assert agree(one, other)


@functools.partial(jax.jit, static_argnums=0)
def scored(forward, params, tokens, segment_ids, positions):
    """Log-probs `[B, T, V]` of the next token after each."""
    hidden, _ = forward.hidden(params, tokens, positions, segment_ids=segment_ids)
    return jax.nn.log_softmax(forward.logits(params, hidden) / TEMPERATURE)


def test_logprobs_are_those_of_the_learner_and_given_tokens_are_not_trained(played, params):
    _, requests, later, _ = played
    size = len(later)
    assert all(t.included for t in later)
    batch = packing.pack(
        later, np.ones((size, 4), np.float32), micro_batches=1, rows=size, row_length=96
    )
    batch = jax.tree.map(lambda x: x[0], batch)
    scores = np.asarray(scored(TALKATIVE, params, batch.tokens, batch.segment_ids, batch.positions))
    learned = np.take_along_axis(scores[:, :-1], batch.tokens[:, 1:, None], 2)[..., 0]
    known = batch.loss_mask & ~np.isnan(batch.behavior_logprobs)
    assert np.abs(learned - batch.behavior_logprobs[:, 1:])[known[:, 1:]].max() < 2e-4
    turns = [turn for t in later for turn in t.turns]
    unknown = sum(len(turn.tokens) for turn in turns if not len(turn.logprobs))
    assert np.isnan(batch.behavior_logprobs).sum() == unknown > 0
    assert batch.loss_mask.sum() == sum(turn.own_tokens for turn in turns)
    assert sum(turn.given for turn in turns) > 0
    # The greedy row takes the likeliest tokens, and records the log-probs of the run.
    [greedy] = [index for index, request in enumerate(requests) if request.temperature == 0]
    [row] = np.unique(np.nonzero(batch.trajectory_ids == greedy)[0])
    trained = batch.loss_mask[row, 1:] & (batch.trajectory_ids[row, 1:] == greedy)
    taken = scores[row, :-1].argmax(axis=-1)
    np.testing.assert_array_equal(batch.tokens[row, 1:][trained], taken[trained])
    assert batch.behavior_logprobs[row, 1:][trained].min() < -0.1
    assert all((turn.sampled_logprobs == 0).all() for turn in later[greedy].turns)


PLANS = {
    "remax": plans.greedy_twin(),
    "arpo": plans.tree(trunks=2, probability=0.9, vocabulary=264),
    "vine": plans.valued(rollouts=2),
    "latr": plans.lookahead(least=0.05, gap=0.5, steps=(2, 3), distance=0.3, temperature=0.7),
    "igrpo": plans.refined(drafts=2, template="{question} {draft}", longest=20),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_compute_their_tokens_once(engine, params, name):
    rounds = engine.rounds(params, seed=3, step=1)
    told, costs = [], []

    def run(requests):
        trajectories, stats = rounds(requests)
        told.append((requests, trajectories))
        costs.append(stats)
        return trajectories, stats

    group = collect_groups(
        run, [PROBLEM], wanted=1, group_size=4, rounds=1, has_signal=bool, plan=PLANS[name]
    ).kept
    assert 4 <= len(group) <= 5 and len({t.sample for t in group}) == len(group)
    assert sum(len(requests) for requests, _ in told) <= engine.limits.slots
    assert work(total_stats(costs)) == distinct(*told)
    assert (len(told) > 1) == (name != "remax")
    if name == "latr":
        for request, trajectory in zip(*told[1], strict=True):
            size = len(request.begun.tokens)
            turn = trajectory.turns[len(request.turns)]
            np.testing.assert_array_equal(turn.tokens[:size], request.begun.tokens)
            np.testing.assert_array_equal(turn.candidates.ids[:size], request.begun.candidates.ids)


@pytest.mark.long
def test_devices_change_nothing(played, params):
    mesh = sharding.make_mesh(data=4, tensor=2)
    engine = make_engine(mesh=mesh, **dict(SHAPE, slots=16))
    placed = sharding.param_shardings(decoder.logical_axes(CONFIG), mesh)
    rounds = engine.rounds(jax.device_put(params, placed), seed=1, step=5)
    roots, first = rounds(ROOTS)
    later, second = rounds(played[1])
    assert all(map(agree, played[2], later))
    costs = total_stats([first, second])
    assert work(costs) == distinct((ROOTS, roots), (played[1], later))


def test_stop_string_that_begins_in_the_beginning_of_a_turn_is_found():
    dialogue = Dialogue(BYTES, stop_strings=("</go>",))
    turn = dialogue.turn("<code>1</go>")
    whole = np.concatenate([dialogue.prompt("0+1"), turn, np.array([ord("x")] * 9)])
    policy = scripted_forward([whole], vocab_size=BYTES.vocab_size, otherwise=ord("x"))
    limits = dataclasses.replace(make_engine().limits, **SHAPE)
    engine = RolloutEngine(
        policy, dialogue, FakeTool(output), numeric_or_exact, limits, sampling.greedy
    )
    requests = []
    for request in plain(range(1, len(turn))):
        begun = turn[: request.sample]
        begun = Turn(tokens=begun, logprobs=np.zeros(len(begun), np.float32), text="")
        requests.append(dataclasses.replace(request, begun=begun))
    for ended in engine.run({}, requests, seed=0, step=0)[0]:
        np.testing.assert_array_equal(ended.turns[0].tokens, turn)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"opening": "a" * 20}, "begins with 20 tokens, turn_tokens is 14"),
        ({"turns": "four"}, "begins with 4 turns, max_turns is 4"),
        ({"turns": "last"}, "without an observation"),
        ({"opening": "a", "begun": "some"}, "both `begun` and `opening`"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(engine, fields, named):
    turn = Turn(tokens=np.ones(2, np.int32), logprobs=np.zeros(2, np.float32), text="")
    seen = dataclasses.replace(turn, observation=np.ones(1, np.int32))
    values = {"four": (seen,) * 4, "last": (turn,), "some": turn}
    fields = {name: values.get(value, value) for name, value in fields.items()}
    with pytest.raises(ValueError, match=named):
        engine.run({}, [Request(problem=PROBLEM, group=0, sample=0, **fields)], seed=0, step=0)


def test_question_without_room_for_a_turn_ends_its_trajectory_alone(engine, params):
    requests = plain([0, 1])
    requests[1] = dataclasses.replace(requests[1], question="x" * 200)
    usual, full = engine.run(params, requests, seed=1, step=5)[0]
    assert usual.turns and not full.turns and full.stop_reason is StopReason.CONTEXT_FULL


def test_group_stays_with_the_process_that_had_it_first():
    home: dict[int, int] = {}
    first = [request for group in range(4) for request in plain(range(2), group=group)]
    dealt = functools.partial(deal, processes=2, home=home)
    before = [{r.group for r in dealt(first, process=process)} for process in range(2)]
    later = [*plain(range(5, 9), group=1), *plain(range(5, 6), group=2), *plain([0], group=9)]
    after = [{r.group for r in dealt(later, process=process)} for process in range(2)]
    for process in range(2):
        assert after[process] - {9} <= before[process]
    assert after[0] | after[1] == {1, 2, 9}
