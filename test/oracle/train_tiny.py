#!/usr/bin/env python3
"""Trains test/models/tiny: a small Llama-architecture model with its own byte-level BPE tokenizer and chat template.

    python3 test/oracle/train_tiny.py --shakespeare FILE [--out test/models/tiny] [--work DIR] [--threads 1]

Needs torch, transformers, tokenizers, safetensors. The text is Shakespeare (public domain) and templates (tiny_text.py), so
the weights are free of anybody's rights. Everything is seeded; with one thread and the same versions the result is the same.
--work keeps checkpoints (a stopped run goes on from the last one). Afterwards run make_tiny_golden.py.
"""

import argparse
import json
import math
import pathlib
import random
import time

import safetensors.torch
import tiny_text
import tokenizers
import torch
import transformers

VOCAB, CONTEXT, SEED, TOKENS_PER_STEP = 1536, 1024, 20240607, 2048
# The second stage repeats half of the first one's mixture and adds conversations that ask for copying.
STAGES = ({"name": "first", "steps": 2600, "lr": 3e-3, "warm_up": 100, "floor": 0.1, "window": 256, "seed": SEED},
          {"name": "second", "steps": 600, "lr": 1.5e-3, "warm_up": 40, "floor": 0.02, "window": 512, "seed": SEED + 1})
SPECIAL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"]
# The pre-tokeniser of Llama 3.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('the roles are system, user and assistant, not ' + message['role']) }}
    {%- endif %}
    {{- '<|' + message['role'] + '|>\\n' + message['content'] | trim + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n' }}
{%- endif %}"""


def make_tokenizer(texts):
    """Byte-level BPE in the form of Llama 3's tokenizer.json: specials behind the vocabulary, bos by post-processor."""
    t = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=True))
    t.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior="isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = tokenizers.decoders.ByteLevel()
    t.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB - len(SPECIAL), initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    t.add_special_tokens(SPECIAL)
    begin = SPECIAL[0]
    t.post_processor = tokenizers.processors.Sequence([
        tokenizers.processors.ByteLevel(trim_offsets=False),
        tokenizers.processors.TemplateProcessing(single=f"{begin} $A", pair=f"{begin} $A {begin} $B",
                                                 special_tokens=[(begin, t.token_to_id(begin))])])
    assert t.get_vocab_size() == VOCAB
    return t


def encode(t, doc):
    """Ids of a document: <|begin|>text<|end|>, or a conversation exactly as the chat template renders it."""
    ids = lambda text: t.encode(text, add_special_tokens=False).ids
    special = t.token_to_id
    if isinstance(doc, str):
        return [special("<|begin|>"), *ids(doc), special("<|end|>")]
    out = [special("<|begin|>")]
    for role, content in doc:
        out += [special(f"<|{role}|>"), *ids("\n" + content), special("<|end|>"), *ids("\n")]
    return out


def cut(text, r, low=1500, high=5000):
    """Pieces that start behind a blank line."""
    out, at = [], 0
    while at < len(text):
        end = text.find("\n\n", at + r.randint(low, high))
        end = len(text) if end < 0 else end + 2
        out.append(text[at:end].strip("\n"))
        at = end
    return out


def make_data(shakespeare):
    """(tokenizer, training ids of both stages, {name: held-out ids}), deterministic."""
    r = random.Random(SEED)
    plays = cut(shakespeare, r)
    n_held = len(plays) // 20
    made = [tiny_text.document(r) for _ in range(14000)]
    held = [tiny_text.document(r) for _ in range(300)]
    plain = [d if isinstance(d, str) else "\n".join(c for _, c in d) for d in made[:4000]]
    t = make_tokenizer(plays[:-n_held] + plain)
    # The plays three times, cut elsewhere each time, against the made text once: about 0.4 to 0.6.
    whole = "\n\n".join(plays[:-n_held])
    train = made + plays[:-n_held] + cut(whole, r) + cut(whole, r)
    r.shuffle(train)
    second = [tiny_text.copying_document(r) for _ in range(9000)] + cut(whole, r)
    r.shuffle(second)
    flat = lambda docs: torch.tensor([i for d in docs for i in encode(t, d)])
    return t, (flat(train), flat(second)), {"shakespeare": flat(plays[-n_held:]), "made": flat(held)}


def make_model():
    torch.manual_seed(SEED)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=384, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=VOCAB - 6, eos_token_id=VOCAB - 5, initializer_range=0.03, attn_implementation="sdpa")
    model = transformers.LlamaForCausalLM(config)
    for name, p in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            p.data.mul_(0.25)
    return model


def loss_of(model, ids):
    return torch.nn.functional.cross_entropy(model(ids[:, :-1], use_cache=False).logits.flatten(0, 1), ids[:, 1:].flatten())


def evaluate(model, held):
    model.eval()
    out = {}
    with torch.no_grad():
        for name, ids in held.items():
            rows = ids[: len(ids) // 513 * 513].view(-1, 513)[:32]
            out[name] = float(torch.stack([loss_of(model, row[None]) for row in rows]).mean())
    model.train()
    return out


def learning_rate(stage, step):
    warm = min(1, (step + 1) / stage["warm_up"])
    return stage["lr"] * warm * (stage["floor"] + (1 - stage["floor"]) * (0.5 + 0.5 * math.cos(math.pi * step / stage["steps"])))


def train(model, ids, held, stage, a):
    """AdamW, warm-up and cosine. Windows are short at first; the last fifth of the steps has windows of the whole context."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                            lr=stage["lr"], betas=(0.9, 0.95), eps=1e-8)
    g = torch.Generator().manual_seed(stage["seed"])
    first, log, mean, spent = 0, [], None, 0.0
    keep = a.work / f"{stage['name']}.pt"
    if keep.exists():
        c = torch.load(keep, weights_only=False)
        model.load_state_dict(c["model"])
        opt.load_state_dict(c["opt"])
        g.set_state(c["g"])
        first, log, mean, spent = c["step"], c["log"], c["mean"], c["spent"]
    model.train()
    start = time.monotonic() - spent
    for step in range(first, stage["steps"]):
        for group in opt.param_groups:
            group["lr"] = learning_rate(stage, step)
        n = stage["window"] if step / stage["steps"] < 0.8 else CONTEXT
        at = torch.randint(0, len(ids) - n - 1, (TOKENS_PER_STEP // n,), generator=g)
        loss = loss_of(model, torch.stack([ids[i:i + n + 1] for i in at.tolist()]))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % 20 == 0:
            print(f"{stage['name']} step {step + 1} loss {mean:.3f} {time.monotonic() - start:.0f} s", flush=True)
        if (step + 1) % 200 == 0 or step + 1 == stage["steps"]:
            now = time.monotonic() - start
            log.append({"stage": stage["name"], "step": step + 1, "train": round(mean, 3),
                        **{k: round(v, 3) for k, v in evaluate(model, held).items()}})
            print(log[-1], flush=True)
            start = time.monotonic() - now
            torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "g": g.get_state(), "step": step + 1, "log": log,
                        "mean": mean, "spent": now}, keep)
    return log, time.monotonic() - start


def export(model, t, out):
    out.mkdir(parents=True, exist_ok=True)
    c = model.config
    (out / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": "bfloat16",
        "attention_bias": False, "mlp_bias": False, "rope_theta": 10000.0, "rope_scaling": None, "use_cache": True,
        **{k: getattr(c, k) for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                                      "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
                                      "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id",
                                      "initializer_range")}}, indent=1, sort_keys=True) + "\n")
    (out / "generation_config.json").write_text(json.dumps({
        "bos_token_id": c.bos_token_id, "eos_token_id": [c.eos_token_id], "do_sample": False}, indent=1) + "\n")
    weights = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items() if k != "lm_head.weight"}
    safetensors.torch.save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    t.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({
        "added_tokens_decoder": {str(t.token_to_id(s)): {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                                                         "single_word": False, "special": True} for s in SPECIAL},
        "bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT, "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}, indent=1) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--shakespeare", type=pathlib.Path, required=True)
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path("test/models/tiny"))
    ap.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/tiny"))
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    a.work.mkdir(parents=True, exist_ok=True)
    t, data, held = make_data(a.shakespeare.read_text())
    model = make_model()
    n = sum(p.numel() for p in model.parameters())
    print(f"{n} parameters, {[len(d) for d in data]} training tokens, held out {({k: len(v) for k, v in held.items()})}", flush=True)
    log, seconds = [], 0.0
    for stage, ids in zip(STAGES, data):
        stage_log, spent = train(model, ids, held, stage, a)
        log += stage_log
        seconds += spent
    model.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in model.state_dict().items()})
    final = evaluate(model, held)
    export(model, t, a.out)
    summary = {"parameters": n, "tokens": sum(s["steps"] for s in STAGES) * TOKENS_PER_STEP, "seconds": round(seconds),
               "held_out_bf16": {k: round(v, 3) for k, v in final.items()}, "log": log}
    (a.work / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(summary["held_out_bf16"])


if __name__ == "__main__":
    main()
