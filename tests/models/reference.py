"""The decoder once more, in float64 with loops over heads and experts."""

import math

import jax
import numpy as np


def reference_rate(config, pair, local):
    """Radians per position of a pair of rotary features."""
    theta = config.local_rope_theta if local and config.local_rope_theta else config.rope_theta
    rate = theta ** (-2 * pair / config.head_dim)
    scaling = config.rope_scaling
    if scaling.kind == "none" or (local and config.local_rope_theta):
        return rate
    if scaling.kind == "linear":
        return rate / scaling.factor
    wavelength = 2 * math.pi / rate
    longest = scaling.original_positions / scaling.low_freq_factor
    shortest = scaling.original_positions / scaling.high_freq_factor
    if wavelength < shortest:
        return rate
    if wavelength > longest:
        return rate / scaling.factor
    smooth = (scaling.original_positions / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    return (1 - smooth) * rate / scaling.factor + smooth * rate


def reference_logits(config, params, tokens):
    """One row in float64, head by head and token by token, from the papers."""

    def normed(x, scale):
        scale = scale + 1 if config.zero_centered_norms else scale
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config.norm_eps) * scale

    def rotated(x, local):
        half = config.head_dim // 2
        rows = []
        for position, row in enumerate(x):
            turned = row.copy()
            for i in range(half):
                angle = position * reference_rate(config, i, local)
                c, s = math.cos(angle), math.sin(angle)
                turned[i] = row[i] * c - row[half + i] * s
                turned[half + i] = row[half + i] * c + row[i] * s
            rows.append(turned)
        return np.array(rows)

    def capped(x, cap):
        return x if cap is None else cap * np.tanh(x / cap)

    def gated(h, gate, up, down):
        g = h @ gate
        if config.activation == "silu":
            g = g / (1 + np.exp(-g))
        else:
            g = g / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (g + 0.044715 * g**3)))
        return g * (h @ up) @ down

    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    size, shared = config.head_dim, config.query_heads // config.kv_heads
    x = params["embedding"][tokens]
    if config.embedding_scale:
        x = x * math.sqrt(config.width)
    for index in range(config.layers):
        layer = jax.tree.map(lambda p, i=index: p[i], params["layers"])
        local = config.window is not None
        local = local and config.window_pattern[index % len(config.window_pattern)]
        visible = np.tri(len(tokens), dtype=bool)
        if local:
            visible &= ~np.tri(len(tokens), k=-config.window, dtype=bool)

        def project(name, h, layer=layer):
            return h @ layer[name]["kernel"] + layer[name].get("bias", 0.0)

        h = normed(x, layer["attention_norm"]["scale"])
        q, k, v = (project(name, h) for name in ("q_proj", "k_proj", "v_proj"))
        heads = []
        for head in range(config.query_heads):
            own = slice(head * size, (head + 1) * size)
            group = slice(head // shared * size, (head // shared + 1) * size)
            query, keys = q[:, own], k[:, group]
            if config.qk_norm:
                query = normed(query, layer["q_norm"]["scale"])
                keys = normed(keys, layer["k_norm"]["scale"])
            scores = rotated(query, local) @ rotated(keys, local).T
            scores = capped(
                scores / math.sqrt(config.query_scalar or size), config.attention_softcap
            )
            weights = np.exp(np.where(visible, scores, -np.inf))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, group])
        h = project("o_proj", np.concatenate(heads, axis=1))
        x = x + (normed(h, layer["attention_post_norm"]["scale"]) if config.post_norms else h)
        h = normed(x, layer["mlp_norm"]["scale"])
        names = ("gate_proj", "up_proj", "down_proj")
        if config.experts:
            kernels = [layer["experts"][name]["kernel"] for name in names]
            scores = np.exp(h @ layer["experts"]["router"]["kernel"])
            scores /= scores.sum(axis=1, keepdims=True)
            out = np.zeros_like(h)
            for token in range(len(tokens)):
                best = sorted(range(config.experts), key=lambda e, t=token: -scores[t, e])
                best = best[: config.experts_per_token]
                whole = sum(scores[token, e] for e in best) if config.normalize_router else 1.0
                for e in best:
                    one = gated(h[token], *(kernel[e] for kernel in kernels))
                    out[token] += scores[token, e] / whole * one
            h = out
        else:
            h = gated(h, *(layer[name]["kernel"] for name in names))
        x = x + (normed(h, layer["mlp_post_norm"]["scale"]) if config.post_norms else h)
    table = params["embedding"] if config.tied_embeddings else params["head"]
    return capped(normed(x, params["final_norm"]["scale"]) @ table.T, config.logit_softcap)
