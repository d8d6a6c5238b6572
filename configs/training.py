"""The training step that a config describes."""

from __future__ import annotations

import functools

import jax

from configs.parts import make_optimizer
from configs.schema import RunConfig
from gtpo_jax.decoding import sampling
from gtpo_jax.decoding.diffusion import Canvas
from gtpo_jax.learner import diffusion
from gtpo_jax.methods import Method
from gtpo_jax.parts import facts
from gtpo_jax.parts.plans import HostedPlan
from gtpo_jax.tasks.source import ProblemSource
from gtpo_jax.training import COMPUTED, Layout, Put, Training
from gtpo_jax.types import AnswerTokens, ForwardFn


def make_layout(config: RunConfig, method: Method) -> Layout:
    """The batches of a step, with room for all trajectories that the plan may return."""
    train, plan = config.train, method.plan
    largest = method.prompts.largest(train.prompts, train.group_size)
    return Layout(
        groups=train.prompts,
        group_size=plan.returned(train.group_size),
        largest_group=plan.returned(largest) if largest != train.group_size else 0,
        max_turns=config.rollout.max_turns if config.model.causal else config.diffusion.steps,
        row_tokens=train.row_tokens or config.rollout.context,
        rows=train.rows,
        minibatches=train.minibatches,
        epochs=train.epochs,
        row_buckets=train.row_buckets,
        shared_prompts=train.shared_prompts,
    )


def make_sampler(config: RunConfig, method: Method) -> sampling.Sampler:
    """The sampler of the rollouts that are trained on; it records what the loss compares with."""
    temperature = config.train.temperature
    sampler = functools.partial(sampling.categorical, temperature=temperature)
    count = max(method.loss.candidates, method.plan.candidates)
    if not count:
        return sampler
    return sampling.recording(sampler, count=count, temperature=temperature)


def check_facts(method: Method, source: ProblemSource | None) -> None:
    """Raises `ValueError`, with one line, for a fact of the method that a run would not have.

    The record of the first training problem must have the fields that facts are read from, as the
    records of all others. None: the problems are not at hand.
    """
    facts.check_provided(method.facts, COMPUTED)
    check = method.plan.check if isinstance(method.plan, HostedPlan) else None
    if source is not None and (check or any(fact.fields for fact in method.facts)):
        problem = source.train_problem(0)
        facts.check_fields(method.facts, problem.info, problem.id)
        if check is not None:
            check(problem)


def check_canvas(config: RunConfig, method: Method) -> None:
    """Raises `ValueError` for settings that a diffusion model cannot use or that others ignore."""
    canvas, limits = config.diffusion, config.rollout
    if config.model.causal:
        if canvas != Canvas():
            raise ValueError(
                "the options --diffusion.* are for a diffusion model, and model.mask_id is not set;"
                " leave them out, or take the preset diffusion"
            )
        return
    if limits.prompt_tokens + canvas.tokens > limits.context:
        raise ValueError(
            f"a prompt of {limits.prompt_tokens} tokens (rollout.prompt_tokens) and a response of"
            f" {canvas.tokens} (diffusion.tokens) exceed rollout.context {limits.context}; raise it"
        )
    if config.train.shared_prompts:
        raise ValueError(
            "train.shared_prompts is for causal models: a prompt sees the response here; leave it"
            " out"
        )
    if method.loss.candidates or method.plan.candidates:
        raise ValueError(
            "the method compares candidates of every token, which denoising does not record; choose"
            " another one"
        )


def make_training(
    config: RunConfig,
    forward: ForwardFn,
    method: Method,
    *,
    answer_tokens: AnswerTokens,
    put: Put = jax.device_put,
) -> Training:
    """The step of `launch.train`, which `launch.plan` compiles for other machines.

    `put` places batches on the devices; `answer_tokens` writes the gold answers of problems.
    """
    train = config.train
    if config.model.mask_id is not None:
        forward = diffusion.scored(
            forward,
            method.loss,
            mask_id=config.model.mask_id,
            steps=config.diffusion.steps,
            seed=config.seed,
        )
    return Training(
        forward,
        make_optimizer(
            train.optimizer, steps=train.steps, updates=train.minibatches * train.epochs
        ),
        method,
        make_layout(config, method),
        temperature=train.temperature,
        chunk=train.logprob_chunk,
        seed=config.seed,
        put=put,
        answer_tokens=answer_tokens,
    )
