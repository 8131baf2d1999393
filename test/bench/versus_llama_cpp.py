#!/usr/bin/env python3
"""Measures llama.cpp on a model of random weights: the yardstick for splitinf's CPU backend.

    versus_llama_cpp.py write DIR --type bf16      writes DIR/random-bf16.gguf (Llama 3.2 1B's shape unless told otherwise)
    versus_llama_cpp.py time FILE.gguf ...         prints prefill and decode speed of each file, one JSON object per line
    versus_llama_cpp.py compare FILE.gguf ...      the same beside ./splitinf, the two in turn; a table with the ratios

Needs the packages gguf, numpy and llama-cpp-python. The weights are normal with deviation 0.02, tiled from one block of
random numbers: what they are does not matter for speed, that they are finite and not zero does.
"""

import argparse
import ctypes
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np


def tensor_shapes(a):
    """Names and [rows, cols] of all matrices, in GGUF's naming; norms have one row."""
    kv = a.kv_heads * a.head_dim
    q = a.heads * a.head_dim
    yield "token_embd.weight", (a.vocab, a.hidden)
    for i in range(a.layers):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (a.hidden,)
        yield b + "attn_q.weight", (q, a.hidden)
        yield b + "attn_k.weight", (kv, a.hidden)
        yield b + "attn_v.weight", (kv, a.hidden)
        yield b + "attn_output.weight", (a.hidden, q)
        yield b + "ffn_norm.weight", (a.hidden,)
        yield b + "ffn_gate.weight", (a.ffn, a.hidden)
        yield b + "ffn_up.weight", (a.ffn, a.hidden)
        yield b + "ffn_down.weight", (a.hidden, a.ffn)
    yield "output_norm.weight", (a.hidden,)
    if not a.tied:
        yield "output.weight", (a.vocab, a.hidden)


def write_model(a):
    import gguf

    types = {
        "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
        "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
        "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
        "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
        "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    }
    qtype, ftype = types[a.type]
    a.dir.mkdir(parents=True, exist_ok=True)
    path = a.dir / f"random-{a.type}.gguf"
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_block_count(a.layers)
    w.add_context_length(a.ctx)
    w.add_embedding_length(a.hidden)
    w.add_feed_forward_length(a.ffn)
    w.add_head_count(a.heads)
    w.add_head_count_kv(a.kv_heads)
    w.add_key_length(a.head_dim)
    w.add_value_length(a.head_dim)
    w.add_rope_dimension_count(a.head_dim)
    w.add_rope_freq_base(500000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(a.vocab)
    w.add_file_type(ftype)
    w.add_tokenizer_model("no_vocab")

    rng = np.random.default_rng(1)
    block = (rng.standard_normal(1 << 22) * 0.02).astype(np.float32)

    def matrix(shape):
        n = int(np.prod(shape))
        start = int(rng.integers(len(block)))
        reps = -(-(start + n) // len(block))
        flat = np.tile(block, reps)[start : start + n]
        return gguf.quants.quantize(flat.reshape(shape), qtype)

    shapes = list(tensor_shapes(a))
    for name, shape in shapes:  # the header first: tensors are then made and written one by one
        if len(shape) == 1:
            w.add_tensor_info(name, shape, np.dtype(np.float32), shape[0] * 4)
        else:
            probe = matrix((1, shape[1]))
            stored = (shape[0], probe.shape[1])
            w.add_tensor_info(name, stored, probe.dtype, shape[0] * probe.nbytes, raw_dtype=qtype)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for name, shape in shapes:
        w.write_tensor_data(np.ones(shape, np.float32) if len(shape) == 1 else matrix(shape))
    w.close()
    print(path)


class Llama:
    """The few calls of llama.cpp that a measurement needs, on one context."""

    def __init__(self, path, threads, prompt, new):
        import llama_cpp

        self.api = llama_cpp
        silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        self.keep = silent
        llama_cpp.llama_log_set(silent, None)
        llama_cpp.llama_backend_init()
        mp = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), mp)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        cp = llama_cpp.llama_context_default_params()
        cp.n_ctx = -(-(prompt + new) // 256) * 256
        cp.n_batch = cp.n_ubatch = max(prompt, 1)
        cp.n_threads = cp.n_threads_batch = threads
        self.ctx = llama_cpp.llama_init_from_model(self.model, cp)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def clear(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.ctx), True)

    def decode(self, tokens):
        """Seconds of one call of llama_decode."""
        arr = (ctypes.c_int32 * len(tokens))(*tokens)
        t = time.perf_counter()
        if self.api.llama_decode(self.ctx, self.api.llama_batch_get_one(arr, len(tokens))) != 0:
            sys.exit("llama_decode failed")
        self.api.llama_synchronize(self.ctx)
        return time.perf_counter() - t

    def close(self):
        self.api.llama_free(self.ctx)
        self.api.llama_model_free(self.model)


def time_models(a):
    for path in a.files:
        m = Llama(path, a.threads, a.prompt, a.new)
        rng = np.random.default_rng(2)
        prompt = [int(t) for t in rng.integers(1, m.vocab, a.prompt)]
        m.decode(prompt[:8])  # first touch of the weights
        prefill, decode = [], []
        for _ in range(a.repeat):
            m.clear()
            prefill.append(m.decode(prompt))
            decode += [m.decode([int(t)]) for t in rng.integers(1, m.vocab, a.new)]
        m.close()
        print(
            json.dumps(
                {
                    "engine": "llama.cpp",
                    "file": pathlib.Path(path).name,
                    "threads": a.threads,
                    "prefill_tokens": a.prompt,
                    "prefill_tok_s_best": round(a.prompt / min(prefill), 2),
                    "prefill_tok_s_median": round(a.prompt / statistics.median(prefill), 2),
                    "decode_tok_s_best": round(1 / min(decode), 2),
                    "decode_tok_s_median": round(1 / statistics.median(decode), 2),
                }
            ),
            flush=True,
        )


def time_splitinf(a, path):
    """(prefill, decode) tok/s of one run of `splitinf bench` on the same file."""
    cmd = [a.splitinf, "bench", "--local", "--model", path, "--prefill", a.prompt, "--tokens", a.new, "--repeat", 1]
    cmd += ["--chunk", a.prompt, "--threads", a.threads, "--json", "--quiet"]
    r = json.loads(subprocess.run([str(x) for x in cmd], check=True, stdout=subprocess.PIPE).stdout)
    return r["prefill_tok_s"], r["decode_tok_s"]


def time_llama(a, path):
    m = Llama(path, a.threads, a.prompt, a.new)
    rng = np.random.default_rng(2)
    prompt = [int(t) for t in rng.integers(1, m.vocab, a.prompt)]
    for _ in range(2):  # as splitinf bench: the first run warms up
        m.clear()
        prefill = m.decode(prompt)
        decode = [m.decode([int(t)]) for t in rng.integers(1, m.vocab, a.new)]
    m.close()
    return a.prompt / prefill, a.new / sum(decode)


def compare(a):
    print(f"prompt of {a.prompt}, answer of {a.new}, {a.threads} threads, medians of {a.repeat} pairs, tok/s")
    print(f"{'file':24} {'':8} {'splitinf':>9} {'llama.cpp':>9} {'ratio':>6} {'min':>6} {'max':>6}")
    for path in a.files:
        ours, theirs = [], []
        for _ in range(a.repeat):
            theirs.append(time_llama(a, path))
            ours.append(time_splitinf(a, path))
        for i, what in enumerate(("prompt", "answer")):
            x, y = [v[i] for v in ours], [v[i] for v in theirs]
            ratios = [p / q for p, q in zip(x, y)]
            print(
                f"{pathlib.Path(path).name:24} {what:8} {statistics.median(x):9.2f} {statistics.median(y):9.2f} "
                f"{statistics.median(ratios):6.2f} {min(ratios):6.2f} {max(ratios):6.2f}",
                flush=True,
            )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="cmd", required=True)
    w = sub.add_parser("write", help="write a GGUF file of random weights")
    w.add_argument("dir", type=pathlib.Path)
    w.add_argument("--type", choices=["f32", "f16", "bf16", "q8_0", "q4_0"], default="bf16")
    w.add_argument("--hidden", type=int, default=2048)
    w.add_argument("--layers", type=int, default=16)
    w.add_argument("--ffn", type=int, default=8192)
    w.add_argument("--heads", type=int, default=32)
    w.add_argument("--kv-heads", type=int, default=8)
    w.add_argument("--head-dim", type=int, default=64)
    w.add_argument("--vocab", type=int, default=128256)
    w.add_argument("--ctx", type=int, default=8192)
    w.add_argument("--tied", action=argparse.BooleanOptionalAction, default=True, help="the head is the embedding")
    w.set_defaults(run=write_model)
    t = sub.add_parser("time", help="time llama.cpp on GGUF files")
    t.add_argument("files", nargs="+")
    t.add_argument("--threads", type=int, default=2)
    t.add_argument("--prompt", type=int, default=512)
    t.add_argument("--new", type=int, default=24)
    t.add_argument("--repeat", type=int, default=3)
    t.set_defaults(run=time_models)
    c = sub.add_parser("compare", help="splitinf and llama.cpp in turn on GGUF files")
    c.add_argument("files", nargs="+")
    c.add_argument("--splitinf", default="./splitinf")
    c.add_argument("--threads", type=int, default=2)
    c.add_argument("--prompt", type=int, default=512)
    c.add_argument("--new", type=int, default=32)
    c.add_argument("--repeat", type=int, default=3)
    c.set_defaults(run=compare)
    a = p.parse_args()
    a.run(a)


if __name__ == "__main__":
    main()
