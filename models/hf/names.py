"""Maps tensors of Hugging Face checkpoints to leaves of our parameters, bit for bit.

`tensors(config)` lists every tensor of a checkpoint as data: its name and shape, and its leaf,
layer and expert among our parameters. The only change is a transpose: PyTorch stores a matrix as
`[out, in]`, we as `[in, out]`. Layers, and experts within them, are stacked on leading axes:

    model.layers.3.mlp.experts.7.up_proj.weight [F, D]
        ↔ params["layers"]["experts"]["up_proj"]["kernel"][3, 7] [D, F]

Rotary pairs are the halves of a head on both sides, and a zero-centered norm keeps the scale of the
checkpoint, so neither is rearranged.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from gtpo_jax.types import Params
from models import decoder
from models.config import ModelConfig

# Name of a tensor within its layer → path of its leaf. {e}: one tensor for each expert.
ATTENTION = {
    "self_attn.q_proj.weight": ("q_proj", "kernel"),
    "self_attn.q_proj.bias": ("q_proj", "bias"),
    "self_attn.k_proj.weight": ("k_proj", "kernel"),
    "self_attn.k_proj.bias": ("k_proj", "bias"),
    "self_attn.v_proj.weight": ("v_proj", "kernel"),
    "self_attn.v_proj.bias": ("v_proj", "bias"),
    "self_attn.o_proj.weight": ("o_proj", "kernel"),
    "self_attn.q_norm.weight": ("q_norm", "scale"),
    "self_attn.k_norm.weight": ("k_norm", "scale"),
    "input_layernorm.weight": ("attention_norm", "scale"),
}
DENSE = {
    "mlp.gate_proj.weight": ("gate_proj", "kernel"),
    "mlp.up_proj.weight": ("up_proj", "kernel"),
    "mlp.down_proj.weight": ("down_proj", "kernel"),
}
EXPERTS = {
    "mlp.gate.weight": ("experts", "router", "kernel"),
    "mlp.experts.{e}.gate_proj.weight": ("experts", "gate_proj", "kernel"),
    "mlp.experts.{e}.up_proj.weight": ("experts", "up_proj", "kernel"),
    "mlp.experts.{e}.down_proj.weight": ("experts", "down_proj", "kernel"),
}
TWO_NORMS = {"post_attention_layernorm.weight": ("mlp_norm", "scale")}
FOUR_NORMS = {
    "post_attention_layernorm.weight": ("attention_post_norm", "scale"),
    "pre_feedforward_layernorm.weight": ("mlp_norm", "scale"),
    "post_feedforward_layernorm.weight": ("mlp_post_norm", "scale"),
}
OUTSIDE = {
    "model.embed_tokens.weight": ("embedding",),
    "model.norm.weight": ("final_norm", "scale"),
    "lm_head.weight": ("head",),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of a checkpoint, and its place among our parameters."""

    name: str
    shape: tuple[int, ...]  # in the checkpoint
    path: tuple[str, ...]  # keys from the root of the parameters to the leaf
    layer: int | None  # index on the leaf's first axis; None: not of a layer
    expert: int | None  # index on its second axis; None: not of an expert
    transposed: bool  # `[out, in]` there, `[in, out]` here

    @property
    def index(self) -> tuple[int, ...]:
        """Index into the leaf: `leaf[index]` is the tensor, apart from the transpose."""
        return tuple(i for i in (self.layer, self.expert) if i is not None)

    def swap(self, array: np.ndarray) -> np.ndarray:
        """Converts between the checkpoint's order of axes and ours, in either direction."""
        return array.T if self.transposed else array


def tensors(config: ModelConfig, *, prefix: str = "") -> tuple[Tensor, ...]:
    """All tensors of a checkpoint of this model: the embedding, the layers in order, the rest.

    `prefix` stands before every name, as in checkpoints where the decoder is a part of the model.
    A tied head has no tensor.
    """
    shapes = _leaf_shapes(config)
    within = {
        **ATTENTION,
        **(EXPERTS if config.experts else DENSE),
        **(FOUR_NORMS if config.post_norms else TWO_NORMS),
    }

    def entry(
        name: str, path: tuple[str, ...], layer: int | None = None, expert: int | None = None
    ) -> Tensor:
        skipped = (layer is not None) + (expert is not None)
        shape, transposed = shapes[path][skipped:], path[-1] == "kernel"
        return Tensor(
            name=prefix + name,
            shape=shape[::-1] if transposed else shape,
            path=path,
            layer=layer,
            expert=expert,
            transposed=transposed,
        )

    listed = [entry("model.embed_tokens.weight", ("embedding",))]
    for layer in range(config.layers):
        for name, leaf in within.items():
            path = ("layers", *leaf)
            if path not in shapes:  # biases, norms of queries and keys
                continue
            for expert in range(config.experts) if "{e}" in name else (None,):
                full = f"model.layers.{layer}.{name.format(e=expert)}"
                listed.append(entry(full, path, layer, expert))
    listed += [
        entry(name, path)
        for name, path in OUTSIDE.items()
        if path in shapes and path[0] != "embedding"
    ]
    return tuple(listed)


def import_params(
    config: ModelConfig, read: Callable[[str], np.ndarray], *, prefix: str = ""
) -> Params:
    """Our parameters from the tensors of a checkpoint, in the dtype of the checkpoint.

    It calls `read(name)` once for each tensor of `tensors(config)`. Raises ValueError if a tensor
    has another shape than the config says, or another dtype than the rest of its leaf.
    """
    params: dict = {}
    shapes = _leaf_shapes(config)
    for tensor in tensors(config, prefix=prefix):
        array = read(tensor.name)
        if array.shape != tensor.shape:
            raise ValueError(
                f"{tensor.name} has the shape {array.shape}, and the config asks for"
                f" {tensor.shape}; does config.json belong to this checkpoint?"
            )
        *parents, last = tensor.path
        node = params
        for key in parents:
            node = node.setdefault(key, {})
        if last not in node:
            node[last] = np.empty(shapes[tensor.path], array.dtype)
        if node[last].dtype != array.dtype:
            raise ValueError(
                f"{tensor.name} is {array.dtype}, and what is stacked with it {node[last].dtype};"
                " convert the checkpoint to one of them"
            )
        node[last][tensor.index] = tensor.swap(array)
    return params


def export_params(
    config: ModelConfig, params: Params, *, prefix: str = ""
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every tensor of a checkpoint, in the order of `tensors(config)`."""
    for tensor in tensors(config, prefix=prefix):
        leaf = functools.reduce(lambda node, key: node[key], tensor.path, params)
        yield tensor.name, np.ascontiguousarray(tensor.swap(np.asarray(leaf[tensor.index])))


def check_names(config: ModelConfig, names: Iterable[str], *, prefix: str = "") -> None:
    """Raises ValueError unless these are the names of the tensors of this model.

    A tied model may have a copy of the embedding as its head. Names without the prefix belong to
    other parts of the checkpoint and are ignored.
    """
    present = {name for name in names if name.startswith(prefix)}
    wanted = {tensor.name for tensor in tensors(config, prefix=prefix)}
    if config.tied_embeddings:
        present.discard(f"{prefix}lm_head.weight")
    missing, unknown = sorted(wanted - present), sorted(present - wanted)
    if missing or unknown:
        raise ValueError(
            f"the checkpoint lacks {len(missing)} tensors of this model ({_some(missing)}) and has"
            f" {len(unknown)} that it does not know ({_some(unknown)});"
            " does config.json belong to this checkpoint?"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "none"


@functools.cache
def _leaf_shapes(config: ModelConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    shapes = jax.eval_shape(functools.partial(decoder.init_params, config), jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return {tuple(key.key for key in path): leaf.shape for path, leaf in leaves}
