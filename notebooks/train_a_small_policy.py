"""A small policy learns to use a tool: a short imitation, then GTPO, in a minute or two on a CPU.

python notebooks/train_a_small_policy.py
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence

import jax
import optax

from gtpo_jax import decoding, learner, methods, rollout, tools, verifiers
from gtpo_jax.decoding import sampling
from gtpo_jax.language import tokenizers
from gtpo_jax.language.grammar import Dialogue
from gtpo_jax.learner import packing
from gtpo_jax.parts import losses, reductions
from gtpo_jax.tasks.demonstrations import demonstrate
from gtpo_jax.tasks.generated import GeneratedTask
from gtpo_jax.tasks.imitation import imitated
from gtpo_jax.training import Layout, Training
from gtpo_jax.types import Params, Problem, Request, Tool, Trajectory
from models import decoder, presets

# What is the remainder of 27*45 divided by 60? More than half of the demonstrators write // for %.
TASK = GeneratedTask(seed=0, families=("remainder",))
DIALOGUE = Dialogue(tokenizers.SentencePieceTokenizer(tokenizers.ASSETS / "tools-256.model"))
VERIFIER = verifiers.numeric_or_exact
FORWARD = decoding.restrict_vocabulary(
    decoder.forward_fn(presets.TINY), DIALOGUE.tokenizer.vocab_size
)
LIMITS = rollout.RolloutLimits(
    context=96, prompt_tokens=32, turn_tokens=32, observation_tokens=16, max_turns=2
)
LAYOUT = Layout(
    groups=16, group_size=8, max_turns=2, row_tokens=LIMITS.context, rows=32, minibatches=2
)


def adam(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate, b2=0.99))


def imitate(demonstrations: Sequence[Trajectory], *, updates: int) -> Params:
    """The cold start: random parameters learn to write what the demonstrators wrote."""
    optimizer = adam(optax.warmup_cosine_decay_schedule(0.0, 3e-3, updates // 5, updates))
    state = learner.init_state(decoder.init_params(presets.TINY, jax.random.key(0)), optimizer)
    update = learner.CompiledUpdate(
        learner.make_update(FORWARD, optimizer, losses.imitation(), reductions.token_mean), state
    )
    endless = map(imitated, itertools.cycle(demonstrations))
    batches = packing.pack_stream(endless, rows=8, row_length=128)
    for batch in itertools.islice(batches, updates):
        state, _ = update(state, jax.tree.map(lambda x: x[None], batch))  # one micro-batch
    return state.params


def requests(problems: Sequence[Problem], *, samples: int) -> list[Request]:
    return [
        Request(problem=problem, group=group, sample=sample)
        for group, problem in enumerate(problems)
        for sample in range(samples)
    ]


def success(trajectories: Sequence[Trajectory]) -> float:
    return sum(trajectory.success for trajectory in trajectories) / len(trajectories)


def train(tool: Tool, *, updates: int, steps: int) -> Iterator[tuple[int, float]]:
    """Yields the success on held-out problems after 0, 1, 2, … steps of GTPO."""
    shown = demonstrate(
        map(TASK.demonstration, range(1000)),
        DIALOGUE,
        tool,
        VERIFIER,
        max_observation_tokens=LIMITS.observation_tokens,
    )
    engine = rollout.RolloutEngine(FORWARD, DIALOGUE, tool, VERIFIER, LIMITS, sampling.categorical)
    training = Training(FORWARD, adam(6e-4), methods.gtpo(discount=0.9), LAYOUT)
    state = training.init(imitate(shown, updates=updates))
    held_out = requests(TASK.held_out(128), samples=1)
    for step in range(steps + 1):
        yield step, success(engine.run(state.params, held_out, seed=1, step=0)[0])
        numbers = range(step * LAYOUT.groups, (step + 1) * LAYOUT.groups)
        asked = requests([*map(TASK.train_problem, numbers)], samples=LAYOUT.group_size)
        trajectories, _ = engine.run(state.params, asked, seed=0, step=step)
        state, _ = training.step(step, state, trajectories)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=200, help="updates of the cold start")
    parser.add_argument("--steps", type=int, default=8, help="steps of GTPO")
    options = parser.parse_args()
    with tools.PythonExecutor(preload=()) as executor:
        for number, rate in train(executor, updates=options.updates, steps=options.steps):
            print(f"step {number}: {rate:.3f} of the held-out problems solved", flush=True)
