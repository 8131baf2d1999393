#!/usr/bin/env python3
"""Trains test/models/tiny-draft: a smaller model that guesses what test/models/tiny says, with the same tokenizer.

    python3 test/oracle/train_tiny_draft.py --shakespeare FILE [--out test/models/tiny-draft] [--steps 1500]

Needs what train_tiny.py needs. It learns from the same text, and for each token the distribution that tiny gives (Hinton et
al. 2015, arXiv 1503.02531). One thread, seeded.
"""

import argparse
import math
import pathlib
import shutil
import time

import safetensors.torch
import tokenizers
import torch
import train_tiny
import transformers

TINY, SEED, WINDOW, ROWS, LR = pathlib.Path("test/models/tiny"), 20240608, 256, 8, 4e-3


def teacher():
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_json_file(TINY / "config.json"))
    weights = {k: v.float() for k, v in safetensors.torch.load_file(TINY / "model.safetensors").items()}
    missing = model.load_state_dict(weights, strict=False)
    assert missing.missing_keys in ([], ["lm_head.weight"]) and not missing.unexpected_keys
    return model.eval()


def student():
    torch.manual_seed(SEED)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=train_tiny.VOCAB, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=train_tiny.CONTEXT, rms_norm_eps=1e-5,
        tie_word_embeddings=True, bos_token_id=train_tiny.VOCAB - 6, eos_token_id=train_tiny.VOCAB - 5,
        initializer_range=0.03, attn_implementation="sdpa"))


def agreement(a, b, ids):
    """How often the likeliest tokens of both are the same."""
    a.eval()
    with torch.no_grad():
        rows = ids[: len(ids) // 512 * 512].view(-1, 512)[:16]
        same = (a(rows).logits.argmax(-1) == b(rows).logits.argmax(-1)).float().mean()
    a.train()
    return round(float(same), 3)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--shakespeare", type=pathlib.Path, required=True)
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path("test/models/tiny-draft"))
    ap.add_argument("--steps", type=int, default=1500)
    a = ap.parse_args()
    torch.set_num_threads(1)
    _, data, held = train_tiny.make_data(a.shakespeare.read_text())
    t = tokenizers.Tokenizer.from_file(str(TINY / "tokenizer.json"))
    ids = torch.cat(data)
    big, small = teacher(), student()
    print(f"{sum(p.numel() for p in small.parameters())} parameters", flush=True)
    opt = torch.optim.AdamW(small.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.05)
    g = torch.Generator().manual_seed(SEED)
    mean, start = None, time.monotonic()
    small.train()
    for step in range(a.steps):
        for group in opt.param_groups:
            group["lr"] = LR * min(1, (step + 1) / 60) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * step / a.steps)))
        at = torch.randint(0, len(ids) - WINDOW, (ROWS,), generator=g)
        x = torch.stack([ids[i:i + WINDOW] for i in at.tolist()])
        with torch.no_grad():
            want = torch.log_softmax(big(x, use_cache=False).logits, -1)
        got = torch.log_softmax(small(x, use_cache=False).logits, -1)
        loss = torch.nn.functional.kl_div(got.flatten(0, 1), want.flatten(0, 1), log_target=True, reduction="batchmean")
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(small.parameters(), 1.0)
        opt.step()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} divergence {mean:.3f} {time.monotonic() - start:.0f} s", flush=True)
    small.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in small.state_dict().items()})
    train_tiny.export(small, t, a.out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TINY / name, a.out / name)
    print({k: agreement(small, big, v) for k, v in held.items()}, f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
