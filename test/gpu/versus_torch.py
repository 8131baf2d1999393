"""The same shapes with PyTorch (transformers, SDPA, eager, bf16) on the same card: milliseconds of a pass of so many new tokens
behind 1024 others, and of prompts, as lines "torch MODEL ROWS MILLISECONDS". Random weights; nothing is downloaded. Run by
test/gpu/run.sh; the passes are those of `splitinf bench --kernels --backend cuda --model MODEL`: layers alone, without
embedding and head. --try: tiny layers on the CPU, which shows on any machine that this script runs."""
import argparse
import time
import torch
import transformers
from transformers import MistralConfig, MistralForCausalLM

SHAPES = {
    "random:mistral-7b": dict(hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8,
                              num_hidden_layers=32, head_dim=128),
    "random:nemo-12b/8": dict(hidden_size=5120, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8,
                              num_hidden_layers=8, head_dim=128),
}
TINY = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, head_dim=16)
CONTEXT = 1024

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="0")
parser.add_argument("--rows", default="1,4,8,16,32,64,512,2048,8192")
parser.add_argument("--try", dest="tried", action="store_true")
parser.add_argument("models", nargs="*", default=list(SHAPES))
args = parser.parse_args()
device = torch.device("cpu") if args.tried else torch.device("cuda", int(args.device))
torch.manual_seed(0)


def timed(run, rounds):
    """The best of some rounds, in milliseconds; the first two warm up."""
    best = None
    for i in range(rounds + 2):
        if args.tried:
            begin = time.perf_counter()
            run()
            ms = (time.perf_counter() - begin) * 1e3
        else:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize(device)
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize(device)
            ms = begin.elapsed_time(end)
        if i >= 2 and (best is None or ms < best):
            best = ms
    return best


name = "no card" if args.tried else torch.cuda.get_device_name(device)
print(f"torch {torch.__version__}, transformers {transformers.__version__}, {name}")
if not args.tried:
    torch.cuda.set_device(device)
for model_name in args.models:
    shape = TINY if args.tried else SHAPES[model_name]
    config = MistralConfig(sliding_window=None, max_position_embeddings=32768, attn_implementation="sdpa", vocab_size=256, **shape)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = MistralForCausalLM(config).eval().model
    hidden = shape["hidden_size"]
    with torch.inference_mode():
        for rows in [int(n) for n in args.rows.split(",")]:
            x = torch.randn(1, rows, hidden, device=device, dtype=torch.bfloat16)
            if rows <= 64:
                context = torch.randn(1, CONTEXT, hidden, device=device, dtype=torch.bfloat16)
                cache = model(inputs_embeds=context, use_cache=True).past_key_values

                def run():
                    model(inputs_embeds=x, past_key_values=cache, use_cache=True)
                    cache.crop(-rows)
            else:
                def run():
                    model(inputs_embeds=x, use_cache=True)
            ms = timed(run, 7 if rows <= 64 else 3)
            assert rows > 64 or cache.get_seq_length() == CONTEXT
            print(f"torch {model_name} {rows} {ms:.4f}", flush=True)
    del model
    if not args.tried:
        torch.cuda.empty_cache()
