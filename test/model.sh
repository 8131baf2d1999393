# For the scripts that need a model which speaks: sets $model to stories260K, or skips the script. Read after lib.sh.
model=
for dir in test/models/stories260K ../shared/data/models/stories260K; do
    [ -n "$model" ] || [ ! -f "$dir/model.safetensors" ] || model=$dir
done
if [ -z "$model" ]; then
    echo "skip all: the model stories260K is neither in test/models nor in ../shared/data/models"
    exit 0
fi

# A template under which its stories are something like a conversation.
template=$SCRATCH/template.jinja
cat >"$template" <<'END'
{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ '\n' }}{% endfor %}
END

# The same model with a context that is not full before a test is over, so that an answer has to be stopped. Behind the 512
# positions that it was made for it babbles; its end token is banned by $endless, the options to run it with.
mkdir -p "$SCRATCH/endless"
cp "$model"/*.json "$model/tokenizer.model" "$SCRATCH/endless"
sed 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 1000000/' "$model/config.json" >"$SCRATCH/endless/config.json"
ln -sf "$(cd "$model" && pwd)/model.safetensors" "$SCRATCH/endless/model.safetensors"
# shellcheck disable=SC2034 # for the scripts that read this one
endless="--local --model $SCRATCH/endless --ctx 300000 --logit-bias 1=ban --logit-bias 2=ban"
