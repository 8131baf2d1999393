#!/usr/bin/env python3
"""Writes what transformers answers (float32, eager attention, greedy) for the trained models that tests use.

    python3 test/oracle/make_known.py tiny [--model test/models/tiny] [--text FILE]
    python3 test/oracle/make_known.py stories260K --model DIR

tiny: golden.json (prompts and a conversation as text, ids and continuations) and golden.bin (logits of the first 300 tokens of
FILE; format: golden.py) beside the model. stories260K, whose files are not part of this project: golden.bin in
test/models/stories260K.
"""

import argparse
import json
import pathlib

import golden
import sentencepiece
import torch
import transformers

PROMPTS = ["First Citizen:\nBefore we", "Once upon a time there was a", "def add(a, b):\n"]
CHAT = [{"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
        {"role": "user", "content": " Turn this into JSON: Anna Weber is 31 years old, lives in Oslo and works as a nurse. "}]
N_GREEDY, MIN_GAP = 64, 1e-3


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def continuation(model, ids, n, stop):
    """Greedy ids, up to and with stop."""
    out, gaps = golden.greedy(model, ids, n)
    if stop in out:
        out = out[:out.index(stop) + 1]
    assert min(gaps[:len(out)]) > MIN_GAP, f"a near tie ({min(gaps):.1e}): another prompt would make a better test"
    return out


def tiny(folder, text):
    model, t = load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    end = t.convert_tokens_to_ids("<|end|>")
    known = {"origin": f"test/oracle/make_known.py, transformers {transformers.__version__}", "prompts": []}
    for prompt in PROMPTS:
        ids = t(prompt).input_ids
        out = continuation(model, ids, N_GREEDY, end)
        known["prompts"].append({"text": prompt, "ids": ids, "greedy_ids": out,
                                 "greedy_text": t.decode(out, skip_special_tokens=True)})
    rendered = t.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    ids = t.apply_chat_template(CHAT, tokenize=True, add_generation_prompt=True, return_dict=True)["input_ids"]
    out = continuation(model, ids, N_GREEDY, end)
    known["chat"] = {"messages": CHAT, "rendered": rendered, "ids": ids, "greedy_ids": out,
                     "greedy_text": t.decode(out, skip_special_tokens=True), "stops": out[-1] == end}
    (folder / "golden.json").write_text(json.dumps(known, indent=1) + "\n")
    for p in known["prompts"] + [known["chat"]]:
        print(repr(p["greedy_text"]))
    ids = t(text.read_text()[:4000]).input_ids[:300]
    golden.write(folder / "golden.bin", model, ids, 40, every=50, last=4)


def stories(folder, out):
    sp = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    ids = [sp.bos_id(), *sp.encode("Once upon a time")]
    out.mkdir(parents=True, exist_ok=True)
    got = golden.write(out / "golden.bin", load(folder), ids, 200, every=1)
    print(f"smallest gap {got['min_gap']:.4f}\n{sp.decode(ids + got['greedy'])}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("which", choices=["tiny", "stories260K"])
    ap.add_argument("--model", type=pathlib.Path, default=pathlib.Path("test/models/tiny"))
    ap.add_argument("--text", type=pathlib.Path, help="tiny: a text file, Shakespeare for instance")
    a = ap.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    if a.which == "tiny":
        tiny(a.model, a.text)
    else:
        stories(a.model, pathlib.Path("test/models/stories260K"))


if __name__ == "__main__":
    main()
