# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # variables of run.sh, which reads this
# What is small in a rehearsal on the emulated card, and how large it is in earnest. Any of it may be set from outside in a
# rehearsal, for a test of one step.
if [ -n "$rehearse" ]; then
    export PATH="$PWD/test/gpu/fakes:$PATH" # compute-sanitizer, and a python3 that has torch
    python=python3
    REHEARSE_SUITES=${REHEARSE_SUITES:-gpu_norm/*}
    REHEARSE_FAMILIES=${REHEARSE_FAMILIES:-mistral-v01 gguf-k}
    REHEARSE_SERVER=${REHEARSE_SERVER:-batch/bye*}
    REHEARSE_FAULTS=${REHEARSE_FAULTS:-serve_cloud split split_load split_wan}
    kernel_models=test/models/families/mistral-v01 kernel_rows=${REHEARSE_ROWS:-1,16,80} overlap_rows=1
    # Half of what is free, up to 1 GiB, is copied; weights that exceed the cache are made.
    export EMU_MEMORY="${EMU_MEMORY:-400000000}"
    split_model=test/models/tiny split_kv=16M split_tokens=4 split_answers=2
    n_sessions=4 load_model=test/models/families/mistral-v01 load_seconds=2 speed_seconds=1
    speed_model=test/models/tiny speed_kv=16M speed_ctx=64
    replay=$scratch/answers.jsonl prime=$scratch/others.jsonl tokenizer=test/models/tiny
    echo '{"id": "1", "prompt": "Name three colours.", "output": "Red, green and blue. Red, green and blue are three colours."}
{"id": "2", "prompt": "Tell me about foxes.", "output": "A fox is an animal. A fox lives in the forest, and a fox eats mice."}' >"$replay"
    echo '{"id": "3", "prompt": "What is green?", "output": "The forest is green. A fox lives in the forest."}' >"$prime"
else
    kernel_models='random:mistral-7b random:nemo-12b/8' kernel_rows=1,4,8,16,32,64,512,2048,8192
    [ -z "$quick" ] || kernel_rows=1,8,64,512
    overlap_rows=1,8,64
    split_model=random:mistral-7b split_kv=2G split_tokens=128 split_answers=8
    n_sessions=64 load_model=test/models/tiny load_seconds=60 speed_seconds=20
    [ -z "$quick" ] || { load_seconds=20 speed_seconds=5; }
    speed_model=random:mistral-7b speed_kv=5G speed_ctx=512
fi
