#!/usr/bin/env python3
"""Tokenizers against their oracles: sentencepiece, tokenizers, mistral_common.

    make_tokens.py train            makes the small tokenizers in test/golden/tok (needs shared data)
    make_tokens.py gguf             only the GGUF files among them
    make_tokens.py seeds            makes test/fuzz/corpus/{hf_tokenizer,spm,tekken,gguf_tok,encode}
    make_tokens.py golden           writes test/golden/tok/{ids,hashes}.txt from the oracles
    make_tokens.py check BINARY     compares BINARY (build/tok_ids, from test/tools/tok_ids.c) with the oracles on every
                                    corpus, for the committed tokenizers and for the real ones in shared data and in
                                    mistral_common

    make_tokens.py combinations BINARY   the same over random combinations of tokenizer.json's components

Needs Python with sentencepiece, tokenizers, transformers, mistral-common, gguf. TEST_SHARED names the folder of shared
data (default ../shared). The C tests read the golden files and generate the same texts (test/unit/test_tok_golden.c).
"""
import base64
import gzip
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GOLD = os.path.join(ROOT, "test/golden/tok")
SHARED = os.environ.get("TEST_SHARED", os.path.join(ROOT, "../shared"))

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
NEMO = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# ---- texts ---------------------------------------------------------------------------------------------------------

CASES = json.load(open(os.path.join(GOLD, "cases.json"), encoding="utf-8"))


class Rng:
    """xorshift64*, as in the C test."""

    def __init__(self, seed):
        self.s = seed

    def below(self, n):
        s = self.s
        s ^= s >> 12
        s = (s ^ s << 25) & 0xFFFFFFFFFFFFFFFF
        s ^= s >> 27
        self.s = s
        return ((s * 2685821657736338717 & 0xFFFFFFFFFFFFFFFF) >> 33) % n


def short_texts():
    return [t.encode() for t in CASES["short"]] + [bytes.fromhex(h) for h in CASES["bad_utf8_hex"]]


def block_texts(group):
    """The code points of a group, 256 to a text. Groups 0-15: 0x1000 each of plane 0; 16-31: planes 1-16."""
    base, size = (group * 0x1000, 0x1000) if group < 16 else ((group - 15) * 0x10000, 0x10000)
    out = []
    for b in range(base, base + size, 256):
        run = [c for c in range(b, b + 256) if not 0xD800 <= c < 0xE000]
        if run:
            out.append("".join(map(chr, run)).encode())
    return out


MIX_GROUPS, MIX_EACH = 20, 100


def mix_texts(group):
    rng = Rng(1000 + group)
    pool = [t.encode() for t in CASES["pool"]]
    out = []
    for _ in range(MIX_EACH):
        t = b""
        for _ in range(1 + rng.below(40)):
            kind = rng.below(8)
            if kind == 0:
                c = rng.below(0x3000)
            elif kind == 1:
                c = 0x10000 + rng.below(0x20000)
            elif kind == 2:
                c = 32 + rng.below(95)
            else:
                t += pool[rng.below(len(pool))]
                continue
            t += chr(c).encode()
        out.append(t)
    return out


FILES = ["corpus/shakespeare.txt", "corpus/wikitext2.test.txt", "corpus/wikitext2.valid.txt", "leak/wl1_pii.dev.jsonl",
         "leak/wl3_implicit.dev.jsonl", "leak/wl4_code.dev.jsonl", "traces/mistral-7b-instruct-v0.2.dev.jsonl",
         "traces/mistral-7b-instruct-v0.3.dev.jsonl", "traces/mixtral-8x7b-instruct-v0.1.dev.jsonl"]


def shared(name):
    return open(os.path.join(SHARED, "data", name), "rb").read()


def json_texts():
    """The strings inside the jsonl files, one text each: only for check, the golden files take the files whole."""
    out = []

    def walk(v):
        if isinstance(v, str):
            out.append(v.encode())
        for w in v.values() if isinstance(v, dict) else v if isinstance(v, list) else []:
            walk(w)

    for name in FILES + ["leak/wl2_secrets.dev.jsonl.gz"]:
        if "jsonl" in name:
            data = shared(name)
            for line in (gzip.decompress(data) if name.endswith("gz") else data).decode().splitlines():
                walk(json.loads(line))
    return out


def fnv(h, data):
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


# ---- oracles -------------------------------------------------------------------------------------------------------

def is_utf8(t):
    try:
        t.decode()
        return True
    except UnicodeDecodeError:
        return False


class Spm:
    modes = ["plain"]

    def __init__(self, path):
        import sentencepiece
        self.sp = sentencepiece.SentencePieceProcessor(model_file=path)
        self.n = self.sp.vocab_size()
        self.odd = set()

    def encode(self, t, mode):
        return self.sp.encode(t)

    def decode(self, ids, keep):
        return None if keep else self.sp.decode(ids).encode()


class Hf:
    modes = ["plain", "special"]

    def __init__(self, path):
        import tokenizers
        self.t = tokenizers.Tokenizer.from_file(path)
        self.n = max(self.t.get_vocab().values()) + 1
        # runs of byte pieces that are no UTF-8 as a whole are shown differently on purpose: see tok/decode.c
        self.odd = {i for s, i in self.t.get_vocab().items() if len(s) == 6 and s.startswith("<0x")}

    def encode(self, t, mode):
        if not is_utf8(t):
            return None
        self.t.encode_special_tokens = mode == "plain"
        try:
            return self.t.encode(t.decode(), add_special_tokens=False).ids
        except BaseException as e:  # some odd combinations of components panic
            if type(e).__name__ == "PanicException":
                return None
            raise

    def decode(self, ids, keep):
        return self.t.decode(ids, skip_special_tokens=not keep).encode()


class Tekken:
    modes = ["plain"]

    def __init__(self, path):
        from mistral_common.tokens.tokenizers.tekken import SpecialTokenPolicy, Tekkenizer
        self.t = Tekkenizer.from_file(path)
        self.n = self.t.n_words
        self.odd = set()
        self.policy = {True: SpecialTokenPolicy.KEEP, False: SpecialTokenPolicy.IGNORE}

    def encode(self, t, mode):
        return self.t.encode(t.decode(), bos=False, eos=False) if is_utf8(t) else None

    def decode(self, ids, keep):
        return self.t.decode(ids, self.policy[keep]).encode()


def oracle(path):
    if path.endswith(".gguf"):
        return oracle(GGUF_FROM[os.path.basename(path)])
    if "tekken" in os.path.basename(path):
        return Tekken(path)
    return Hf(path) if path.endswith(".json") else Spm(path)


# ---- check ---------------------------------------------------------------------------------------------------------

def ours(binary, path, texts, *flags):
    """Ids and decoded text of each text, from the program."""
    req = b"".join(struct.pack("<I", len(t)) + t for t in texts)
    r = subprocess.run([binary, path, *flags], input=req, stdout=subprocess.PIPE, check=True).stdout
    out, o = [], 0
    for _ in texts:
        n, = struct.unpack_from("<I", r, o)
        o += 4
        ids = None
        if n != 0xFFFFFFFF:
            ids = list(struct.unpack_from("<%dI" % n, r, o))
            o += 4 * n
        k, = struct.unpack_from("<I", r, o)
        o += 4
        out.append((ids, r[o:o + k]))
        o += k
    assert o == len(r)
    return out


def random_ids(o, seed, n=200):
    rng = Rng(seed)
    out = []
    for _ in range(n):
        ids = [rng.below(o.n) for _ in range(1 + rng.below(30))]
        out.append([i for i in ids if i not in o.odd])
    return out


# ---- golden files --------------------------------------------------------------------------------------------------

SHARED_TOKENIZERS = ["data/tokenizers/llama2.model", "data/tokenizers/mistral.model.v1", "data/tokenizers/mistral.model.v2",
                     "data/tokenizers/mistral.model.v3", "data/models/stories260K/tokenizer.model"]


def golden_line(out, o, name, mode, case, texts):
    """One line: hashes over the ids and over the decoded texts of all texts of a case."""
    h_ids = h_text = 0xCBF29CE484222325
    n = 0
    for t in texts:
        ids = o.encode(t, mode)
        if ids is None:
            continue
        text = o.decode(ids, False)
        n += len(ids)
        h_ids = fnv(h_ids, struct.pack("<%dI" % (len(ids) + 1), len(ids), *ids))
        h_text = fnv(h_text, struct.pack("<I", len(text)) + text)
    out.write("%s %s %s %d %016x %016x\n" % (name, mode, case, n, h_ids, h_text))


def golden_decode_line(out, o, name, keep):
    """The same over lists of random ids, decoded; byte pieces left out where the oracle treats runs of them otherwise."""
    odd = (min(o.odd), max(o.odd)) if o.odd else (0, -1)
    assert len(o.odd) == odd[1] - odd[0] + 1
    h = 0xCBF29CE484222325
    for ids in random_ids(o, 7):
        text = o.decode(ids, keep)
        if text is None:
            return
        h = fnv(h, struct.pack("<I", len(text)) + text)
    out.write("%s decode %s:%d:%d 0 0 %016x\n" % (name, "keep" if keep else "skip", *odd, h))


def golden():
    hashes = open(os.path.join(GOLD, "hashes.txt"), "w")
    short = open(os.path.join(GOLD, "ids.txt"), "w")
    for name in TOKENIZERS + SHARED_TOKENIZERS:
        o = oracle(os.path.join(SHARED if "/" in name else GOLD, name))
        for mode in o.modes:
            for i, t in enumerate(short_texts()):
                ids = o.encode(t, mode)
                if ids is not None and "/" not in name:
                    short.write("%s %s %d:%s\n" % (name, mode, i, "".join(" %d" % j for j in ids)))
            golden_line(hashes, o, name, mode, "short", short_texts())
            for g in range(MIX_GROUPS):
                golden_line(hashes, o, name, mode, "mix:%d" % g, mix_texts(g))
        for g in range(32):
            golden_line(hashes, o, name, "plain", "block:%d" % g, block_texts(g))
        for f in FILES:
            golden_line(hashes, o, name, "plain", "file:" + f, [shared(f)])
        for keep in (False, True):
            golden_decode_line(hashes, o, name, keep)
        print(name, flush=True)


def show(what, path, t, want, got):
    print("DIFFERENT %s %s: %r\n   want %r\n   got  %r" % (what, path, t[:120], want[:60] if want else want,
                                                           got[:60] if got else got))


def check_one(binary, path, texts):
    o, bad, n, tokens = oracle(path), 0, 0, 0
    for mode in o.modes:
        flags = ["-s"] if mode == "special" else []
        for t, (ids, text) in zip(texts, ours(binary, path, texts, *flags)):
            want = o.encode(t, mode)
            if want is None:
                continue
            n += 1
            tokens += len(want)
            if ids != want:
                bad += 1
                if bad <= 6:
                    show(mode + " ids", path, t, want, ids)
                continue
            want = o.decode(ids, False)
            if text != want:
                bad += 1
                if bad <= 6:
                    show("text", path, t, want, text)
    for keep in (False, True):
        lists = random_ids(o, 7)
        req = [struct.pack("<%dI" % len(i), *i) for i in lists]
        for i, (_, text) in zip(lists, ours(binary, path, req, "-d", *(["-k"] if keep else []))):
            want = o.decode(i, keep)
            if want is None:
                continue
            n += 1
            if text != want:
                bad += 1
                if bad <= 6:
                    show("decode", path, repr(i), want, text)
    print("%-60s %d different of %d comparisons, %d tokens" % (path[-60:], bad, n, tokens), flush=True)
    return bad


def combinations(binary, rounds=200):
    """Random combinations of the supported components of tokenizer.json, around the committed vocabularies."""
    rng = random.Random(5)
    texts = short_texts() + [t for g in range(3) for t in mix_texts(g)]
    normalizers = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")] + [
        {"type": "Strip", "strip_left": True, "strip_right": False}, {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        {"type": "Replace", "pattern": {"Regex": "\\s+|x+"}, "content": "-"}]
    patterns = [{"Regex": LLAMA3}, {"Regex": "\\p{Lu}"}, {"Regex": "(?=[a-z])"}, {"Regex": "\\w+|[^\\w\\s]+"}, {"String": " "},
                {"String": "a.b"}, {"Regex": "[\\d]"}, {"Regex": "^.|\\S$"}]
    behaviors = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

    def split():
        return rng.choice([{"type": "Split", "pattern": rng.choice(patterns), "behavior": rng.choice(behaviors),
                            "invert": rng.random() < 0.3}, {"type": "Digits", "individual_digits": rng.random() < 0.5},
                           {"type": "WhitespaceSplit"}])

    def metaspace():
        return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": rng.choice(["first", "always", "never"]),
                "split": rng.random() < 0.5}

    bad = 0
    with tempfile.TemporaryDirectory() as tmp:
        for i in range(rounds):
            byte_level = i % 2 == 0
            data = json.load(open(os.path.join(GOLD, rng.choice(["gpt2.json", "qwen2.json"] if byte_level else
                                                                ["odd.json", "llama2_legacy.json"])), encoding="utf-8"))
            data["normalizer"] = rng.choice([None, {"type": "Sequence", "normalizers": rng.sample(normalizers, 3)}])
            steps = [split() for _ in range(rng.randrange(3))]
            if byte_level:
                steps.append({"type": "ByteLevel", "add_prefix_space": not steps and rng.random() < 0.7, "trim_offsets": True,
                              "use_regex": rng.random() < 0.5})
            elif rng.random() < 0.6:
                steps.insert(0, metaspace())
            if data["normalizer"]:  # the library takes "first" for: the normalizer left the first character where it was
                for m in steps:
                    m.update({"prepend_scheme": "always"} if "prepend_scheme" in m else {})
            data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps} if steps else None
            if not byte_level:
                data["decoder"] = rng.choice([None, metaspace(), data["decoder"], {"type": "Sequence", "decoders": [
                    {"type": "ByteFallback"}, {"type": "Fuse"}]}])
            for a in data["added_tokens"]:
                a["lstrip"], a["rstrip"], a["single_word"], a["normalized"] = (rng.random() < 0.3 for _ in range(4))
                # tokenizers 0.23 does not skip a special token whose normalised form is another text
                a["normalized"] = a["normalized"] and not a["special"]
            path = os.path.join(tmp, "combination%d.json" % i)
            json.dump(data, open(path, "w", encoding="utf-8"))
            try:
                bad += check_one(binary, path, texts)
            except subprocess.CalledProcessError:
                bad += 1
            if bad:
                print(json.dumps({k: data[k] for k in ("normalizer", "pre_tokenizer", "decoder", "added_tokens")}))
                break
    print("combinations: %d different" % bad)
    return bad


def real_tokenizers(tmp):
    """The real files at hand, and tokenizer.json made from them by transformers and tokenizers."""
    import mistral_common
    out = [os.path.join(SHARED, "data/tokenizers", f) for f in ("llama2.model", "mistral.model.v1", "mistral.model.v2",
                                                           "mistral.model.v3")]
    out.append(os.path.join(SHARED, "data/models/stories260K/tokenizer.model"))
    data = os.path.join(os.path.dirname(mistral_common.__file__), "data")
    out += [os.path.join(data, f) for f in sorted(os.listdir(data)) if f.startswith("tekken") or "v7" in f]
    for f in ("llama2.model", "mistral.model.v3"):
        path = os.path.join(tmp, f + ".json")
        llama_json(os.path.join(SHARED, "data/tokenizers", f), path)
        out.append(path)
    for f in GGUF_FROM:
        if f not in TOKENIZERS:
            make_gguf(os.path.join(tmp, f))
            out.append(os.path.join(tmp, f))
    path = os.path.join(tmp, "nemo.json")
    tekken_to_hf(os.path.join(data, "tekken_240718.json"), path)
    return out + [path]


def check(binary):
    texts = short_texts()
    for g in range(32):
        texts += block_texts(g)
    for g in range(MIX_GROUPS * 5):
        texts += mix_texts(g)
    texts += [shared(f) for f in FILES] + json_texts()
    rng = random.Random(3)
    texts += [bytes(rng.choice([rng.randrange(256), 32, rng.randrange(0x80, 0x100)]) for _ in range(rng.randrange(30)))
              for _ in range(3000)]
    texts += [c * 5000 for c in (b"a", b" ", b"\n", "\u00e9".encode(), "\U0001f600".encode(), b"ab", b"=", b"1", b"\xff")]
    texts += [b"".join(open(os.path.join(ROOT, d, f), "rb").read() for f in sorted(os.listdir(os.path.join(ROOT, d)))
                       if f.endswith((".c", ".h", ".py"))) for d in ("tok", "core/base", "test/oracle")]
    bad = 0
    with tempfile.TemporaryDirectory() as tmp:
        only = sys.argv[3:]
        for path in [os.path.join(GOLD, f) for f in TOKENIZERS] + real_tokenizers(tmp):
            if not only or any(o in path for o in only):
                bad += check_one(binary, path, texts)
    print("total: %d different" % bad)
    return bad != 0


# ---- making the small tokenizers -----------------------------------------------------------------------------------

# The oracle of a GGUF file is that of the file it was made from.
GGUF_FROM = {"llama.gguf": os.path.join(GOLD, "spm_identity.model"), "llama-bpe.gguf": os.path.join(GOLD, "llama3.json"),
             "qwen2.gguf": os.path.join(GOLD, "qwen2.json"), "tekken.gguf": os.path.join(GOLD, "nemo.json"),
             "gpt-2.gguf": os.path.join(GOLD, "gpt2.json"), "llama2.gguf": os.path.join(SHARED, "data/tokenizers/llama2.model"),
             "mistral3.gguf": os.path.join(SHARED, "data/tokenizers/mistral.model.v3")}
TOKENIZERS = ["llama.gguf", "llama-bpe.gguf", "qwen2.gguf", "spm_identity.model", "spm_unused.model", "spm_nmt.model", "llama3.json", "qwen2.json", "nemo.json", "gpt2.json",
              "llama2_legacy.json", "llama2_metaspace.json", "odd.json", "tekken.json"]


def seeds():
    """Small files to start the fuzz targets from, and a dictionary of the names in tokenizer.json."""
    import sentencepiece  # noqa: F401
    from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors)
    base = os.path.join(ROOT, "test/fuzz/corpus")

    def put(target, name, data):
        os.makedirs(os.path.join(base, target), exist_ok=True)
        open(os.path.join(base, target, name), "wb").write(data)

    def bpe(**k):
        vocab = {c: i for i, c in enumerate(["<unk>", "<s>", "</s>", "\u2581", "a", "b", "t", "h", "e", "\u0120", "ab", "th",
                                             "the", "\u2581the", "\u0120the", "<0xC3>", "<0xA9>", "\u00c3", "\u00a9"])}
        return Tokenizer(models.BPE(vocab, [("a", "b"), ("t", "h"), ("th", "e"), ("\u2581", "the"), ("\u0120", "the")], **k))

    def add(t):
        t.add_special_tokens([AddedToken("<s>"), AddedToken("</s>", lstrip=True, rstrip=True)])
        t.add_tokens([AddedToken("Hello", single_word=True), AddedToken("\n", normalized=False)])
        return t.to_str(pretty=False).encode()

    t = bpe(ignore_merges=True)
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    put("hf_tokenizer", "byte_level", add(t))
    t = bpe(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    put("hf_tokenizer", "legacy", add(t))
    t = bpe(unk_token="<unk>")
    t.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKD(),
                                         normalizers.Lowercase(), normalizers.Replace(Regex("\\s+"), " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(),
                                               pre_tokenizers.Split("b", "merged_with_next", invert=True)])
    t.decoder = decoders.Metaspace()
    put("hf_tokenizer", "metaspace", add(t))
    put("tekken", "small", json.dumps(
        {"config": {"pattern": r"\p{L}+| ?[^\s\p{L}]+|\s+", "default_vocab_size": 262, "default_num_special_tokens": 4,
                    "version": "v3"},
         "vocab": [{"rank": i, "token_bytes": base64.b64encode(b).decode(), "token_str": None}
                   for i, b in enumerate([bytes([b]) for b in range(256)] + [b"th", b"the"])],
         "special_tokens": [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(["<unk>", "<s>"])]},
        separators=(",", ":")).encode())
    with tempfile.TemporaryDirectory() as tmp:
        rules = os.path.join(tmp, "rules.tsv")
        open(rules, "w").write("FF21\t41\n65 301\tE9\n09\t20\n0D 0A\t20\n2028\t\n")
        path = os.path.join(tmp, "m.model")
        train_spm(path, vocab_size=60, character_coverage=0.98, normalization_rule_tsv=rules, hard_vocab_limit=False,
                  user_defined_symbols=["==", "<x>"], text="the cat sat on the mat the end\n" * 50)
        put("spm", "rules", open(path, "rb").read())
        train_spm(path, vocab_size=300, character_coverage=1.0, normalization_rule_name="identity", byte_fallback=True,
                  remove_extra_whitespaces=False, hard_vocab_limit=False, text="the cat sat on the mat the end\n" * 50)
        put("spm", "bytes", open(path, "rb").read())
        with_unused(path, os.path.join(tmp, "u.model"))
        put("spm", "unused", open(os.path.join(tmp, "u.model"), "rb").read())
        GGUF_FROM["seed-llama.gguf"] = path
        make_gguf(os.path.join(tmp, "seed-llama.gguf"))
        put("gguf_tok", "llama", open(os.path.join(tmp, "seed-llama.gguf"), "rb").read())
        GGUF_FROM["qwen2.gguf"] = os.path.join(base, "hf_tokenizer", "byte_level.json")
        os.link(os.path.join(base, "hf_tokenizer", "byte_level"), GGUF_FROM["qwen2.gguf"])
        make_gguf(os.path.join(tmp, "qwen2.gguf"))
        os.unlink(GGUF_FROM["qwen2.gguf"])
        put("gguf_tok", "qwen2", open(os.path.join(tmp, "qwen2.gguf"), "rb").read())
    for i, t in enumerate(["Hello, world!", "\u00e9\u4f60\u597d \U0001f600", "<s>x</s> <|im_end|>", "  \n\n\t 123", "\u2581 the"]):
        put("encode", "text%d" % i, bytes([i + 8 * i]) + t.encode() + b"\xff\xe2\x82")
    words = ["model", "vocab", "merges", "BPE", "unk_token", "byte_fallback", "fuse_unk", "ignore_merges", "added_tokens",
             "content", "special", "normalized", "single_word", "lstrip", "rstrip", "normalizer", "Sequence", "normalizers",
             "NFC", "NFKC", "Prepend", "prepend", "Replace", "pattern", "String", "Regex", "Strip", "Lowercase", "pre_tokenizer",
             "pretokenizers", "ByteLevel", "add_prefix_space", "use_regex", "Split", "behavior", "Isolated", "Removed",
             "MergedWithPrevious", "MergedWithNext", "Contiguous", "invert", "Metaspace", "replacement", "prepend_scheme",
             "first", "always", "Digits", "decoder", "decoders", "ByteFallback", "Fuse", "start", "stop", "post_processor",
             "TemplateProcessing", "single", "SpecialToken", "special_tokens", "ids", "id", "type"]
    rx = ["\\\\p{L}", "\\\\p{N}{1,3}", "[^\\\\r\\\\n]", "(?i:", "(?!", "\\\\s+", "\\\\S", "\\\\x{e9}", "<0x0A>"]
    with open(os.path.join(ROOT, "test/fuzz/hf_tokenizer.dict"), "w") as f:
        f.write("# Made by make_tokens.py seeds: keys and values of tokenizer.json, bits of regular expressions.\n")
        f.writelines('"\\"%s\\""\n' % w for w in words)
        f.writelines('"%s"\n' % r.replace("\\\\", "\\\\\\\\") for r in rx)


def training_text():
    """Shakespeare, and the pool often enough that every script in it makes merges."""
    text = shared("corpus/shakespeare.txt").decode()[:400000]
    rng = Rng(99)
    pool = [p for p in CASES["pool"] if "\0" not in p and not p.startswith("<")]
    return text + "\n".join("".join(pool[rng.below(len(pool))] for _ in range(20)) for _ in range(2000))


def train_byte_level(path, pattern, size, special, added=(), normalizer=None, ignore_merges=False, bos=None):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        t.normalizer = getattr(normalizers, normalizer)()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    t.pre_tokenizer = byte_level if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    t.train_from_iterator(training_text().splitlines(keepends=True), trainer)
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    t.add_tokens([AddedToken(s, special=False, normalized=False) for s in added])
    t.post_processor = processors.ByteLevel(trim_offsets=False) if not bos else processors.Sequence(
        [processors.ByteLevel(trim_offsets=True),
         processors.TemplateProcessing(single=bos + " $A", special_tokens=[(bos, t.token_to_id(bos))])])
    t.save(path, pretty=False)


def llama_json(model, path, metaspace=False):
    """What transformers and tokenizers make of a Llama SentencePiece model: legacy (Prepend, Replace) or Metaspace."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    sp = sentencepiece.SentencePieceProcessor(model_file=model)
    pieces = [sp.id_to_piece(i) for i in range(sp.vocab_size())]
    vocab = {p: i for i, p in enumerate(pieces)}
    merges = []
    for p, i in vocab.items():
        if sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i):
            continue
        local = [(vocab[p[:k]], vocab[p[k:]], i) for k in range(1, len(p)) if p[:k] in vocab and p[k:] in vocab]
        merges += [(-sp.get_score(i), *m) for m in sorted(local)]
    merges.sort(key=lambda m: m[0])
    t = Tokenizer(models.BPE(vocab, [(pieces[a], pieces[b]) for _, a, b, _ in merges], unk_token="<unk>", fuse_unk=True,
                             byte_fallback=True))
    replace = decoders.Replace("\u2581", " ")
    if metaspace:
        t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=False)
    else:
        t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    t.add_special_tokens([AddedToken(p, special=True, normalized=False)
                          for i, p in enumerate(pieces) if sp.is_control(i) or sp.is_unknown(i)])
    if metaspace:
        t.add_tokens([AddedToken("Romeo", special=False, normalized=True, single_word=True),
                      AddedToken("[TOOL]", special=False, normalized=False, lstrip=True, rstrip=True)])
    t.save(path, pretty=False)


def tekken_to_hf(tekken, path):
    """The vocabulary of a tekken file as a byte-level tokenizer.json."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    data = json.load(open(tekken, encoding="utf-8"))
    n_special = data["config"]["default_num_special_tokens"]
    ranks = {base64.b64decode(v["token_bytes"]): v["rank"]
             for v in data["vocab"][:data["config"]["default_vocab_size"] - n_special]}
    chars = bytes_to_chars()
    name = {b: "".join(chars[c] for c in b) for b in ranks}
    merges = []
    for b, r in ranks.items():
        local = [(ranks[b[:k]], ranks[b[k:]], r, b[:k], b[k:]) for k in range(1, len(b)) if b[:k] in ranks and b[k:] in ranks]
        merges += sorted(local)
    merges.sort(key=lambda m: m[2])
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"] + ["<SPECIAL_%d>" % i for i in range(5, n_special)]
    vocab = {s: i for i, s in enumerate(special)}
    vocab.update({name[b]: r + n_special for b, r in ranks.items()})
    t = Tokenizer(models.BPE(vocab, [(name[a], name[b]) for _, _, _, a, b in merges], ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(data["config"]["pattern"]), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    t.save(path, pretty=False)


def bytes_to_chars():
    keep = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def train_tekken(path, size):
    """A tekken.json in the format of the real ones, from a byte-level vocabulary trained with the same pattern."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(NEMO), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    t.train_from_iterator(training_text().splitlines(keepends=True), trainer)
    back = {c: b for b, c in bytes_to_chars().items()}
    pieces = [bytes([b]) for b in range(256)]
    for p, _ in sorted(t.get_vocab().items(), key=lambda x: x[1]):
        b = bytes(back[c] for c in p)
        if len(b) > 1:
            pieces.append(b)
    n_special = 30
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]

    def text(b):
        return b.decode() if is_utf8(b) else None

    data = {"config": {"pattern": NEMO, "num_vocab_tokens": len(pieces), "default_vocab_size": len(pieces) - 3 + n_special,
                       "default_num_special_tokens": n_special, "version": "v11"},
            "vocab": [{"rank": i, "token_bytes": base64.b64encode(b).decode(), "token_str": text(b)}
                      for i, b in enumerate(pieces)],
            "special_tokens": [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(special)]}
    json.dump(data, open(path, "w", encoding="utf-8"), ensure_ascii=True)


def fields(b):
    """The fields of a protobuf message: number, value (None for fixed ones), and the bytes of the whole field."""
    def varint(o):
        v = shift = 0
        while True:
            v |= (b[o] & 127) << shift
            shift += 7
            o += 1
            if not b[o - 1] & 128:
                return v, o
    o = 0
    while o < len(b):
        start, v = o, None
        key, o = varint(o)
        if key & 7 == 2:
            n, o = varint(o)
            v = b[o:o + n]
            o += n
        elif key & 7 == 0:
            v, o = varint(o)
        else:
            o += 4 if key & 7 == 5 else 8
        yield key >> 3, v, b[start:o]


def with_unused(source, path):
    """A SentencePiece model in which some pieces are of type UNUSED."""
    out, i = b"", 0
    for number, piece, raw in fields(open(source, "rb").read()):
        if number == 1:
            have = {k: v for k, v, _ in fields(piece)}
            i += 1
            if 3 not in have and len(have[1].decode()) > 1 and i % 5 < 2:
                piece += b"\x18\x05"
                raw = b"\x0a" + bytes([len(piece)]) + piece
                assert len(piece) < 128
        out += raw
    open(path, "wb").write(out)


def spm_types(path):
    """The type of each piece of a SentencePiece model, which its Python interface does not tell: field 3 of each field 1."""
    return [{k: v for k, v, _ in fields(piece)}.get(3, 1) for number, piece, _ in fields(open(path, "rb").read())
            if number == 1]


def make_gguf(path):
    """The tokenizer of GGUF_FROM as the conversion scripts of llama.cpp write it; nothing else is in the file."""
    import gguf
    source, name = GGUF_FROM[os.path.basename(path)], os.path.basename(path)[:-5]
    w = gguf.GGUFWriter(path, "llama")
    normal, control, user = (int(getattr(gguf.TokenType, k)) for k in ("NORMAL", "CONTROL", "USER_DEFINED"))
    o = oracle(source)
    tokens, types = [], []
    if isinstance(o, Spm):
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        tokens = [o.sp.id_to_piece(i).encode() for i in range(o.n)]
        types = spm_types(source)
        w.add_token_list(tokens)
        w.add_token_scores([o.sp.get_score(i) for i in range(o.n)])
        w.add_token_types(types)
        w.add_bos_token_id(o.sp.bos_id())
        w.add_eos_token_id(o.sp.eos_id())
        w.add_unk_token_id(o.sp.unk_id())
        w.add_add_bos_token(True)
    else:
        data = json.load(open(source, encoding="utf-8"))
        texts = {i: s for s, i in data["model"]["vocab"].items()}
        added = {a["id"]: a for a in data["added_tokens"]}
        texts.update({i: a["content"] for i, a in added.items()})
        for i in range(o.n):
            tokens.append(texts[i].encode())
            types.append(normal if i not in added else control if added[i]["special"] else user)
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(name)
        w.add_token_list(tokens)
        w.add_token_types(types)
        w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]])
        for key, text in (("bos", "<|begin_of_text|>"), ("bos", "<s>"), ("eos", "<|endoftext|>"), ("eos", "</s>")):
            if o.t.token_to_id(text) is not None:
                getattr(w, "add_%s_token_id" % key)(o.t.token_to_id(text))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def train_odd(path):
    """The rarer components, all in one."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    t.normalizer = normalizers.Sequence([normalizers.Strip(left=True, right=True), normalizers.NFKC(), normalizers.Lowercase(),
                                         normalizers.Replace(Regex(r"\s{3,}"), "  "), normalizers.Replace("``", "\"")])
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True), pre_tokenizers.Digits(True),
         pre_tokenizers.Split("!", "merged_with_previous"), pre_tokenizers.Split(Regex(r"[(<]"), "merged_with_next"),
         pre_tokenizers.Split(Regex(r"[=\-.]"), "contiguous"), pre_tokenizers.Split(",", "removed"),
         pre_tokenizers.Split(Regex(r"[^\n]+"), "removed", invert=True), pre_tokenizers.Split(Regex(r"(?=\p{Lo})"), "isolated")])
    t.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    t.train_from_iterator(training_text().splitlines(keepends=True),
                          trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", "<s>"], limit_alphabet=150,
                                              show_progress=False))
    t.add_tokens([AddedToken("Hello", single_word=True), AddedToken("WORLD", normalized=True),
                  AddedToken("</w>", normalized=False, lstrip=True), AddedToken("@@", normalized=False, rstrip=True)])
    t.add_special_tokens([AddedToken("</s>", normalized=True, special=True), AddedToken("<|im_end|>", rstrip=True, lstrip=True)])
    t.save(path, pretty=False)


def train_spm(path, text=None, **options):
    import sentencepiece
    with tempfile.TemporaryDirectory() as tmp:
        source = os.path.join(tmp, "t.txt")
        open(source, "w", encoding="utf-8").write(text or training_text())
        sentencepiece.SentencePieceTrainer.train(input=source, model_prefix=os.path.join(tmp, "m"), model_type="bpe",
                                                 minloglevel=2, num_threads=1, **options)
        open(path, "wb").write(open(os.path.join(tmp, "m.model"), "rb").read())


def train():
    def gold(name):
        return os.path.join(GOLD, name)

    train_spm(gold("spm_identity.model"), vocab_size=1200, normalization_rule_name="identity", byte_fallback=True,
              remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, split_digits=True, character_coverage=0.99,
              user_defined_symbols=["<tool_call>", "==", "\u2581\u2581\u2581"], control_symbols=["[INST]", "[/INST]"])
    train_spm(gold("spm_nmt.model"), vocab_size=800, normalization_rule_name="nmt_nfkc", byte_fallback=False,
              remove_extra_whitespaces=True, character_coverage=0.98)
    with_unused(gold("spm_identity.model"), gold("spm_unused.model"))
    im = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    train_byte_level(gold("llama3.json"), LLAMA3, 2500, ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                                         "<|end_header_id|>", "<|eot_id|>"], ignore_merges=True,
                     bos="<|begin_of_text|>")
    train_byte_level(gold("qwen2.json"), QWEN2, 2000, im, ["<tool_call>", "</tool_call>", "<think>"], normalizer="NFC")
    train_byte_level(gold("nemo.json"), NEMO, 2000, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], bos="<s>")
    train_byte_level(gold("gpt2.json"), None, 2000, ["<|endoftext|>"])
    llama_json(gold("spm_identity.model"), gold("llama2_legacy.json"))
    llama_json(gold("spm_identity.model"), gold("llama2_metaspace.json"), metaspace=True)
    train_odd(gold("odd.json"))
    train_tekken(gold("tekken.json"), 1500)
    for f in TOKENIZERS:
        if f.endswith(".gguf"):
            make_gguf(gold(f))


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "train":
        train()
    elif command == "seeds":
        seeds()
    elif command == "gguf":
        for f in TOKENIZERS:
            if f.endswith(".gguf"):
                make_gguf(os.path.join(GOLD, f))
    elif command == "check" and len(sys.argv) > 2:
        sys.exit(check(sys.argv[2]))
    elif command == "combinations" and len(sys.argv) > 2:
        sys.exit(combinations(sys.argv[2]) != 0)
    elif command == "golden":
        golden()
    else:
        sys.exit(__doc__)
