"""The part of transformers and Tunix in `benchmarks.rollout`, run by an interpreter that has them.

python rollout_peers.py '{"vocab": 512, ...}'

Prints the installed peers and their versions as one line of JSON. For each line of its input, the
name of a peer, it runs that once, and prints wall seconds, CPU seconds of the whole process, and
the number of tokens sampled. It imports nothing from this repository.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable

Runner = Callable[[], int]  # → tokens sampled

# Ids as in the byte tokenizer of `gtpo_jax.testing`.
USER, ASSISTANT, TOOL, END = range(256, 260)


class CharTokenizer:
    """A tokenizer of the characters below 512: text survives decoding and encoding."""

    def encode(self, text: str, **_: object) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids))

    def bos_id(self) -> int:
        return 510

    def eos_id(self) -> int:
        return END

    def pad_id(self) -> int:
        return 511


def make_transformers(shape: dict[str, int]) -> dict[str, Runner]:
    """`generate` of a Qwen2 model with random weights, a dynamic cache and no end of sequence."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=shape["vocab"],
        hidden_size=shape["width"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["query_heads"],
        num_key_value_heads=shape["kv_heads"],
        intermediate_size=shape["mlp_width"],
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = transformers.Qwen2ForCausalLM(config).eval()
    prompts = torch.randint(0, shape["vocab"], (shape["rows"], shape["prompt"]))

    @torch.inference_mode()
    def run(threads: int) -> int:
        torch.set_num_threads(threads)
        out = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=shape["new_tokens"],
        )
        return out[:, prompts.shape[1] :].numel()

    return {
        "transformers": functools.partial(run, shape["threads"]),
        "transformers, 1 thread": functools.partial(run, 1),
    }


def make_tunix(shape: dict[str, int]) -> dict[str, Runner]:
    """The built-in sampler with the log-probs that training needs, and agentic episodes on it."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx
    from tunix.generate import sampler
    from tunix.models.qwen2 import model as qwen2

    config = qwen2.ModelConfig(
        num_layers=shape["layers"],
        vocab_size=shape["vocab"],
        embed_dim=shape["width"],
        hidden_dim=shape["mlp_width"],
        num_heads=shape["query_heads"],
        head_dim=shape["head_dim"],
        num_kv_heads=shape["kv_heads"],
        rope_theta=1_000_000,
        norm_eps=1e-6,
        use_tied_embedding=True,
    )

    class Countdown(qwen2.Qwen2):
        """The policy of `benchmarks.rollout`: a random first token, then down to the end."""

        def __call__(self, input_tokens: jax.Array, *args: object, **kwargs: object):
            logits, cache = super().__call__(input_tokens, *args, **kwargs)
            ids = jnp.arange(shape["vocab"])
            first = (ids >= shape["shortest"] - 2) & (ids <= shape["longest"] - 2)
            following = jnp.where(input_tokens == 0, END, input_tokens - 1)[..., None]
            begins = (input_tokens == ASSISTANT)[..., None]
            allowed = jnp.where(begins, first, ids == following)
            return jnp.where(allowed, 1e-6 * logits, -1e9), cache

    rng = np.random.default_rng(0)
    texts = rng.integers(0, 256, (shape["rows"], shape["prompt"] - 1))  # plus a first token
    prompts = ["".join(map(chr, text)) for text in texts]
    cache = sampler.CacheConfig(
        cache_size=shape["prompt"] + shape["new_tokens"],
        num_layers=shape["layers"],
        num_kv_heads=shape["kv_heads"],
        head_dim=shape["head_dim"],
    )
    plain = sampler.Sampler(qwen2.Qwen2(config, rngs=nnx.Rngs(0)), CharTokenizer(), cache)
    seeds = itertools.count()

    def generate() -> int:
        out = plain(
            prompts,
            max_generation_steps=shape["new_tokens"],
            max_prompt_length=shape["prompt"],
            return_logprobs=True,
            eos_tokens=[-1],
            temperature=1.0,
            top_p=1.0,
            seed=next(seeds),
        )
        return sum(len(tokens) for tokens in out.tokens)

    runners: dict[str, Runner] = {"tunix": generate}
    if shape["episodes"]:
        model = Countdown(config, rngs=nnx.Rngs(0))
        for name, fixed in {"tunix agentic": False, "tunix agentic, fixed shapes": True}.items():
            runners[name] = agentic_runner(model, shape, fixed_shapes=fixed)
    return runners


def agentic_runner(model: object, shape: dict[str, int], *, fixed_shapes: bool) -> Runner:
    """Episodes as `AgenticRLLearner` runs them: its orchestrator, its collector, its engine.

    The learner itself and the cluster around the engine are left out. As there, each call of the
    model may write as many tokens as the episode has left, and that is a shape of the sampler's
    programs. With `fixed_shapes` a call always has room for a whole episode, so nothing is compiled
    after warm-up.
    """
    import dataclasses

    from tunix.generate.tokenizer_adapter import TokenizerAdapter
    from tunix.rl.agentic import utils
    from tunix.rl.agentic.agents.model_agent import ModelAgent
    from tunix.rl.agentic.environments.base_environment import BaseTaskEnv, EnvStepResult
    from tunix.rl.agentic.pipeline.rollout_orchestrator import RolloutOrchestrator
    from tunix.rl.rollout import base_rollout
    from tunix.rl.rollout.vanilla_rollout import VanillaRollout

    turns = shape["turns"]
    budget = turns * (shape["longest"] + shape["observation"])
    longest_prompt = shape["prompt"] + 1 + budget
    tokenizer = TokenizerAdapter(CharTokenizer())
    cache = base_rollout.CacheConfig(
        cache_size=longest_prompt + budget,
        num_layers=shape["layers"],
        num_kv_heads=shape["kv_heads"],
        head_dim=shape["head_dim"],
    )
    engine = VanillaRollout(model, tokenizer, cache)
    config = base_rollout.RolloutConfig(
        max_tokens_to_generate=budget,
        max_prompt_length=longest_prompt,
        temperature=1.0,
        top_p=1.0,
        eos_tokens=[END],
        return_logprobs=True,
    )
    seeds = itertools.count()

    class Chat:
        """Our chat format: a marker before every message, the end marker after it."""

        assistant_token = chr(ASSISTANT)

        def parse(
            self,
            messages: list[dict[str, str]],
            add_generation_prompt: bool = False,
            is_first_msg: bool = False,
        ) -> str:
            del is_first_msg
            markers = {"user": chr(USER), "assistant": chr(ASSISTANT)}
            parts = [
                markers[message["role"]] + message["content"] + chr(END)
                for message in messages
                if message["role"] in markers
            ]
            return "".join(parts) + (chr(ASSISTANT) if add_generation_prompt else "")

    class Environment(BaseTaskEnv):
        def _initial_observation(self) -> dict[str, str]:
            return self.task

        def _step_impl(self, action: object) -> EnvStepResult:
            del action
            output = "0" * (shape["observation"] - 3)
            return EnvStepResult(observation=output, reward=0.0, done=False, info={})

    chat = Chat()
    sampled: list[int] = []

    def model_call(
        messages: list[dict[str, str]], env: object = None, max_generation_steps: int | None = None
    ) -> base_rollout.RolloutOutput:
        del env
        steps = budget if fixed_shapes or max_generation_steps is None else max_generation_steps
        text = chat.parse(messages, add_generation_prompt=True, is_first_msg=True)
        call = dataclasses.replace(config, max_tokens_to_generate=steps, seed=next(seeds))
        output = engine.generate([text], call)
        sampled.append(len(output.tokens[0]))
        return output

    async def collect() -> None:
        orchestrator = RolloutOrchestrator(
            rollout_sync_lock=utils.RolloutSyncLock(),
            engine_kwargs={
                "model_call": model_call,
                "tokenizer": tokenizer,
                "chat_parser": chat,
                "max_response_length": 10 * budget if fixed_shapes else budget,
            },
            max_concurrency=32,
        )
        pairs = [
            (
                ModelAgent(system_prompt=""),
                Environment(
                    {"question": f"{group:0{shape['prompt'] - 3}}"},
                    max_steps=turns,
                    group_id=group,
                    pair_index=index,
                ),
            )
            for group in range(shape["episodes"] // shape["group_size"])
            for index in range(shape["group_size"])
        ]
        producer = asyncio.create_task(
            orchestrator.run_producers_from_stream(
                pairs,
                group_size=shape["group_size"],
                group_key_fn=lambda _, env, __: env.extra_kwargs["group_id"],
                collect_mode="Token",
            )
        )
        await asyncio.sleep(0)  # the producer makes the queue before it first waits
        collected = 0
        async for batch in orchestrator.yield_batches(shape["group_size"]):
            collected += len(batch)
            if collected == len(pairs):
                break
        await producer
        if collected != len(pairs):
            raise RuntimeError(f"{collected} of {len(pairs)} episodes came back")

    def run() -> int:
        sampled.clear()
        asyncio.run(collect())
        if len(sampled) != turns * shape["episodes"]:
            raise RuntimeError(f"{shape['episodes']} episodes took {len(sampled)} turns")
        return sum(sampled)

    return run


MAKERS = {
    "transformers": (("torch", "transformers"), make_transformers),
    "tunix": (("tunix",), make_tunix),
}


def main(text: str) -> None:
    shape = json.loads(text)
    answers = sys.stdout
    runners: dict[str, Runner] = {}
    versions: dict[str, str] = {}
    # The peers' own output is discarded; a peer that is not installed is left out.
    with contextlib.redirect_stdout(sys.stderr):
        for peer, (needed, make) in MAKERS.items():
            if all(importlib.util.find_spec(name) for name in needed):
                runners |= make(shape)
                versions[peer] = __import__(peer).__version__
    installed = {"peers": list(runners), "versions": versions}
    print(json.dumps(installed), file=answers, flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(sys.stderr):
            tokens = runners[line.strip()]()
        cost = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "tokens": tokens,
        }
        print(json.dumps(cost), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
