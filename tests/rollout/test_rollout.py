"""The host loop with a scripted policy: how episodes end, what is recorded, who waits for whom."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from gtpo_jax import rollout
from gtpo_jax.decoding import sampling
from gtpo_jax.devices import sharding
from gtpo_jax.language import grammar
from gtpo_jax.learner import packing
from gtpo_jax.rollout import Request, RolloutEngine, RolloutLimits
from gtpo_jax.testing import INFRA_FAILURE, FakeTool, scripted_forward
from gtpo_jax.tools import ExecutorBusy
from gtpo_jax.types import Problem, StopReason, ToolResult, ToolStatus, Verdict
from gtpo_jax.verifiers import numeric_or_exact
from tests.tiny import BYTES, DIALOGUE, compilations

LIMITS = RolloutLimits(
    slots=3,
    context=64,
    prompt_tokens=12,
    max_turns=3,
    turn_tokens=24,
    observation_tokens=16,
    segment_steps=4,
    prefill_prompts=2,
    extend_width=5,
)
END = BYTES.control_id(grammar.END)
MARKUP = "<|end|><answer>4"
# Not UTF-8: decoded to text and encoded again, these ids would become others.
UNPRINTABLE = np.array([200, 255, 129, 0, 0], np.int32)
OUTPUTS = {
    "2+2": "4",
    "1/0": ToolResult(status=ToolStatus.ERROR, stderr="ZeroDivisionError"),
    "boom": INFRA_FAILURE,
    "text": MARKUP,
    "long": "0123456789" * 3,
    "slow": "9",
    "a" * 18: "x" * 40,
    "b" * 10: "y" * 40,
}


def call(code, thought=""):
    return DIALOGUE.call(thought, code)


def answer(text="4"):
    return DIALOGUE.answer("", text)


def observed(output):
    return DIALOGUE.observation(output, budget=LIMITS.observation_tokens)[0]


def unclosed(code):
    return DIALOGUE.unclosed_call("", code)


def raw(text):
    return np.array([*text.encode(), END], np.int32)


# Question → all that follows the prompt; what the environment writes stands between the turns.
SCRIPTS = {
    "right": [call("2+2"), observed("4"), answer("4")],
    "wrong": [call("2+2"), observed("4"), answer("5")],
    "at once": [answer("4")],
    "none": [raw("hm")],
    "loop": [call("2+2"), observed("4")] * 3,
    "long": [np.full(40, ord("z"), np.int32)],
    "cut": [call("a" * 18), observed("x" * 40), np.full(24, ord("z"), np.int32)],
    "no room": [call("a" * 18), observed("x" * 40), call("b" * 10)],
    "broken": [call("boom"), observed("never read"), answer("4")],
    "recover": [call("1/0"), observed("ZeroDivisionError"), call("2+2"), observed("4"), answer()],
    "unclosed": [
        unclosed("2+2"),
        observed("Error: the code is not enclosed once"),
        call("2+2"),
        observed("4"),
        answer(),
    ],
    "bytes": [np.concatenate([UNPRINTABLE, call("2+2")]), observed("4"), answer()],
    "markup": [call("text"), observed(MARKUP), answer()],
    "cut off": [call("long"), observed("0123456789" * 3), answer()],
    "slow": [call("slow"), observed("9"), answer("9")],
}
FAULTLESS = (
    "right", "wrong", "at once", "none", "loop", "recover", "unclosed", "bytes", "markup",
    "cut off", "slow",
)  # fmt: skip


def problem(question):
    return Problem(id=question, question=question, answer="4")


def requests(*questions):
    return [
        Request(problem=problem(question), group=group, sample=0)
        for group, question in enumerate(questions)
    ]


@pytest.fixture(scope="module")
def policy():
    dialogues = [
        np.concatenate([DIALOGUE.prompt(question), *parts]) for question, parts in SCRIPTS.items()
    ]
    return scripted_forward(dialogues, vocab_size=BYTES.vocab_size, otherwise=ord("?"))


@pytest.fixture(scope="module")
def shared_engine(policy):
    tool = FakeTool(OUTPUTS)
    return RolloutEngine(policy, DIALOGUE, tool, numeric_or_exact, LIMITS, sampling.categorical)


@pytest.fixture
def engine(shared_engine):
    """The programs are compiled once; every test has its own tool."""
    shared_engine.tool = FakeTool(OUTPUTS)
    return shared_engine


def run(engine, *questions, **arguments):
    return engine.run({}, requests(*questions), seed=0, step=0, **arguments)[0]


@pytest.mark.parametrize(
    ("question", "stop", "verdict", "turns", "included"),
    [
        ("right", StopReason.ANSWERED, Verdict.RIGHT, 2, True),
        ("wrong", StopReason.ANSWERED, Verdict.WRONG, 2, True),
        ("at once", StopReason.ANSWERED, Verdict.RIGHT, 1, True),
        ("none", StopReason.NO_ACTION, Verdict.NO_ANSWER, 1, True),
        ("loop", StopReason.MAX_TURNS, Verdict.NO_ANSWER, 3, True),
        ("long", StopReason.TURN_LIMIT, Verdict.NO_ANSWER, 1, True),
        ("cut", StopReason.CONTEXT_FULL, Verdict.NO_ANSWER, 2, False),
        ("no room", StopReason.CONTEXT_FULL, Verdict.NO_ANSWER, 2, False),
        ("broken", StopReason.TOOL_FAILURE, Verdict.NO_ANSWER, 1, False),
        ("recover", StopReason.ANSWERED, Verdict.RIGHT, 3, True),
        ("unclosed", StopReason.ANSWERED, Verdict.RIGHT, 3, True),
    ],
)
def test_episode_ends_for_the_reason_stated(engine, question, stop, verdict, turns, included):
    # Every way to end has its verdict, its turns, and its place in the loss.
    [trajectory] = run(engine, question)
    assert (trajectory.stop_reason, trajectory.verdict) == (stop, verdict)
    assert (len(trajectory.turns), trajectory.included) == (turns, included)


def test_turns_are_the_script_token_by_token(engine):
    # The script goes on only behind exactly its own past, so what the decoder was fed is what
    # was sampled, also where the ids do not survive decoding and encoding.
    assert BYTES.encode(BYTES.decode(UNPRINTABLE)) != UNPRINTABLE.tolist()
    for trajectory in run(engine, *FAULTLESS):
        parts = SCRIPTS[trajectory.problem.question]
        for index, turn in enumerate(trajectory.turns):
            np.testing.assert_array_equal(turn.tokens, parts[2 * index])
            if len(turn.observation):
                np.testing.assert_array_equal(turn.observation, parts[2 * index + 1])
            assert turn.tokens.dtype == turn.observation.dtype == np.int32


def test_only_sampled_tokens_are_trained_the_end_of_turn_among_them(engine):
    # The turn of "bytes" holds id 0, which is also the id of padding.
    trajectories = run(engine, *FAULTLESS)
    advantages = np.arange(3 * len(trajectories), dtype=np.float32).reshape(-1, 3)
    batch = packing.pack(trajectories, advantages, micro_batches=1, rows=6, row_length=128)
    for index, trajectory in enumerate(trajectories):
        here = batch.trajectory_ids == index
        mask, turn_ids, tokens = (x[here] for x in (batch.loss_mask, batch.turn_ids, batch.tokens))
        assert len(mask) == trajectory.length
        assert mask.tolist() == (turn_ids >= 0).tolist()
        trained = turn_ids[mask]
        assert np.all(np.diff(trained) >= 0)
        for turn_index, turn in enumerate(trajectory.turns):
            own = turn_ids == turn_index
            assert tokens[own].tolist() == turn.tokens.tolist()
            assert tokens[own][-1] == END and mask[own].all()
            assert batch.behavior_logprobs[here][own].tolist() == turn.logprobs.tolist()
            assert set(batch.token_advantages[here][own]) == {advantages[index, turn_index]}
        # The prompt and the observations hold END as well; there it is not trained.
        assert np.count_nonzero((tokens == END) & ~mask) == len(trajectory.turns)
    assert np.count_nonzero(batch.loss_mask) == sum(
        len(turn.tokens) for t in trajectories for turn in t.turns
    )


def test_lengths_agree_after_every_ending(engine):
    # Also where a turn or an observation was cut off.
    for trajectory in run(engine, *SCRIPTS):
        assert trajectory.length <= LIMITS.context
        for turn in trajectory.turns:
            assert len(turn.tokens) == len(turn.logprobs) > 0
            assert len(turn.tokens) <= LIMITS.turn_tokens
            assert len(turn.observation) <= LIMITS.observation_tokens
            assert np.all(turn.logprobs <= 0) and np.all(np.isfinite(turn.logprobs))


def test_turn_that_the_context_cuts_is_not_blamed_for_its_length(engine):
    [trajectory] = run(engine, "cut")
    assert trajectory.length == LIMITS.context
    assert len(trajectory.turns[-1].tokens) < LIMITS.turn_tokens
    assert trajectory.stop_reason.truncated


def test_violations_are_recorded_and_answered_without_the_tool(engine):
    trajectories = run(engine, "unclosed", "at once", "right", "none", "long")
    violations = [[turn.violation is not None for turn in t.turns] for t in trajectories]
    assert violations == [[True, False, False], [True], [False, False], [True], [True]]
    assert engine.tool.codes == ["2+2"] * 2
    first = trajectories[0].turns[0]
    assert first.code is None and first.results == ()
    assert BYTES.decode(first.observation) == "<|tool|>Error... once<|end|><|assistant|>"


def test_call_of_the_last_turn_is_not_run(engine):
    [trajectory] = run(engine, "loop")
    assert engine.tool.codes == ["2+2"] * 2
    assert trajectory.turns[-1].code == "2+2" and trajectory.turns[-1].results == ()


def test_control_symbols_that_a_tool_prints_stay_text(engine):
    [trajectory] = run(engine, "markup")
    observation = trajectory.turns[0].observation
    assert [i >= 256 for i in observation] == [True, *[False] * 13, True, True]
    shown = f"{MARKUP[:5]}...{MARKUP[-5:]}"
    assert BYTES.decode(observation) == f"<|tool|>{shown}<|end|><|assistant|>"
    assert trajectory.turns[0].observation_dropped == len(MARKUP) - 10
    assert len(trajectory.turns) == 2


def test_long_observation_is_cut_in_its_middle_and_counted(engine):
    # 16 tokens fit, 3 of them are markers.
    [trajectory] = run(engine, "cut off")
    turn = trajectory.turns[0]
    assert BYTES.decode(turn.observation) == "<|tool|>01234...56789<|end|><|assistant|>"
    assert turn.observation_dropped == 30 - 10
    assert trajectory.turns[1].observation_dropped == 0


def test_broken_tool_excludes_its_trajectory_alone(engine):
    # A failure of ours is not a failure of the policy.
    trajectories = run(engine, "broken", "right")
    assert [t.included for t in trajectories] == [False, True]
    assert trajectories[0].turns[0].results == (INFRA_FAILURE,)
    assert len(trajectories[0].turns[0].observation) == 0
    batch = packing.pack(trajectories, np.ones((2, 3)), micro_batches=1, rows=2, row_length=64)
    assert set(batch.trajectory_ids.ravel()) == {-1, 1}


def test_results_come_in_the_order_of_requests_through_few_slots(engine):
    questions = [*SCRIPTS, *SCRIPTS]
    trajectories = run(engine, *questions)
    assert [t.problem.question for t in trajectories] == questions
    assert [t.group for t in trajectories] == list(range(len(questions)))
    for first, second in zip(trajectories, trajectories[len(SCRIPTS) :], strict=False):
        assert [t.tokens.tolist() for t in first.turns] == [t.tokens.tolist() for t in second.turns]


@pytest.mark.slow
def test_stop_string_ends_a_turn_and_the_environment_adds_the_marker():
    # All that was sampled is the turn, the marker that was not is the environment's.
    dialogue_ = grammar.Dialogue(BYTES, stop_strings=("STOP", "@@"))
    question, written = "stops", [BYTES.control_id(grammar.CODE), *b"2+2"]
    written += [BYTES.control_id(grammar.CODE_END), *b"ST", *b"OSTOP"]
    reply, _ = dialogue_.observation("4", budget=16, ended=False)
    assert BYTES.decode(reply) == "<|end|><|tool|>4<|end|><|assistant|>"
    script = np.concatenate([dialogue_.prompt(question), written, reply, answer()])
    never = np.concatenate([dialogue_.prompt("never"), call("2+2"), observed("4"), answer()])
    forward = scripted_forward([script, never], vocab_size=BYTES.vocab_size, otherwise=ord("?"))
    engine = RolloutEngine(
        forward, dialogue_, FakeTool(OUTPUTS), numeric_or_exact, LIMITS, sampling.categorical
    )
    stopped, marked = run(engine, question, "never")
    assert [t.stop_reason for t in (stopped, marked)] == [StopReason.ANSWERED] * 2
    turn = stopped.turns[0]
    assert turn.tokens.tolist() == written and turn.codes == ("2+2",) and turn.violation is None
    assert turn.observation.tolist() == reply.tolist()
    assert marked.turns[0].tokens[-1] == END
    batch = packing.pack([stopped], np.ones((1, 3)), micro_batches=1, rows=1, row_length=64)
    begin = len(stopped.prompt)
    trained = batch.loss_mask[0, 0, begin : begin + len(written) + len(reply)]
    assert trained.tolist() == [True] * len(written) + [False] * len(reply)


@pytest.mark.slow
def test_turn_of_several_calls_is_observed_once_all_have_returned():
    dialogue_ = grammar.Dialogue(BYTES, most_calls=2)
    both = np.concatenate([call("2+2")[:-1], call("1/0")])
    reply, _ = dialogue_.observation("4\nZeroDivisionError", budget=LIMITS.observation_tokens)
    three = np.concatenate([call("2+2")[:-1], both])
    told, _ = dialogue_.observation("Error: the code is not enclosed once", budget=16)
    scripts = {
        "both": [both, reply, answer()],
        "three": [three, told, answer()],
        "one bad": [np.concatenate([call("2+2")[:-1], call("boom")])],
    }
    forward = scripted_forward(
        [np.concatenate([dialogue_.prompt(q), *parts]) for q, parts in scripts.items()],
        vocab_size=BYTES.vocab_size,
        otherwise=ord("?"),
    )
    latencies = {"2+2": 0.2, "1/0": 0.0, "boom": 0.1}
    with FakeTool(OUTPUTS, seconds=latencies.__getitem__, threads=4) as tool:
        engine = RolloutEngine(
            forward,
            dialogue_,
            tool,
            numeric_or_exact,
            dataclasses.replace(LIMITS, turn_tokens=30, context=80),
            sampling.categorical,
        )
        good, too_many, broken = run(engine, *scripts)
    assert good.success and good.turns[0].codes == ("2+2", "1/0")
    assert [r.status for r in good.turns[0].results] == [ToolStatus.OK, ToolStatus.ERROR]
    assert good.turns[0].observation.tolist() == reply.tolist()
    assert too_many.turns[0].codes == () and too_many.turns[0].violation is not None
    assert broken.stop_reason is StopReason.TOOL_FAILURE
    assert broken.turns[0].results[1] is INFRA_FAILURE
    assert sorted(tool.codes) == ["1/0", "2+2", "2+2", "boom"]


def test_tool_without_room_gets_its_calls_later_and_in_order(engine):
    class Narrow(FakeTool):
        """Takes one call at a time and refuses the others."""

        refused = 0

        def submit(self, code, *, timeout=None):
            if any(not call.done() for call in self.calls):
                self.refused += 1
                raise ExecutorBusy("one at a time")
            return super().submit(code, timeout=timeout)

    with Narrow(OUTPUTS, seconds=0.02, threads=1) as engine.tool:
        trajectories = run(engine, "right", "recover", "slow", "wrong")
        assert engine.tool.refused > 0
    assert [t.stop_reason for t in trajectories] == [StopReason.ANSWERED] * 4


def test_progress_is_told_while_everybody_waits_for_a_tool(engine, monkeypatch):
    monkeypatch.setattr("gtpo_jax.rollout.calls.WAIT_SECONDS", 0.02)
    looks = []
    with FakeTool(OUTPUTS, seconds=0.5, threads=1) as engine.tool:
        run(engine, "right", on_progress=looks.append)
    assert sum(look.tools_in_flight == 1 for look in looks) >= 5


def test_segment_is_left_early_only_while_others_wait(engine):
    # Rows whose turns have ended do not idle beside one that goes on, if there is work for them.
    many, stats = engine.run({}, requests(*["none"] * 9, "long"), seed=0, step=0)
    assert [t.stop_reason for t in many[:9]] == [StopReason.NO_ACTION] * 9
    alone = engine.run({}, requests("long"), seed=0, step=0)[1]
    assert alone.row_steps == LIMITS.slots * LIMITS.turn_tokens
    assert stats.row_steps <= alone.row_steps + LIMITS.slots * 3 * 4


def test_no_request_gives_no_trajectory(engine):
    assert run(engine) == []


def test_slow_call_does_not_hold_up_other_rows(engine, monkeypatch):
    # The slow call returns only when all others have finished, refilled rows included.
    released, finished = threading.Event(), []

    def results(code):
        if code == "slow" and not released.wait(60):
            return "the others never finished"
        return OUTPUTS[code]

    def verifier(problem, answer):
        finished.append(problem.question)
        if len(finished) == 6:
            released.set()
        return numeric_or_exact(problem, answer)

    monkeypatch.setattr(engine, "verifier", verifier)
    with FakeTool(results, threads=2) as engine.tool:
        trajectories = run(engine, "slow", *["recover", "right"] * 3)
    assert trajectories[0].answer == "9" and finished[-1] == "slow"
    assert all(t.success for t in trajectories[1:])


@pytest.mark.slow
@pytest.mark.parametrize("axes", [None, pytest.param({"data": 4}, marks=pytest.mark.long)])
def test_trajectories_wait_beside_the_rows_and_leave_them_to_others(policy, axes):
    # The calls return once seven are in flight, and there are four rows.
    mesh = axes and sharding.make_mesh(**axes, devices=jax.devices()[:4])
    limits = dataclasses.replace(LIMITS, slots=4, parked=4, first_cache=24)
    together = threading.Barrier(7)

    def results(code):
        if code == "slow":
            together.wait(60)
        return OUTPUTS[code]

    with FakeTool(results, threads=7) as tool:
        engine = RolloutEngine(
            policy, DIALOGUE, tool, numeric_or_exact, limits, sampling.greedy, mesh=mesh
        )
        engine.warm_up({})
        with compilations() as compiled:
            trajectories = run(engine, *["slow"] * 7, *["recover"] * 5)
    assert compiled == []
    assert [t.answer for t in trajectories] == ["9"] * 7 + ["4"] * 5
    assert [len(t.turns) for t in trajectories] == [2] * 7 + [3] * 5


def test_rows_wait_for_the_call_when_nothing_else_is_left(engine):
    looks = []
    with FakeTool(OUTPUTS, seconds=0.3, threads=3) as engine.tool:
        began = time.monotonic()
        trajectories = run(engine, "right", "wrong", on_progress=looks.append)
    assert [t.stop_reason for t in trajectories] == [StopReason.ANSWERED] * 2
    assert time.monotonic() - began > 0.3
    assert len(looks) < 20  # it waited, and did not spin


def test_latency_changes_nothing_but_the_time(engine):
    at_once = run(engine, *FAULTLESS)
    latencies = iter(np.random.default_rng(0).uniform(0, 0.1, 100))
    with FakeTool(OUTPUTS, seconds=lambda code: next(latencies), threads=4) as engine.tool:
        later = run(engine, *FAULTLESS)
    for a, b in zip(at_once, later, strict=True):
        assert a.stop_reason == b.stop_reason and a.answer == b.answer
        for first, second in zip(a.turns, b.turns, strict=True):
            np.testing.assert_array_equal(first.tokens, second.tokens)
            np.testing.assert_array_equal(first.observation, second.observation)


def test_error_on_the_way_cancels_the_calls_in_flight(engine):
    started, released = threading.Event(), threading.Event()

    def results(code):
        started.set()
        assert released.wait(60)
        return OUTPUTS[code]

    def on_progress(progress):
        if progress.tools_in_flight == 2:
            raise KeyboardInterrupt

    with FakeTool(results, threads=1) as engine.tool:
        with pytest.raises(KeyboardInterrupt):
            run(engine, "right", "wrong", "long", on_progress=on_progress)
        assert started.wait(60)
        assert [future.cancelled() for future in engine.tool.calls] == [False, True]
        released.set()
    engine.tool = FakeTool(OUTPUTS)
    assert [t.success for t in run(engine, "right", "wrong")] == [True, False]


def test_tool_that_raises_ends_its_own_trajectory_alone(engine):
    def results(code):
        if code == "1/0":
            raise KeyError("broken")
        return OUTPUTS[code]

    with FakeTool(results, threads=1) as engine.tool:
        broken, right = run(engine, "recover", "right")
    assert broken.stop_reason is StopReason.TOOL_FAILURE and not broken.included
    assert "KeyError: 'broken'" in broken.turns[0].results[0].stderr
    assert right.success


def test_code_that_a_tool_refuses_to_take_reaches_the_caller(engine):
    engine.tool = FakeTool({})
    with pytest.raises(ValueError, match="no result for '2\\+2'"):
        run(engine, "right")


def test_group_shares_one_prefill(engine, monkeypatch):
    programs, calls = engine.programs, []

    def prefill(params, state, prompts):
        calls.append((len(prompts.tokens), np.asarray(prompts.source).tolist()))
        return programs.prefill(params, state, prompts)

    monkeypatch.setattr(engine, "programs", dataclasses.replace(programs, prefill=prefill))
    group = [Request(problem=problem("right"), group=0, sample=sample) for sample in range(3)]
    trajectories, _ = engine.run({}, group, seed=0, step=0)
    assert calls == [(1, [0, 0, 0])]
    assert [t.sample for t in trajectories] == [0, 1, 2]
    assert all(t.success for t in trajectories)
    # Three problems take two calls: one call holds two prompts.
    calls.clear()
    run(engine, "right", "none", "at once")
    assert calls == [(2, [0, 1, -1]), (1, [-1, -1, 0])]
    # Who comes later copies the prompt from a row that has held it, even one that has ended.
    calls.clear()
    group = [Request(problem=problem("right"), group=0, sample=sample) for sample in range(7)]
    engine.run({}, group, seed=0, step=0)
    assert calls[0] == (1, [0, 0, 0])
    assert all(count == 0 and max(source) in range(3) for count, source in calls[1:])


def test_stats_and_progress_count_what_happened(engine):
    seen = []
    group = requests("right", "none", "recover", "loop", "broken")
    trajectories, stats = engine.run({}, group, seed=0, step=0, on_progress=seen.append)
    assert stats.sampled_tokens == sum(len(u.tokens) for t in trajectories for u in t.turns)
    assert stats.tool_calls == len(engine.tool.codes) == 1 + 2 + 2 + 1
    assert stats.row_steps >= stats.sampled_tokens
    finished = [progress.finished for progress in seen]
    assert finished == sorted(finished) and finished[-1] == seen[-1].total == 5
    assert seen[-1].active_rows == seen[-1].tools_in_flight == 0


def test_prompt_that_is_too_long_is_an_error_that_names_the_problem(engine):
    with pytest.raises(ValueError, match=r"'a question too long' has 22 tokens.* is 12"):
        run(engine, "right", "a question too long")
    assert engine.tool.codes == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"slots": 0}, "slots"),
        ({"prompt_tokens": 64}, "context of 64"),
        ({"segment_steps": -1}, "segment_steps"),
    ],
)
def test_limits_that_cannot_work_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(LIMITS, **changes)


def test_engine_refuses_what_would_fail_on_the_way():
    def make(limits=LIMITS, vocab_size=BYTES.vocab_size):
        forward = scripted_forward([[1]], vocab_size=vocab_size, otherwise=0)
        tool = FakeTool(OUTPUTS)
        return rollout.RolloutEngine(
            forward, DIALOGUE, tool, numeric_or_exact, limits, sampling.greedy
        )

    make()
    with pytest.raises(ValueError, match="at least 3 tokens"):
        make(dataclasses.replace(LIMITS, observation_tokens=2))
    with pytest.raises(ValueError, match="the tokenizer has 264 tokens, the model only 200"):
        make(vocab_size=200)
