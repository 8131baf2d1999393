#!/usr/bin/env python3
"""Makes test/golden/loading: what other people's software reads out of model files, for the tests of core/model; and, from
that, the seeds of the parsers' fuzz targets.

    python3 test/oracle/make_loading.py [--out test/golden/loading] [--corpus test/fuzz/corpus]

Needs torch, transformers, safetensors, gguf and numpy. The README beside the output says what each file is.
"""

import argparse
import json
import pathlib
import struct
import tempfile

import gguf
import ggufout
import numpy as np
import safetensors.torch
import torch
import transformers
from gguf import GGMLQuantizationType as T
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.mistral.modeling_mistral import MistralRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

ROTARY = {"llama": LlamaRotaryEmbedding, "mistral": MistralRotaryEmbedding, "qwen2": Qwen2RotaryEmbedding,
          "qwen3": Qwen3RotaryEmbedding}
GGUF_ARCH = {"llama": gguf.MODEL_ARCH.LLAMA, "mistral": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2,
             "qwen3": gguf.MODEL_ARCH.QWEN3}


def config(model_type, hidden, ffn, layers, heads, kv, vocab, ctx, **more):
    arch = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM",
            "qwen3": "Qwen3ForCausalLM"}[model_type]
    c = {"architectures": [arch], "model_type": model_type, "hidden_size": hidden, "intermediate_size": ffn,
         "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab,
         "max_position_embeddings": ctx, "hidden_act": "silu", "rms_norm_eps": 1e-5, "initializer_range": 0.02,
         "torch_dtype": "bfloat16", "use_cache": True, "bos_token_id": 1, "eos_token_id": 2} | more
    return {k: v for k, v in c.items() if v != "absent"}


def cases():
    """name: (config.json, generation_config.json or None). Published models' files and variants of them."""
    mistral = dict(model_type="mistral", hidden=4096, ffn=14336, layers=32, heads=32, kv=8, vocab=32768, ctx=32768)
    llama3 = dict(model_type="llama", hidden=4096, ffn=14336, layers=32, heads=32, kv=8, vocab=128256, ctx=131072,
                  rope_theta=500000.0, attention_bias=False, mlp_bias=False, bos_token_id=128000,
                  eos_token_id=[128001, 128008, 128009], tie_word_embeddings=False)
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
               "rope_type": "llama3"}
    qwen2 = dict(model_type="qwen2", hidden=3584, ffn=18944, layers=28, heads=28, kv=4, vocab=152064, ctx=131072,
                 rms_norm_eps=1e-6, rope_theta=1000000.0, bos_token_id=151643, eos_token_id=151643, attention_dropout=0.0,
                 sliding_window=131072, use_sliding_window=False, max_window_layers=28, tie_word_embeddings=False)
    qwen3 = dict(model_type="qwen3", hidden=4096, ffn=12288, layers=36, heads=32, kv=8, vocab=151936, ctx=40960, head_dim=128,
                 rms_norm_eps=1e-6, rope_theta=1000000, bos_token_id=151643, eos_token_id=151645, attention_bias=False,
                 rope_scaling=None, sliding_window=None, use_sliding_window=False, max_window_layers=36,
                 tie_word_embeddings=False)
    yield "mistral-7b-v0.1", config(**mistral | dict(vocab=32000, sliding_window=4096, rope_theta=10000.0)), None
    yield "mistral-7b-v0.2", config(**mistral | dict(vocab=32000, sliding_window=None, rope_theta=1000000.0)), None
    yield "mistral-7b-v0.3", config(**mistral, sliding_window=None, rope_theta=1000000.0), \
        {"bos_token_id": 1, "eos_token_id": 2, "_from_model_config": True}
    yield "mistral-defaults", config(**mistral | dict(kv="absent", ctx="absent", bos_token_id="absent", eos_token_id="absent",
                                                      hidden_act="absent", rms_norm_eps="absent")), None
    yield "nemo-12b", config("mistral", 5120, 14336, 40, 32, 8, 131072, 131072, head_dim=128, sliding_window=None,
                             rope_theta=1000000.0), None
    yield "llama-2-7b", config("llama", 4096, 11008, 32, 32, "absent", 32000, 4096, rope_scaling=None, pretraining_tp=1), \
        {"eos_token_id": 2, "temperature": 0.6}
    yield "llama-2-70b", config("llama", 8192, 28672, 80, 64, 8, 32000, 4096, rope_scaling=None), None
    yield "llama-null-kv", config("llama", 512, 1376, 4, 8, None, 32000, "absent", head_dim=None), None
    yield "llama-3-8b", config(**llama3 | dict(ctx=8192, eos_token_id=128001)), {"eos_token_id": [128001, 128009]}
    yield "llama-3.1-8b", config(**llama3, rope_scaling=scaling), None
    old = {("type" if k == "rope_type" else k): v for k, v in scaling.items()}
    yield "llama-3.1-old-type", config(**llama3, rope_scaling=old), None
    yield "llama-3.1-both-types", config(**llama3, rope_scaling=scaling | {"type": "default"}), None
    yield "llama-3.1-no-original", config(**llama3, rope_scaling={k: v for k, v in scaling.items() if "original" not in k}), None
    yield "llama-3.1-top-original", config(**llama3, rope_scaling=scaling, original_max_position_embeddings=4096), None
    yield "llama-3.2-1b", config("llama", 2048, 8192, 16, 32, 8, 128256, 131072, head_dim=64, rope_theta=500000.0,
                                 rope_scaling=scaling | {"factor": 32.0}, tie_word_embeddings=True, bos_token_id=128000,
                                 eos_token_id=128001), {"eos_token_id": [128001, 128008, 128009]}
    yield "llama-3-parameters", config(**llama3 | dict(rope_theta="absent"),
                                       rope_parameters=scaling | {"rope_theta": 500000.0}), None
    yield "llama-parameters-and-theta", config(**llama3, rope_parameters={"rope_type": "default", "rope_theta": 20000.0}), None
    yield "llama-scaling-beats-parameters", config(
        **llama3, rope_scaling={"type": "linear", "factor": 4}, rope_parameters=scaling | {"rope_theta": 20000.0}), None
    yield "llama-empty-scaling", config(**llama3, rope_scaling={}, rope_parameters=scaling), None
    yield "llama-linear-old", config("llama", 4096, 11008, 32, 32, 32, 32000, 16384,
                                     rope_scaling={"type": "linear", "factor": 4.0}), None
    yield "llama-linear", config("llama", 4096, 11008, 32, 32, 32, 32000, 16384,
                                 rope_scaling={"rope_type": "linear", "factor": 2.5}), None
    yield "llama-bias", config("llama", 576, 1536, 3, 9, 3, 49152, 2048, attention_bias=True, mlp_bias=True), None
    yield "llama-null-eos", config("llama", 576, 1536, 3, 9, 3, 49152, 2048, bos_token_id=None, eos_token_id=None), None
    yield "llama-head-dim-48", config("llama", 768, 2048, 3, 8, 2, 32000, 2048, head_dim=48), None
    yield "qwen2.5-0.5b", config("qwen2", 896, 4864, 24, 14, 2, 151936, 32768, rms_norm_eps=1e-6, rope_theta=1000000.0,
                                 sliding_window=32768, use_sliding_window=False, max_window_layers=21,
                                 tie_word_embeddings=True, bos_token_id=151643, eos_token_id=151645), \
        {"eos_token_id": [151645, 151643], "top_k": 20}
    yield "qwen2.5-7b", config(**qwen2), None
    yield "qwen2-slides-from-21", config(**qwen2 | dict(use_sliding_window=True, sliding_window=4096, max_window_layers=21)), None
    yield "qwen2-slides-from-0", config(**qwen2 | dict(use_sliding_window=True, sliding_window=4096, max_window_layers=0)), None
    yield "qwen2-slides-behind-the-end", config(**qwen2 | dict(use_sliding_window=True)), None
    yield "qwen2-slides-by-default-from-28", config(
        **qwen2 | dict(layers=36, use_sliding_window=True, sliding_window="absent", max_window_layers="absent")), None
    yield "qwen2-slides-by-null", config(
        **qwen2 | dict(use_sliding_window=True, sliding_window=None, max_window_layers=3)), None
    yield "qwen2-layer-types", config(**qwen2 | dict(
        layers=6, use_sliding_window=True, sliding_window=512, max_window_layers=1,
        layer_types=["full_attention"] * 4 + ["sliding_attention"] * 2)), None
    yield "qwen2-layer-types-full", config(**qwen2 | dict(
        layers=3, use_sliding_window=True, sliding_window=512, max_window_layers=1, layer_types=["full_attention"] * 3)), None
    yield "qwen2-defaults", config(**qwen2 | dict(
        kv="absent", heads=64, hidden=4096, eos_token_id="absent", bos_token_id="absent", rope_theta="absent")), None
    yield "qwen3-8b", config(**qwen3), {"eos_token_id": [151645, 151643], "bos_token_id": 151643}
    yield "qwen3-0.6b", config(**qwen3 | dict(hidden=1024, ffn=3072, layers=28, heads=16, max_window_layers=28,
                                              tie_word_embeddings=True)), None
    yield "qwen3-default-head-dim", config(**qwen3 | dict(hidden=1024, ffn=3072, layers=2, heads=16, head_dim="absent")), None
    yield "qwen3-bias", config(**qwen3 | dict(layers=2, attention_bias=True)), None
    # What transformers itself writes today for each family.
    for model_type, c in (("llama", config(**llama3, rope_scaling=scaling)), ("mistral", config(**mistral)),
                          ("qwen2", config(**qwen2 | dict(use_sliding_window=True, sliding_window=4096, max_window_layers=21))),
                          ("qwen3", config(**qwen3))):
        saved = json.loads(transformers.AutoConfig.for_model(**c).to_json_string())
        yield f"saved-{model_type}", saved, None


def expected(cfg, generation):
    """What transformers makes of the two files."""
    with tempfile.TemporaryDirectory() as d:
        d = pathlib.Path(d)
        (d / "config.json").write_text(json.dumps(cfg))
        c = transformers.AutoConfig.from_pretrained(d)
        eos = c.eos_token_id
        if generation:
            (d / "generation_config.json").write_text(json.dumps(generation))
            eos = transformers.GenerationConfig.from_pretrained(d).eos_token_id
    if c.model_type == "mistral":
        windows = [c.sliding_window or 0] * c.num_hidden_layers
    elif c.model_type == "llama":
        windows = [0] * c.num_hidden_layers
    else:
        windows = [c.sliding_window if t == "sliding_attention" else 0 for t in c.layer_types]
    with torch.device("meta"):
        state = transformers.AutoModelForCausalLM.from_config(c).state_dict()
    names = gguf.get_tensor_name_map(GGUF_ARCH[c.model_type], c.num_hidden_layers)
    tensors = []
    for name, value in state.items():
        if name.startswith("model.layers.") and not name.startswith("model.layers.0."):
            continue
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        shape = list(value.shape) if value.ndim == 2 else [1, *value.shape]
        tensors.append([name, *shape, names.get_name(name, try_suffixes=(".weight", ".bias"))])
    inv_freq = ROTARY[c.model_type](c).inv_freq
    assert inv_freq.dtype == torch.float32
    kv_rows = state["model.layers.0.self_attn.k_proj.weight"].shape[0]
    head_dim = 2 * len(inv_freq)
    return {
        "hidden": c.hidden_size, "n_layers": c.num_hidden_layers, "n_heads": c.num_attention_heads,
        "n_kv_heads": kv_rows // head_dim, "head_dim": head_dim, "ffn": c.intermediate_size, "vocab": c.vocab_size,
        "max_ctx": c.max_position_embeddings, "rms_eps": c.rms_norm_eps, "tied": bool(c.tie_word_embeddings),
        "bos": -1 if c.bos_token_id is None else c.bos_token_id,
        "eos": eos if isinstance(eos, list) else [] if eos is None else [eos],
        "windows": windows, "tensors": tensors, "inv_freq": [int(v) for v in inv_freq.numpy().view(np.uint32)],
    }


def make_configs(out):
    # One case a line, so that a change shows as such.
    lines = [json.dumps({"name": name, "config": cfg, "generation": gen, "expected": expected(cfg, gen)},
                        separators=(",", ":")) for name, cfg, gen in cases()]
    (out / "configs.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


def make_quantised(out, rng):
    """A GGUF file of one layer with every tensor type, and its values in f32 under HF names as a safetensors file."""
    hidden, ffn, heads, kv, head_dim, vocab = 256, 32, 2, 1, 16, 8
    w = gguf.GGUFWriter(out / "quantised.gguf", "llama")
    w.add_context_length(128)
    w.add_embedding_length(hidden)
    w.add_block_count(1)
    w.add_feed_forward_length(ffn)
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(500000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_sliding_window(64)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_eot_token_id(5)
    # One key of each type, for the accessors; test_gguf.c knows the values.
    V = gguf.GGUFValueType
    for kind, value in (("uint8", 200), ("int8", -100), ("uint16", 60000), ("int16", -30000), ("uint32", 4000000000),
                        ("int32", -2000000000), ("uint64", 2**63 + 5), ("int64", -2**62), ("float32", 1.5),
                        ("float64", 0.1), ("bool", True), ("string", "Füchse \U0001f98a")):
        w.add_key_value(f"t.{kind}", value, V[kind.upper()])
    for kind, values in (("uint8", [1, 255]), ("int8", [-1, 127]), ("uint16", [65535, 2]), ("int16", [-32768, 3]),
                         ("uint32", [4294967295]), ("int32", [-5, 6, 7]), ("uint64", [2**63]), ("int64", [-2**63, 1]),
                         ("float32", [0.25, -2.0]), ("float64", [1e300]), ("bool", [True, False, True]),
                         ("string", ["", "a", "bc"])):
        w.add_key_value(f"a.{kind}", values, V.ARRAY, sub_type=V[kind.upper()])

    plain = {}

    def add(name, rows, cols, kind, rotate=0):
        value = rng.standard_normal((rows, cols) if rows else (cols,)).astype(np.float32)
        raw, stored = ggufout.encode(rng, value, kind)
        w.add_tensor(ggufout.ggml_name(name), raw, raw_dtype=ggufout.TYPES[kind])
        plain[name] = torch.from_numpy(np.ascontiguousarray(ggufout.unpermute(stored, rotate) if rotate else stored))

    layer = "model.layers.0."
    add("model.embed_tokens.weight", vocab, hidden, "f16")
    add(layer + "input_layernorm.weight", 0, hidden, "f32")
    add(layer + "self_attn.q_proj.weight", heads * head_dim, hidden, "q4_K", rotate=heads)
    add(layer + "self_attn.q_proj.bias", 0, heads * head_dim, "f32", rotate=heads)
    add(layer + "self_attn.k_proj.weight", kv * head_dim, hidden, "q8_0", rotate=kv)
    add(layer + "self_attn.k_proj.bias", 0, kv * head_dim, "f16", rotate=kv)
    add(layer + "self_attn.v_proj.weight", kv * head_dim, hidden, "q6_K")
    add(layer + "self_attn.v_proj.bias", 0, kv * head_dim, "f32")
    add(layer + "self_attn.o_proj.weight", hidden, heads * head_dim, "q4_0")
    add(layer + "post_attention_layernorm.weight", 0, hidden, "f32")
    add(layer + "mlp.gate_proj.weight", ffn, hidden, "q4_0")
    add(layer + "mlp.up_proj.weight", ffn, hidden, "bf16")
    add(layer + "mlp.down_proj.weight", hidden, ffn, "q8_0")
    add("model.norm.weight", 0, hidden, "f32")
    add("lm_head.weight", vocab, hidden, "q6_K")
    w.add_tensor("rope_freqs.weight", np.linspace(1, 8, head_dim // 2, dtype=np.float32))
    w.add_tensor("unsupported.weight", gguf.quants.quantize(np.ones((2, 32), np.float32), T.Q5_1), raw_dtype=T.Q5_1)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    safetensors.torch.save_file(plain, out / "quantised.safetensors")

    w = gguf.GGUFWriter(out / "big_endian.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    w.add_block_count(1)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_dtypes(out):
    """Every dtype that torch and safetensors share, a scalar, an empty tensor, five dimensions, metadata."""
    t = {f"t.{str(d)[6:]}": torch.arange(6).reshape(2, 3).to(d)
         for d in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16,
                   torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2)}
    t |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 4), "five": torch.zeros(1, 2, 1, 2, 1), "vector": torch.ones(3)}
    safetensors.torch.save_file(t, out / "dtypes.safetensors", metadata={"format": "pt", "überschrift": "\"quoted\""})


# --- the generator of random: models, written down a second time ---

M64 = np.uint64(0xFFFFFFFFFFFFFFFF)


def mix(z):
    z = np.asarray(z, np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hash_string(h, s):
    for b in s.encode():
        h = mix(h ^ np.uint64(b))
    return mix(h ^ np.uint64(0x100))


def random_row(model, seed, tensor, std, row, n):
    key = hash_string(hash_string(mix(np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)), model), tensor)
    state = mix(key ^ mix(np.uint64(row + 1)))
    draws = mix(state + np.arange((n + 1) // 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    sums = draws.view(np.uint8).reshape(-1, 4).astype(np.int32).sum(1)[:n] - 510
    unit = np.float32(std) / np.float32(147.80167)
    bits = (sums.astype(np.float32) * unit).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def make_random(out):
    one = np.float32(1)
    rows = []
    with np.errstate(over="ignore"):
        for model, seed, tensor, std, shape, row in (
                ("mistral-7b", 0, "model.layers.0.self_attn.q_proj.weight", one / np.sqrt(np.float32(4096)), (4096, 4096), 0),
                ("mistral-7b", 7, "model.layers.31.mlp.down_proj.weight", np.float32(0.25) / np.sqrt(np.float32(14336)),
                 (4096, 14336), 4095),
                ("nemo-12b", 2**64 - 1, "lm_head.weight", np.float32(0.02), (131072, 5120), 131071),
                ("llama-3.1-8b", 1, "model.layers.5.self_attn.k_proj.weight", one / np.sqrt(np.float32(4096)), (1024, 4096), 77),
                ("llama-3.2-1b", 0, "model.embed_tokens.weight", np.float32(0.02), (128256, 2048), 128000),
                ("qwen2.5-0.5b", 3, "model.layers.23.self_attn.q_proj.bias", np.float32(0.02), (1, 896), 0),
                ("qwen3-8b", 12345, "model.layers.35.self_attn.o_proj.weight", np.float32(0.25) / np.sqrt(np.float32(4096)),
                 (4096, 4096), 5)):
            values = random_row(model, seed, tensor, std, row, shape[1])
            rows.append({"model": model, "seed": seed, "tensor": tensor, "rows": shape[0], "cols": shape[1], "row": row,
                         "first": [int(v) for v in values[:12]], "last": [int(v) for v in values[-4:]],
                         "sum": int(values.astype(np.uint64).sum())})
    (out / "random.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


# --- seeds for fuzzing ---

def tiny_gguf():
    """A small llama whose every byte is header but the last few: metadata, a tokenizer, three tensors."""
    def string(x):
        return struct.pack("<Q", len(x)) + x.encode()

    def tensor(name, dims, kind, offset):
        return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)

    kv = [string("general.architecture") + struct.pack("<I", 8) + string("llama")]
    kv += [string(k) + struct.pack("<II", 4, v) for k, v in (
        ("llama.embedding_length", 64), ("llama.block_count", 2), ("llama.feed_forward_length", 96),
        ("llama.context_length", 128), ("llama.attention.head_count", 4), ("llama.attention.head_count_kv", 2),
        ("llama.attention.sliding_window", 16), ("tokenizer.ggml.eos_token_id", 2))]
    kv += [string(k) + struct.pack("<If", 6, v) for k, v in (
        ("llama.attention.layer_norm_rms_epsilon", 1e-5), ("llama.rope.scaling.factor", 2.0))]
    kv += [string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + string("<s>") + string("a")]
    tensors = [tensor("token_embd.weight", [64, 8], 2, 0), tensor("output_norm.weight", [64], 0, 288),
               tensor("blk.0.attn_q.bias", [64], 1, 544)]
    data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kv)) + b"".join(kv + tensors)
    return data + bytes(-len(data) % 32) + bytes(672)


def make_corpus(golden, out):
    def seed(target, name, data):
        (out / target).mkdir(parents=True, exist_ok=True)
        (out / target / name).write_bytes(data)

    header = (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
              b'"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}}')
    two = b"F" + struct.pack("<Q", len(header)) + header + bytes(12)
    seed("safetensors", "every_dtype", b"F" + (golden / "dtypes.safetensors").read_bytes())
    seed("safetensors", "two_tensors", two)
    seed("safetensors", "truncated", two[:-3])
    seed("safetensors", "empty_object", b"F" + struct.pack("<Q", 2) + b"{}")
    seed("safetensors", "index", b'I{"metadata":{"total_size":28},"weight_map":{"model.norm.weight":'
         b'"model-00001-of-00002.safetensors","lm_head.weight":"model-00002-of-00002.safetensors"}}')
    tiny = tiny_gguf()
    seed("gguf", "every_key_type", (golden / "quantised.gguf").read_bytes()[:6144])
    seed("gguf", "big_endian", (golden / "big_endian.gguf").read_bytes())
    seed("gguf", "tiny_llama", tiny)
    seed("gguf", "version_2", tiny[:4] + b"\2" + tiny[5:])
    for case in json.loads((golden / "configs.json").read_text()):
        if case["name"] in ("mistral-7b-v0.1", "nemo-12b", "llama-3.1-8b", "llama-3-8b", "llama-3-parameters", "llama-linear-old",
                            "qwen2-layer-types", "qwen2-slides-from-21", "saved-qwen3"):
            text = json.dumps(case["config"], separators=(",", ":"))
            if case["generation"]:
                text += "\0" + json.dumps(case["generation"], separators=(",", ":"))
            seed("config", case["name"], text.encode())
    seed("config", "with_nan", b'{"architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":96,'
         b'"num_hidden_layers":3,"num_attention_heads":4,"vocab_size":100,"rms_norm_eps":NaN,"rope_theta":Infinity}')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("test/golden/loading"))
    p.add_argument("--corpus", type=pathlib.Path, default=pathlib.Path("test/fuzz/corpus"))
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    transformers.logging.set_verbosity_error()
    make_configs(a.out)
    make_quantised(a.out, np.random.default_rng(a.seed))
    make_dtypes(a.out)
    make_random(a.out)
    make_corpus(a.out, a.corpus)


if __name__ == "__main__":
    main()
