"""The part of TRL and Tunix in `benchmarks.update`, run by an interpreter that has one of them.

python update_peers.py FOLDER '{"threads": 2, ...}'

FOLDER holds `checkpoint`, a model as `transformers` writes it, and `batch.npz`. Prints the
installed peers and their versions as one line of JSON. For each line of its input, the name of a
peer, it makes one update, and prints wall seconds, CPU seconds of the whole process, the loss, and
the norm of the gradient before clipping. It imports nothing from this repository.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import sys
import time
from typing import TextIO

import numpy as np


class Server:
    """Requests and answers, and the clock between them. The peers' own output is discarded."""

    def __init__(self, answers: TextIO):
        self.answers = answers
        self.loss, self.norm = 0.0, 0.0

    def say(self, answer: dict) -> None:
        print(json.dumps(answer), file=self.answers, flush=True)

    def begin(self) -> str:
        """The peer that is to make the next update; ends the process when there are no more
        requests.
        """
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self.loss = self.norm = 0.0
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return line.strip()

    def end(self) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.say({"wall": wall, "cpu": cpu, "loss": self.loss, "norm": self.norm})


CHECKPOINTING = "trl, gradient checkpointing"


def serve_trl(server: Server, folder: pathlib.Path, options: dict) -> None:
    """All of `GRPOTrainer.train` except the batch, which is given instead of generated."""
    import datasets
    import tokenizers
    import torch
    import transformers
    import trl

    torch.set_num_threads(options["threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "checkpoint", dtype=torch.float32
    )
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"0": 0, "1": 1}, unk_token="1"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="0", eos_token="1"
    )
    arrays = {name: torch.from_numpy(x) for name, x in np.load(folder / "batch.npz").items()}
    trained = arrays["trained"]
    batch = {
        "prompt_ids": arrays["prompt_ids"].long(),
        "prompt_mask": (arrays["prompt_ids"] != 0).long(),
        "completion_ids": arrays["completion_ids"].long(),
        "completion_mask": (arrays["completion_ids"] != 0).long(),
        "tool_mask": trained.long(),
        "advantages": arrays["advantages"],
        "old_per_token_logps": arrays["logprobs"],
        "num_items_in_batch": trained.sum(),
    }
    count = len(trained)
    size = min(options["peer_rows"], count)
    arguments = trl.GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=count // size,
        num_generations=2,
        max_steps=1_000_000,
        learning_rate=options["learning_rate"],
        lr_scheduler_type="constant",
        adam_beta1=options["b1"],
        adam_beta2=options["b2"],
        max_grad_norm=options["clip_norm"],
        epsilon=options["clip_low"],
        epsilon_high=options["clip_high"],
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )

    class GivenBatch(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs: object) -> dict[str, torch.Tensor]:
            del inputs
            return dict(batch)

        def compute_loss(self, *args: object, **kwargs: object) -> torch.Tensor:
            loss = super().compute_loss(*args, **kwargs)
            server.loss += loss.item()
            return loss

        def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
            norm = super()._clip_grad_norm(model)
            server.norm = float(norm)
            return norm

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            if server.begin() == CHECKPOINTING:
                model.gradient_checkpointing_enable()
            else:
                model.gradient_checkpointing_disable()

        def on_step_end(self, *_: object, **__: object) -> None:
            server.end()

    trainer = GivenBatch(
        model=model,
        args=arguments,
        reward_funcs=lambda **_: [],
        train_dataset=datasets.Dataset.from_dict({"prompt": ["1"] * count}),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    server.say({"peers": ["trl", CHECKPOINTING], "version": trl.__version__})
    trainer.train()


def serve_tunix(server: Server, folder: pathlib.Path, options: dict) -> None:
    """`Trainer` with the loss and the inputs of `GRPOLearner`, one step at a time."""
    import jax
    import jax.numpy as jnp
    import optax
    from tunix.models.qwen2 import model as qwen2
    from tunix.models.qwen2 import params
    from tunix.rl import common, function_registry, trainer
    from tunix.rl.grpo import grpo_learner
    from tunix.sft.peft_trainer import TrainingConfig

    shape = json.loads((folder / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    config = qwen2.ModelConfig(
        num_layers=shape["num_hidden_layers"],
        vocab_size=shape["vocab_size"],
        embed_dim=shape["hidden_size"],
        hidden_dim=shape["intermediate_size"],
        num_heads=shape["num_attention_heads"],
        head_dim=shape["hidden_size"] // shape["num_attention_heads"],
        num_kv_heads=shape["num_key_value_heads"],
        rope_theta=options["rope_theta"],
        norm_eps=shape["rms_norm_eps"],
        use_tied_embedding=True,
    )
    model = params.create_model_from_safe_tensors(
        str(folder / "checkpoint"), config, dtype=jnp.float32
    )
    algorithm = grpo_learner.GRPOConfig(
        beta=0.0, epsilon=options["clip_low"], loss_agg_mode="token-mean"
    )
    algorithm.epsilon_high = options["clip_high"]
    algorithm.temperature = 1.0
    policy_loss = function_registry.get_policy_loss_fn(algorithm.policy_loss_fn)
    optimizer = optax.chain(
        optax.clip_by_global_norm(options["clip_norm"]),
        optax.adam(options["learning_rate"], b1=options["b1"], b2=options["b2"]),
    )
    training = trainer.Trainer(
        model, optimizer, TrainingConfig(eval_every_n_steps=1_000_000), lambda: {}
    )
    training.with_loss_fn(
        lambda model, train_example, algo_config: policy_loss(
            model, train_example, algo_config=algorithm, pad_id=0, eos_id=1
        ),
        has_aux=True,
    )
    training.with_gen_model_input_fn(lambda x: {"train_example": x, "algo_config": algorithm})
    arrays = {name: jnp.asarray(x) for name, x in np.load(folder / "batch.npz").items()}
    example = common.TrainExample(
        prompt_ids=arrays["prompt_ids"],
        prompt_mask=arrays["prompt_ids"] != 0,
        completion_ids=arrays["completion_ids"],
        completion_mask=arrays["trained"],
        advantages=arrays["advantages"],
        ref_per_token_logps=None,
        old_per_token_logps=arrays["logprobs"],
    )
    step, _ = training.jit_train_and_eval_step(cache_nnx_graph=True)
    server.say({"peers": ["tunix"], "version": importlib.metadata.version("google-tunix")})
    while True:
        server.begin()
        loss, _, norm = jax.block_until_ready(step(example))
        jax.block_until_ready(jax.tree.leaves((training.model, training.optimizer)))
        server.loss, server.norm = float(loss), float(norm)
        server.end()


def main(folder: str, text: str) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    server = Server(sys.stdout)
    with contextlib.redirect_stdout(sys.stderr):
        for needed, serve in {"trl": serve_trl, "tunix": serve_tunix}.items():
            if importlib.util.find_spec(needed):
                serve(server, pathlib.Path(folder), json.loads(text))
    raise ModuleNotFoundError("neither trl nor tunix is installed")


if __name__ == "__main__":
    main(*sys.argv[1:])
