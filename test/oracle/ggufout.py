"""Writes a tiny model as GGUF the way llama.cpp's converter does: its tensor names, metadata keys and the permutation of
q and k rows for architecture llama. Returns the dequantised values, so that the oracle computes from what the file holds."""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

TYPES = {"f32": T.F32, "f16": T.F16, "bf16": T.BF16, "q8_0": T.Q8_0, "q4_0": T.Q4_0, "q4_K": T.Q4_K, "q6_K": T.Q6_K}
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def ggml_name(name):
    base, suffix = name.rsplit(".", 1)
    if base.startswith("model.layers."):
        _, _, layer, rest = base.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.{suffix}"
    return f"{NAMES[base]}.{suffix}"


def random_k_blocks(rng, rows, cols, kind, std):
    """Valid random super-blocks (the gguf package has no quantisers for K types), bytes [rows][...], values of about std."""
    n = rows * cols // 256
    def f16(v):
        return np.asarray(v, np.float16).reshape(n, 1).view(np.uint8)
    if kind == "q4_K":
        scale = rng.integers(16, 64, (n, 8))
        low = np.clip(scale + rng.integers(-3, 4, (n, 8)), 0, 63)
        d = std / (40 * 4.6) * rng.uniform(0.8, 1.25, n)
        packed = np.concatenate([scale[:, :4] & 63 | (scale[:, 4:] >> 4) << 6, low[:, :4] & 63 | (low[:, 4:] >> 4) << 6,
                                 scale[:, 4:] & 15 | (low[:, 4:] & 15) << 4], 1).astype(np.uint8)
        raw = np.concatenate([f16(d), f16(d * 7.5), packed, rng.integers(0, 256, (n, 128)).astype(np.uint8)], 1)
    else:
        scale = rng.integers(20, 128, (n, 16)) * rng.choice([-1, 1], (n, 16))
        d = std / (80 * 18.5) * rng.uniform(0.8, 1.25, n)
        raw = np.concatenate([rng.integers(0, 256, (n, 192)).astype(np.uint8), scale.astype(np.int8).view(np.uint8), f16(d)], 1)
    return np.ascontiguousarray(raw).reshape(rows, -1)


def encode(rng, value, kind):
    """(stored array for the writer, float32 values it stands for)"""
    if kind in ("q4_K", "q6_K"):
        raw = random_k_blocks(rng, *value.shape, kind, value.std())
    else:
        raw = gguf.quants.quantize(value, TYPES[kind])
    return raw, gguf.quants.dequantize(raw, TYPES[kind]).astype(np.float32)


def permute(value, heads):
    """Rows of q and k from HF's rotary halves to ggml's interleaved pairs."""
    return value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def unpermute(value, heads):
    return value.reshape(heads, value.shape[0] // heads // 2, 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def vocabulary(writer, kind, size):
    """A minimal tokenizer: single bytes and a few specials, so that the file is complete."""
    if kind == "llama":
        tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
        types = [2, 3, 3] + [6] * 256
        bos, eos = 1, 2
    else:
        # GPT-2's printable stand-ins for bytes.
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        tokens = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))] + ["<|begin|>", "<|end|>"]
        types = [1] * 256 + [3, 3]
        bos, eos = 256, 257
    while len(tokens) < size:
        tokens.append(f"<extra_{len(tokens)}>")
        types.append(4 if kind == "llama" else 1)
    writer.add_tokenizer_model(kind)
    if kind == "gpt2":
        writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    if kind == "llama":
        writer.add_token_scores([0.0] * 3 + [0.0] * 256 + [-1000.0] * (size - 259))
    writer.add_token_types(types)
    if kind == "gpt2":
        writer.add_token_merges(["h e", "l l", "he ll"])
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(eos)


def rope_divisors(cfg):
    """rope_freqs.weight as the converter computes it for Llama 3.1 and later."""
    s = cfg["rope_scaling"]
    dim = cfg.get("head_dim") or cfg["hidden_size"] // cfg["num_attention_heads"]
    freqs = 1.0 / (cfg["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)))
    low, high, old = s["low_freq_factor"], s["high_freq_factor"], s["original_max_position_embeddings"]
    out = []
    for f in freqs:
        wave = 2 * np.pi / f
        if wave < old / high:
            out.append(1.0)
        elif wave > old / low:
            out.append(s["factor"])
        else:
            smooth = (old / wave - low) / (high - low)
            out.append(1 / ((1 - smooth) / s["factor"] + smooth))
    return np.asarray(out, np.float32)


def write(path, arch, cfg, weights, choose, rng, key_length):
    """weights: HF name -> float32 array. choose(name, shape) -> type name of a matrix; vectors are f32. Returns the values
    that the file stands for under their HF names, with q and k in HF order again."""
    w = gguf.GGUFWriter(path, arch)
    heads, kv = cfg["num_attention_heads"], cfg["num_key_value_heads"]
    dim = cfg.get("head_dim") or cfg["hidden_size"] // heads
    w.add_name(path.parent.name)
    w.add_context_length(cfg["max_position_embeddings"])
    w.add_embedding_length(cfg["hidden_size"])
    w.add_block_count(cfg["num_hidden_layers"])
    w.add_feed_forward_length(cfg["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_layer_norm_rms_eps(cfg["rms_norm_eps"])
    w.add_rope_freq_base(cfg["rope_theta"])
    if arch == "llama":
        w.add_vocab_size(cfg["vocab_size"])
        w.add_rope_dimension_count(dim)
    if key_length:
        w.add_key_length(dim)
        w.add_value_length(dim)
    w.add_file_type(1)
    w.add_quantization_version(2)
    vocabulary(w, "llama" if arch == "llama" else "gpt2", cfg["vocab_size"])
    values = {}
    if arch == "llama" and cfg.get("rope_scaling"):
        w.add_tensor("rope_freqs.weight", rope_divisors(cfg))
    for name, value in weights.items():
        if name == "lm_head.weight" and cfg["tie_word_embeddings"]:
            continue
        n = heads if ".q_proj." in name else kv
        swap = arch == "llama" and (".q_proj." in name or ".k_proj." in name)
        stored = permute(value, n) if swap else value
        kind = choose(name, value.shape) if value.ndim == 2 else "f32"
        raw, back = encode(rng, np.ascontiguousarray(stored), kind)
        values[name] = unpermute(back, n) if swap else back
        w.add_tensor(ggml_name(name), raw, raw_dtype=None if kind in ("f32", "f16") else TYPES[kind])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return values
