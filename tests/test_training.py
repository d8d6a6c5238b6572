"""The training step, without a session: what it computes, and what it keeps."""

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax import learner, methods, training
from gtpo_jax.learner import packing
from gtpo_jax.learner.checkpoint import CheckpointStore
from gtpo_jax.parts import credit, rewards
from gtpo_jax.types import Candidates, GoldAnswer, StopReason, Verdict
from tests.learner.test_learner import TOY, TOY_VOCABULARY, toy_params
from tests.tiny import compilations, make_trajectory

LAYOUT = training.Layout(
    groups=3, group_size=4, max_turns=3, row_tokens=24, rows=2, minibatches=2, epochs=2
)
GOLD = GoldAnswer(np.array([4], np.int32), np.array([3, 5], np.int32))


def make_trajectories(groups=3, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for group in range(groups):
        for sample in range(LAYOUT.group_size):
            shape = [(3, 2), (2, 0)] if sample % 2 else [(4, 1)]
            trajectory = make_trajectory(
                rng, shape, group=group, success=sample > group, vocab_size=TOY_VOCABULARY
            )
            turns = tuple(
                dataclasses.replace(turn, codes=("x",) if k == 0 else ())
                for k, turn in enumerate(trajectory.turns)
            )
            made.append(dataclasses.replace(trajectory, turns=turns, sample=sample))
    return made


def make(method=None, **options) -> training.Training:
    layout = options.pop("layout", LAYOUT)
    method = methods.gtpo() if method is None else method
    options = {"answer_tokens": lambda problem: GOLD, **options}
    return training.Training(TOY, optax.sgd(0.1), method, layout, **options)


def start(step: training.Training, **options) -> learner.TrainState:
    return step.init(jax.device_put(toy_params()), **options)


def test_a_step_makes_its_updates_and_reports_what_it_did():
    step = make()
    state, report = step.step(0, start(step), make_trajectories())
    assert int(state.step) == len(report.updates) == LAYOUT.minibatches * LAYOUT.epochs
    assert report.credit.advantages.shape == (12, 3)
    tokens = sum(len(turn.tokens) for t in make_trajectories() for turn in t.turns)
    trained = sum(float(metrics["trained_tokens"]) for metrics in report.updates)
    assert trained == LAYOUT.epochs * tokens
    assert report.logprob_gap > 0  # the log-probs are made up
    assert not np.allclose(state.params["first"], toy_params()["first"])


def test_equal_numbers_deal_equal_minibatches_and_programs_are_compiled_once():
    step = make()
    begin = [start(step)]
    begin += [jax.tree.map(jnp.copy, begin[0]) for _ in range(3)]  # a step takes its state
    first, _ = step.step(3, begin[0], make_trajectories())
    with compilations() as compiled:
        again, _ = step.step(3, begin[1], make_trajectories())
        other, _ = step.step(4, begin[2], make_trajectories())
        step.step(5, begin[3], make_trajectories(groups=1))
    assert not compiled
    chex.assert_trees_all_equal(first.params, again.params)
    assert not np.array_equal(first.params["first"], other.params["first"])
    seeded = make(seed=1)
    apart, _ = seeded.step(3, start(seeded), make_trajectories())
    assert not np.array_equal(first.params["first"], apart.params["first"])


def test_without_trajectories_the_parameters_stay():
    step = make()
    state, report = step.step(0, start(step), [])
    chex.assert_trees_all_equal(jax.device_get(state.params), toy_params())
    assert int(state.step) == 0 and report.credit.advantages.shape == (0, 3)


def test_step_is_credit_then_updates_by_hand():
    layout = dataclasses.replace(LAYOUT, minibatches=1, epochs=1, rows=12)
    step, given = make(layout=layout), make_trajectories()
    state, report = step.step(0, start(step), given)
    method = methods.gtpo()
    episodes = packing.episode_batch(given, max_turns=3, needs=method.facts)
    _, turn_credit = jax.jit(functools.partial(methods.assign, method))(
        method.credit.init(), episodes
    )
    chex.assert_trees_all_close(report.credit.advantages, turn_credit.advantages, atol=1e-6)
    batch = packing.pack(
        given, np.asarray(turn_credit.advantages), micro_batches=1, rows=12, row_length=24
    )
    update = learner.make_update(TOY, optax.sgd(0.1), method.loss, method.reduce)
    expected, _ = jax.jit(update)(
        learner.init_state(jax.device_put(toy_params()), optax.sgd(0.1)), batch
    )
    chex.assert_trees_all_close(state.params, expected.params, atol=1e-6)


def provided(name: str) -> bool:
    """True if a step has all facts that a method needs."""
    try:
        make(methods.METHODS[name]())
    except ValueError:
        return False
    return True


PROVIDED = [name for name in methods.METHODS if provided(name)]

# One of each kind of credit, loss, spread and fact; the others repeat them.
KINDS = ("gtpo", "grpo", "cispo", "gspo", "spo", "igpo", "turn_ppo", "gtpo_conflicts")


def marked(name):
    if name == "gspo":
        return name
    return pytest.param(name, marks=pytest.mark.slow if name in KINDS else pytest.mark.long)


@pytest.mark.parametrize("name", [marked(name) for name in PROVIDED])
def test_every_method_trains(name):
    step = make(methods.METHODS[name]())
    made = make_trajectories()
    for n, t in enumerate(made):  # facts that plans record
        found = {"greedy": int(t.sample == 0), "turn_values": (0.25,) * len(t.turns)}
        made[n] = dataclasses.replace(t, facts=found)
    state, report = step.step(0, start(step), made)
    assert all(np.isfinite(float(metrics["loss"])) for metrics in report.updates)
    assert not np.allclose(state.params["first"], toy_params()["first"])


def test_only_scores_that_the_loss_needs_are_computed():
    plain, needy = make(), make(methods.chain(methods.gtpo(), methods.kl(weight=0.1)))
    for step, passes in ((plain, 0), (needy, LAYOUT.minibatches)):
        calls, logprobs = [], step.logprobs
        step.logprobs = lambda *args, calls=calls, logprobs=logprobs: (
            calls.append(0) or logprobs(*args)
        )
        step.step(0, start(step), make_trajectories())
        assert len(calls) == passes
    assert plain.reference is None
    chex.assert_trees_all_equal(jax.device_get(needy.reference), toy_params())


def corrected() -> methods.Method:
    """A method with every kind of correction for its sampler."""
    return methods.chain(
        methods.gtpo(),
        methods.importance(unit="sequence"),
        methods.rejection(unit="turn", low=0.0, high=1e9),
        methods.kpop(limit=1e9),
        methods.score_centering(count=2),
    )


def with_candidates(trajectory):
    """The trajectory with two candidates beside each token, one of them the token itself."""

    def recorded(turn):
        ids = np.stack([turn.tokens, (turn.tokens + 1) % 5], axis=-1).astype(np.int32)
        logprobs = np.stack([turn.logprobs, turn.logprobs - 1.0], axis=-1)
        return dataclasses.replace(turn, candidates=Candidates(ids, logprobs))

    return dataclasses.replace(trajectory, turns=tuple(map(recorded, trajectory.turns)))


def test_candidates_reach_the_loss_and_the_programs_of_a_plan():
    step, seen = make(corrected()), []
    state = start(step)
    update = step.update
    step.update = lambda state, batch: seen.append(batch) or update(state, batch)
    for number in range(3):
        state, report = step.step(number, state, [*map(with_candidates, make_trajectories())])
    assert all(float(metrics["centering"]) > 0 for metrics in report.updates)
    assert not np.allclose(state.params["first"], toy_params()["first"])
    [planned] = [p for p in step.programs(state, jax.ShapeDtypeStruct) if p.name == "update"]

    def shapes(batch):
        return jax.tree.map(lambda x: (x.shape, x.dtype), batch)

    assert shapes(planned.arguments[2]) == shapes(seen[0])


def test_policy_states_are_means_over_the_turns_with_code():
    step, given = make(methods.gtpo(embed=rewards.POLICY_STATES)), make_trajectories()
    _, report = step.step(0, start(step), given)
    states = report.episodes.facts["policy_states"]
    params = toy_params()
    hidden = np.tanh(params["embedding"] @ params["first"])
    for row, t in zip(states, given, strict=True):
        np.testing.assert_allclose(row, hidden[t.turns[0].tokens].mean(axis=0), atol=1e-6)
    assert report.credit.parts["partial"].max() > 0


def test_excluded_trajectories_have_no_policy_state():
    step, given = make(methods.gtpo(embed=rewards.POLICY_STATES)), make_trajectories()
    given[2] = dataclasses.replace(given[2], verdict=Verdict.UNVERIFIABLE)
    _, report = step.step(0, start(step), given)
    states = report.episodes.facts["policy_states"]
    assert not np.any(states[2]) and np.all(np.any(states[[0, 1, 3]], axis=1))


def counting() -> credit.Credit:
    """A credit with a state: how often it was asked."""
    return credit.Credit(lambda: jnp.zeros((), jnp.int32), lambda n, x, e: (n + 1, x))


def test_state_of_the_credit_is_carried_saved_and_restored(tmp_path):
    plain = methods.gtpo()
    method = plain._replace(credit=credit.chain(plain.credit, counting()))
    step = make(method)
    state = start(step)
    for number in range(3):
        state, _ = step.step(number, state, make_trajectories())
    assert jax.tree.leaves(state.method) == [3]
    with CheckpointStore(tmp_path) as store:
        store.save(3, state)
        store.check()
    fresh = start(step)
    with CheckpointStore(tmp_path) as store:
        saved, restored = store.restore(fresh)
    assert saved == 3 and jax.tree.leaves(restored.method) == [3]
    chex.assert_trees_all_equal(restored.params, state.params)


def test_layout_lists_the_shapes_of_its_buckets():
    layout = dataclasses.replace(LAYOUT, row_tokens=40, row_buckets=5)
    assert layout.shapes() == [(3, 2, 40), (2, 4, 20), (1, 8, 10), (1, 16, 5)]
    assert dataclasses.replace(layout, shared_prompts=True).minibatch_trajectories == 8


def test_programs_are_those_of_the_step():
    method = methods.chain(methods.gtpo(embed=rewards.POLICY_STATES), methods.kl(weight=0.1))
    step = make(method)
    state = start(step)
    listed = {p.name: p for p in step.programs(state, jax.ShapeDtypeStruct)}
    assert set(listed) == {"update", "log-prob gap", "reference log-probs", "policy states"}
    assert listed["update"].calls == 4 and listed["reference log-probs"].calls == 2
    state, _ = step.step(0, state, make_trajectories())
    for program in listed.values():
        assert program.function.lower(*program.arguments).compile() is not None


def test_turns_written_for_the_policy_begin_with_a_ratio_of_one():
    def without_logprobs(trajectory):
        nothing = np.zeros(0, np.float32)
        turns = tuple(dataclasses.replace(turn, logprobs=nothing) for turn in trajectory.turns)
        return dataclasses.replace(trajectory, turns=turns, off_policy=True)

    made = [without_logprobs(t) for t in make_trajectories()]
    layout = dataclasses.replace(LAYOUT, minibatches=1, epochs=1)
    step = make(methods.grpo(), layout=layout)
    state, report = step.step(0, start(step), made)
    assert report.logprob_gap == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert not np.allclose(state.params["first"], toy_params()["first"])


def test_member_that_is_not_trained_takes_part_in_the_credit_alone():
    made = make_trajectories()
    left_out = [dataclasses.replace(t, trained=t.sample > 0) for t in made]
    layout = dataclasses.replace(LAYOUT, epochs=1)
    step = make(methods.grpo(), layout=layout)
    first, second = (step.step(0, start(step), rows)[1] for rows in (made, left_out))
    np.testing.assert_array_equal(first.credit.advantages, second.credit.advantages)
    tokens = sum(len(turn.tokens) for t in made if t.sample > 0 for turn in t.turns)
    assert sum(float(metrics["trained_tokens"]) for metrics in second.updates) == tokens


def test_more_trajectories_than_the_layout_holds_are_refused():
    step = make(methods.grpo())
    with pytest.raises(ValueError, match=r"16 trajectories, its layout has room for 12.*returned"):
        step.step(0, start(step), make_trajectories(groups=4))


def test_trajectories_cut_off_count_in_their_group_and_not_in_the_loss():
    given = make_trajectories()
    cut = [i for i, t in enumerate(given) if i % 3 == 0]
    given = [
        dataclasses.replace(t, stop_reason=StopReason.TURN_LIMIT, verdict=Verdict.NO_ANSWER)
        if i in cut
        else t
        for i, t in enumerate(given)
    ]
    tokens = [sum(len(turn.tokens) for turn in t.turns) for t in given]
    layout = dataclasses.replace(LAYOUT, minibatches=1, epochs=1)
    reports = []
    for modifiers in ((), (methods.overlong_filter(),)):
        step = make(methods.chain(methods.grpo(), *modifiers), layout=layout)
        reports.append(step.step(0, start(step), given)[1])
    plain, filtered = reports
    np.testing.assert_array_equal(filtered.credit.advantages, plain.credit.advantages)
    assert np.abs(plain.credit.advantages[cut]).max() > 0
    assert float(plain.updates[0]["trained_tokens"]) == sum(tokens)
    left = sum(tokens) - sum(tokens[i] for i in cut)
    assert float(filtered.updates[0]["trained_tokens"]) == left


def test_minibatches_hold_any_whole_group_of_unequal_ones():
    layout = dataclasses.replace(LAYOUT, shared_prompts=True, largest_group=10)
    sizes = [10, 1, 1]
    given = [
        dataclasses.replace(make_trajectories(1)[0], group=group, sample=sample)
        for group, size in enumerate(sizes)
        for sample in range(size)
    ]
    parts = layout.minibatches_of(given, seed="s")
    assert sorted(itertools.chain(*parts)) == list(range(12))
    assert max(map(len, parts)) <= layout.minibatch_trajectories == 10
    assert dataclasses.replace(layout, shared_prompts=False).minibatch_trajectories == 6
