#!/usr/bin/env python3
"""Makes test/models/families: tiny random models of every supported family with odd shapes, and what transformers says.

    python3 test/oracle/make_families.py [--out test/models/families] [--only NAME ...] [--seed N]

Needs torch, transformers, safetensors, gguf and numpy. Each model is a directory as the hub has it (config.json,
model.safetensors) or one model.gguf, with golden.bin (format: golden.py). The oracle is transformers in float32 with eager
attention, loaded from the files just written; for GGUF, from the gguf package's dequantisation of the file's tensors. The
README with the measured figures is written when all models are made.
"""

import argparse
import json
import pathlib
import shutil
import zlib

import golden
import ggufout
import numpy as np
import safetensors.torch
import torch
import transformers

N_TOKENS, N_GREEDY, MIN_GAP = 300, 40, 2e-2
LLAMA3_SCALING = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
                  "rope_type": "llama3"}


def config(model_type, vocab, hidden, ffn, layers, heads, kv, **more):
    """A config.json with the keys that published models of the family carry."""
    arch = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM",
            "qwen3": "Qwen3ForCausalLM"}[model_type]
    c = {"architectures": [arch], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
         "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": ffn, "max_position_embeddings": 512,
         "model_type": model_type, "num_attention_heads": heads, "num_hidden_layers": layers, "num_key_value_heads": kv,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
         "use_cache": True, "vocab_size": vocab}
    c.update(more)
    return c


# name: what it covers, config, and how it is stored.
HF = {
    "mistral-v01": ("sliding window 37, GQA 2:1",
                    config("mistral", 208, 64, 80, 3, 4, 2, sliding_window=37), "bfloat16"),
    "mistral-v03": ("no window (null), GQA 3:1, head_dim 10, ffn 100, theta 1e6",
                    config("mistral", 202, 60, 100, 3, 6, 2, sliding_window=None, rope_theta=1e6), "bfloat16"),
    "nemo": ("5 heads of 24 over hidden 64 (head_dim not hidden/heads), GQA 5:1",
             config("mistral", 192, 64, 80, 3, 5, 1, head_dim=24, sliding_window=None, rope_theta=1e6), "bfloat16"),
    "llama2": ("MHA, head_dim 18, weights in f32, num_key_value_heads absent",
               config("llama", 160, 54, 58, 3, 3, 3, pretraining_tp=1, rope_scaling=None), "float32"),
    "llama31": ("rope scaling llama3 over 64 positions, three heads of 32 on one KV head, several eos",
                config("llama", 160, 96, 56, 3, 3, 1, rope_theta=500000.0, rope_scaling=LLAMA3_SCALING,
                       eos_token_id=[2, 5, 6], attention_bias=False, mlp_bias=False), "bfloat16"),
    "llama32": ("tied head, GQA 3:1, rope scaling llama3 with factor 32",
                config("llama", 288, 72, 88, 3, 6, 2, head_dim=12, tie_word_embeddings=True, rope_theta=500000.0,
                       rope_scaling=LLAMA3_SCALING | {"factor": 32.0}, eos_token_id=[2, 5, 6]), "bfloat16"),
    "llama-bias": ("attention_bias and mlp_bias, head_dim 8",
                   config("llama", 192, 48, 104, 4, 6, 3, attention_bias=True, mlp_bias=True), "bfloat16"),
    "llama-linear": ("rope scaling linear under its old key \"type\", MQA, weights in f16",
                     config("llama", 160, 64, 96, 3, 4, 1, rope_scaling={"type": "linear", "factor": 2.5}), "float16"),
    "qwen2": ("q/k/v bias, tied, 7 heads on one KV head, a sliding_window that is switched off",
              config("qwen2", 240, 56, 104, 4, 7, 1, rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True,
                     sliding_window=64, use_sliding_window=False, max_window_layers=2), "bfloat16"),
    "qwen2-swa": ("q/k/v bias, untied, window 41 from layer 2 of 4 on, three shards",
                  config("qwen2", 192, 64, 80, 4, 4, 2, rms_norm_eps=1e-6, rope_theta=1e6,
                         sliding_window=41, use_sliding_window=True, max_window_layers=2), "bfloat16"),
    "qwen3": ("q/k norm, 3 heads of 40 over hidden 64, config.json in the style of transformers 5 (rope_parameters)",
              config("qwen3", 192, 64, 96, 3, 3, 1, head_dim=40, rms_norm_eps=1e-6, rope_theta=1e6, attention_bias=False,
                     sliding_window=None, use_sliding_window=False, max_window_layers=3), "bfloat16"),
}
SHARDED = {"qwen2-swa": 3}
MODERN = {"qwen3"}
NO_KV_HEADS = {"llama2"}


def llama_types(name, shape):
    if "embed" in name:
        return "f16"
    if "lm_head" in name:
        return "q8_0"
    return "q8_0" if "self_attn" in name else "q4_0"


def nemo_types(name, shape):
    return "f16" if shape[1] % 32 else "bf16" if "embed" in name or "lm_head" in name else "q4_0"


def k_types(name, shape):
    if shape[1] % 256:
        return "q4_0"
    return "q6_K" if "v_proj" in name or "embed" in name else "q4_K"


GGUF = {
    "gguf-llama": ("arch llama: q and k permuted, q8_0 attention, q4_0 MLP, f16 embedding, no key_length",
                   "llama", config("llama", 288, 64, 128, 3, 4, 2), llama_types, False),
    "gguf-nemo": ("arch llama with key_length 24 over hidden 64 and 5 heads; q4_0, bf16, f16 where 32 does not divide",
                  "llama", config("mistral", 288, 64, 96, 3, 5, 1, head_dim=24, sliding_window=None, rope_theta=1e6),
                  nemo_types, True),
    "gguf-llama32": ("tied, GQA 3:1, rope_freqs.weight; f32 and bf16",
                     "llama", config("llama", 288, 72, 64, 3, 6, 2, head_dim=12, tie_word_embeddings=True,
                                     rope_theta=500000.0, rope_scaling=LLAMA3_SCALING | {"factor": 32.0}),
                     lambda name, shape: "f32" if "v_proj" in name else "bf16", True),
    "gguf-qwen2": ("arch qwen2: biases, tied, 3 heads of 32 on one KV head; q8_0 and f16",
                   "qwen2", config("qwen2", 272, 96, 64, 3, 3, 1, rms_norm_eps=1e-6, rope_theta=1e6,
                                   tie_word_embeddings=True, use_sliding_window=False),
                   lambda name, shape: "f16" if "o_proj" in name else "q8_0", False),
    "gguf-qwen3": ("arch qwen3: q/k norm, 3 heads of 40 over hidden 64; q8_0, f16, bf16",
                   "qwen3", config("qwen3", 272, 64, 96, 3, 3, 1, head_dim=40, rms_norm_eps=1e-6, rope_theta=1e6,
                                   attention_bias=False, use_sliding_window=False),
                   lambda name, shape: "bf16" if shape[1] % 32 else "f16" if "lm_head" in name else "q8_0", True),
    "gguf-k": ("arch llama, hidden 256, tied: q4_K and q6_K (random super-blocks), the rest q4_0",
               "llama", config("llama", 288, 256, 64, 3, 4, 2, head_dim=32, tie_word_embeddings=True),
               k_types, True),
}


def make_weights(cfg, rng):
    """HF name -> float32 array. Scales are chosen so that attention is peaked but not on one key, each block adds about as
    much as it finds, logits have a deviation of about 1.5, and nothing may be forgotten unseen (see mistakes)."""
    h, f, heads, kv = (cfg[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"))
    dim = cfg.get("head_dim") or h // heads
    w = {}

    def matrix(name, rows, cols, gain):
        w[name + ".weight"] = rng.normal(0, gain / np.sqrt(cols), (rows, cols))

    def bias(name, rows, std):
        w[name + ".bias"] = rng.normal(0, std, rows)

    def norm(name, n, mean=1.0):
        w[name + ".weight"] = mean * rng.uniform(0.6, 1.4, n)

    tied = cfg["tie_word_embeddings"]
    # Small as in trained models, so that the epsilon of the first norm counts; a tied head gets it back in the last norm.
    small = 0.1 if cfg["rms_norm_eps"] > 5e-6 else 0.03
    w["model.embed_tokens.weight"] = rng.normal(0, small, (cfg["vocab_size"], h))
    family = cfg["model_type"]
    for i in range(cfg["num_hidden_layers"]):
        p = f"model.layers.{i}."
        norm(p + "input_layernorm", h)
        for name, rows in (("q_proj", heads * dim), ("k_proj", kv * dim), ("v_proj", kv * dim)):
            matrix(p + "self_attn." + name, rows, h, 1.0 if name == "v_proj" else 1.5)
            if family == "qwen2" or cfg.get("attention_bias"):
                bias(p + "self_attn." + name, rows, 0.3)
        matrix(p + "self_attn.o_proj", h, heads * dim, 2.0)
        if cfg.get("attention_bias"):
            bias(p + "self_attn.o_proj", h, 0.1)
        if family == "qwen3":
            norm(p + "self_attn.q_norm", dim, 1.5)
            norm(p + "self_attn.k_norm", dim, 1.5)
        norm(p + "post_attention_layernorm", h)
        matrix(p + "mlp.gate_proj", f, h, 1.5)
        matrix(p + "mlp.up_proj", f, h, 1.0)
        matrix(p + "mlp.down_proj", h, f, 1.5)
        if cfg.get("mlp_bias"):
            bias(p + "mlp.gate_proj", f, 0.3)
            bias(p + "mlp.up_proj", f, 0.3)
            bias(p + "mlp.down_proj", h, 0.1)
    norm("model.norm", h, 1.5 / (small * np.sqrt(h)) if tied else 1.0)
    if not tied:
        matrix("lm_head", cfg["vocab_size"], h, 1.5)
    return {k: v.astype(np.float32) for k, v in w.items()}


def write_config(folder, name, cfg):
    cfg = dict(cfg)
    if name in NO_KV_HEADS:
        del cfg["num_key_value_heads"]
    if name in MODERN:
        cfg["dtype"] = cfg.pop("torch_dtype")
        cfg["rope_parameters"] = {"rope_theta": cfg.pop("rope_theta"), "rope_type": "default"}
        cfg["layer_types"] = ["full_attention"] * cfg["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(cfg, indent=1, sort_keys=True) + "\n")


def write_safetensors(folder, name, weights, dtype):
    tensors = {k: torch.from_numpy(v).to(getattr(torch, dtype)) for k, v in weights.items()}
    n = SHARDED.get(name)
    if not n:
        safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        names, where = list(tensors), {}
        for i in range(n):
            file = f"model-{i + 1:05}-of-{n:05}.safetensors"
            part = {k: tensors[k] for k in names[i * len(names) // n:(i + 1) * len(names) // n]}
            safetensors.torch.save_file(part, folder / file, metadata={"format": "pt"})
            where.update({k: file for k in part})
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    return {k: v.float() for k, v in tensors.items()}


def attention_entropy(model, tokens):
    """Mean entropy of attention over the last 100 positions, in nats; log(300) would be uniform."""
    with torch.no_grad():
        a = torch.stack(model(torch.tensor([tokens]), output_attentions=True).attentions)[:, 0, :, -100:].double()
    return float(-(a * (a + 1e-30).log()).sum(-1).mean())


def mistakes(cfg, weights, inv_freq):
    """What a loader may get wrong in this model; each must move the logits well beyond the tolerance of the tests."""
    yield "norm epsilon", (cfg | {"rms_norm_eps": 0.0}, weights, inv_freq)
    window = cfg.get("sliding_window")
    if cfg.get("use_sliding_window", True) and window:
        for by in (-1, 1, 1000):
            yield f"window {by:+}", (cfg | {"sliding_window": window + by}, weights, inv_freq)
        if cfg.get("max_window_layers"):
            for by in (-1, 1):
                yield f"window layers {by:+}", (cfg | {"max_window_layers": cfg["max_window_layers"] + by}, weights, inv_freq)
    elif window:
        yield "window not off", (cfg | {"use_sliding_window": True}, weights, inv_freq)
    if cfg.get("rope_scaling"):
        n = len(inv_freq)
        yield "no rope scaling", (cfg, weights, cfg["rope_theta"] ** -(torch.arange(n, dtype=torch.float64) / n))
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        if any(f".{part}.bias" in k for k in weights):
            yield f"no {part} bias", (cfg, {k: v for k, v in weights.items() if f".{part}.bias" not in k}, inv_freq)
    for part in ("q_norm", "k_norm"):
        if any(part in k for k in weights):
            yield f"{part} of ones", (cfg, {k: torch.ones_like(v) if part in k else v for k, v in weights.items()}, inv_freq)


def make(out, name, seed):
    """One model. A prompt is drawn again until no greedy choice is a near tie, which float32 could decide either way."""
    what, cfg = (HF[name][0], HF[name][1]) if name in HF else (GGUF[name][0], GGUF[name][2])
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = make_weights(cfg, rng)
    if name in HF:
        write_config(folder, name, cfg | {"torch_dtype": HF[name][2]})
        weights = write_safetensors(folder, name, weights, HF[name][2])
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    else:
        _, arch, _, choose, key_length = GGUF[name]
        weights = ggufout.write(folder / "model.gguf", arch, cfg, weights, choose, rng, key_length)
        weights = {k: torch.from_numpy(v) for k, v in weights.items()}
        hf = transformers.AutoConfig.for_model(**cfg)
        model = transformers.AutoModelForCausalLM.from_config(hf, dtype=torch.float32, attn_implementation="eager")
        missing, extra = model.load_state_dict(weights, strict=False)
        assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
        model.tie_weights()
    model.eval()
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in weights.items()), "the model in memory is not the file"
    for attempt in range(50):
        tokens = [int(t) for t in rng.integers(3, cfg["vocab_size"], N_TOKENS)]
        if min(golden.greedy(model, tokens, N_GREEDY)[1]) > MIN_GAP:
            break
    else:
        raise SystemExit(f"{name}: no prompt without a near tie")
    got = golden.write(folder / "golden.bin", model, tokens, N_GREEDY)
    inv_freq = model.model.rotary_emb.inv_freq

    def distance(c, w, f):
        ref = golden.reference_f64(c, w, f, tokens)
        return (np.linalg.norm(got["logits"] - ref, axis=1) / np.linalg.norm(ref, axis=1)).max()

    noise = distance(cfg, weights, inv_freq)
    assert noise < 2e-5, (name, noise)
    caught = {what: distance(*wrong) for what, wrong in mistakes(cfg, weights, inv_freq)}
    assert min(caught.values()) > 1e-3, (name, caught)
    weakest = min(caught, key=caught.get)
    for f in folder.iterdir():
        f.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    row = (name, what, f"{size / 1000:.0f}", f"{got['std']:.2f}", f"{attention_entropy(model, tokens):.2f}",
           f"{noise:.1e}", f"{caught[weakest]:.0e} ({weakest})", f"{got['min_gap']:.3f}", str(len(set(got["greedy"]))))
    print(" | ".join(row), flush=True)
    return row


README = """# Tiny random models of every family, and what transformers says about them

Made by `python3 test/oracle/make_families.py` (transformers {tf}, torch {torch}, gguf 0.19); random weights, so there is
nothing to license. `golden.bin` holds the oracle's logits (transformers, float32, eager attention) over {n} positions -
every ninth and the last ten whole, all of them as argmax, gap, norm and 8 signed sums - and {greedy} greedy tokens behind them;
the format is at the top of test/oracle/golden.py. Running the script again gives the same weights and
tokens; logits may differ in the last bits with another BLAS.

"vs f64": the largest relative L2 distance, over the positions, between transformers' float32 and the same forward pass
written out in float64. "entropy": of attention over about 250 keys, in nats (uniform would be 5.5). "gap": the smallest
distance between the two best logits of a greedy choice. "distinct": different tokens among the greedy ones. "mistake": how
far the most harmless of the loader's conceivable mistakes (epsilon, window, scaling, a bias, a norm) moves the logits.

| model | covers | kB | logit std | entropy | vs f64 | mistake | gap | distinct |
|---|---|---|---|---|---|---|---|---|
"""


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path("test/models/families"))
    ap.add_argument("--only", nargs="*", help="make only these, and leave the README")
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = [make(a.out, name, a.seed) for name in (a.only or [*HF, *GGUF])]
    if not a.only:
        head = README.format(tf=transformers.__version__, torch=torch.__version__.split("+")[0], n=N_TOKENS, greedy=N_GREEDY)
        (a.out / "README.md").write_text(head + "".join("| " + " | ".join(r) + " |\n" for r in rows))


if __name__ == "__main__":
    main()
