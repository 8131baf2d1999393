"""What a model says according to transformers, written as one compact golden.bin. Used by the scripts beside it.

golden.bin, little endian, no padding:

    char  magic[8]             "SIGOLD1\\n"
    u32   vocab, n_tokens, n_full, n_proj, n_greedy
    u32   tokens[n_tokens]     the sequence
    u32   argmax[n_tokens]     largest logit of each position (smallest id on a tie)
    f32   gap[n_tokens]        largest minus second largest logit
    f32   norm[n_tokens]       L2 norm of the logits
    f32   proj[n_tokens][n_proj]   sum_v sign(j, v) * logit[v]
    u32   full[n_full]         positions that are stored whole
    f32   logits[n_full][vocab]
    u32   greedy[n_greedy]     greedy continuation behind all n_tokens
    f32   greedy_gap[n_greedy] gap of the logits that each was picked from

sign(j, v) is +1 when bit 63 of splitmix64(v * n_proj + j) is 0, else -1. With signs s, E[(s . d)^2] = |d|^2, so the mean
square of the differences of the projections estimates the squared L2 distance of the logits at positions not stored whole.
"""

import struct

import numpy as np
import torch

N_PROJ = 8
MAGIC = b"SIGOLD1\n"


def signs(vocab, n_proj=N_PROJ):
    """[n_proj][vocab] of +-1: splitmix64 (Steele, Lea, Flood 2014) of v * n_proj + j."""
    with np.errstate(over="ignore"):
        z = np.arange(vocab * n_proj, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.where(z >> np.uint64(63), -1.0, 1.0).reshape(vocab, n_proj).T


def logits_f32(model, tokens):
    """Logits [n][vocab] of a transformers model in float32, whole sequence in one pass, no cache."""
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()


def greedy(model, tokens, n):
    """n greedy tokens behind tokens, each from a fresh pass over everything, and the gap behind each choice."""
    seq, gaps = list(tokens), []
    for _ in range(n):
        row = logits_f32(model, seq)[-1].astype(np.float64)
        seq.append(int(row.argmax()))
        two = np.sort(row)[-2:]
        gaps.append(two[1] - two[0])
    return seq[len(tokens):], gaps


def reference_f64(cfg, weights, inv_freq, tokens):
    """The same forward pass written out in float64: an estimate of transformers' own float32 rounding, and a check that
    the weights on disk mean what we think. weights: name -> float tensor; inv_freq as transformers computed it. Rotary
    angles are the float32 products that transformers defines them as; everything behind them is float64."""
    w = {k: v.double() for k, v in weights.items()}
    n, heads, kv = len(tokens), cfg["num_attention_heads"], cfg["num_key_value_heads"]
    dim = cfg.get("head_dim") or cfg["hidden_size"] // heads
    eps = cfg["rms_norm_eps"]
    angle = (torch.arange(n).float()[:, None] * inv_freq.float()[None, :]).double()
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    offset = torch.arange(n)[:, None] - torch.arange(n)[None, :]
    window = cfg.get("sliding_window") or 0
    first = 0
    if cfg["model_type"].startswith("qwen"):
        window = window if cfg.get("use_sliding_window") else 0
        first = cfg.get("max_window_layers", 0)

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[name]

    def linear(x, name):
        y = x @ w[name + ".weight"].T
        return y + w[name + ".bias"] if name + ".bias" in w else y

    def rope(x):
        half = dim // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    x = w["model.embed_tokens.weight"][torch.tensor(tokens)]
    for i in range(cfg["num_hidden_layers"]):
        p = f"model.layers.{i}."
        h = norm(x, p + "input_layernorm.weight")
        q = linear(h, p + "self_attn.q_proj").view(n, heads, dim).transpose(0, 1)
        k = linear(h, p + "self_attn.k_proj").view(n, kv, dim).transpose(0, 1)
        v = linear(h, p + "self_attn.v_proj").view(n, kv, dim).transpose(0, 1)
        if p + "self_attn.q_norm.weight" in w:
            q, k = norm(q, p + "self_attn.q_norm.weight"), norm(k, p + "self_attn.k_norm.weight")
        q, k = rope(q), rope(k)
        k, v = k.repeat_interleave(heads // kv, 0), v.repeat_interleave(heads // kv, 0)
        seen = offset >= 0
        if window and i >= first:
            seen &= offset < window
        scores = (q @ k.transpose(1, 2) * dim**-0.5).masked_fill(~seen, -torch.inf)
        x = x + linear((scores.softmax(-1) @ v).transpose(0, 1).reshape(n, heads * dim), p + "self_attn.o_proj")
        h = norm(x, p + "post_attention_layernorm.weight")
        gate = torch.nn.functional.silu(linear(h, p + "mlp.gate_proj"))
        x = x + linear(gate * linear(h, p + "mlp.up_proj"), p + "mlp.down_proj")
    x = norm(x, "model.norm.weight")
    return (x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T).numpy()


def write(path, model, tokens, n_greedy, every=9, last=10):
    """Writes golden.bin. Returns {logits, greedy, min_gap, std} for the script's report."""
    logits = logits_f32(model, tokens)
    n, vocab = logits.shape
    picked, gaps = greedy(model, tokens, n_greedy)
    wide = logits.astype(np.float64)
    top = np.sort(wide, axis=1)
    full = sorted(set(range(0, n, every)) | set(range(max(0, n - last), n)))
    with open(path, "wb") as f:
        f.write(MAGIC + struct.pack("<5I", vocab, n, len(full), N_PROJ, n_greedy))
        f.write(np.asarray(tokens, "<u4").tobytes())
        f.write(wide.argmax(1).astype("<u4").tobytes())
        f.write((top[:, -1] - top[:, -2]).astype("<f4").tobytes())
        f.write(np.linalg.norm(wide, axis=1).astype("<f4").tobytes())
        f.write((wide @ signs(vocab).T).astype("<f4").tobytes())
        f.write(np.asarray(full, "<u4").tobytes())
        f.write(logits[full].astype("<f4").tobytes())
        f.write(np.asarray(picked, "<u4").tobytes())
        f.write(np.asarray(gaps, "<f4").tobytes())
    return {"logits": logits, "greedy": picked, "min_gap": min(gaps), "std": float(wide.std())}
