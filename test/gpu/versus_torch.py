"""The same shape with PyTorch (transformers, SDPA, eager, bf16) on the same card: milliseconds of a pass of M new tokens
behind 1024 others, and of prompts. Random weights; nothing is downloaded. Run by test/gpu/run.sh beside
`splitinf bench --kernels --backend cuda`, whose passes these are."""
import argparse
import torch
from transformers import MistralConfig, MistralForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="0")
parser.add_argument("--quick", action="store_true")
args = parser.parse_args()
device = torch.device("cuda", int(args.device.split(",")[0]))
torch.manual_seed(0)
SHAPES = {
    "mistral-7b": dict(hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=32,
                       head_dim=128, vocab_size=32768),
    "nemo-12b, 8 layers": dict(hidden_size=5120, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=8,
                               head_dim=128, vocab_size=131072),
}
CONTEXT = 1024


def timed(run, rounds):
    best = None
    for i in range(rounds + 2):
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


print(f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}; layers alone, without embedding and head")
for name, shape in SHAPES.items():
    config = MistralConfig(sliding_window=None, max_position_embeddings=32768, attn_implementation="sdpa", **shape)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = MistralForCausalLM(config).eval().model
    hidden = shape["hidden_size"]
    print(f"{name}\n  rows         ms  ms/layer")
    with torch.inference_mode():
        for rows in [1, 8, 64, 512] if args.quick else [1, 4, 8, 16, 32, 64, 512, 2048, 8192]:
            x = torch.randn(1, rows, hidden, device=device, dtype=torch.bfloat16)
            if rows <= 64:
                context = torch.randn(1, CONTEXT, hidden, device=device, dtype=torch.bfloat16)
                cache = model(inputs_embeds=context, use_cache=True).past_key_values

                def run():
                    model(inputs_embeds=x, past_key_values=cache, use_cache=True)
                    cache.crop(CONTEXT)
            else:
                def run():
                    model(inputs_embeds=x, use_cache=True)
            ms = timed(run, 7 if rows <= 64 else 3)
            print(f"{rows:6d} {ms:10.4f} {ms / shape['num_hidden_layers']:9.4f}")
    del model
    torch.cuda.empty_cache()
