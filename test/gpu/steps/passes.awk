# Two tables out of what `bench --kernels --json` and test/gpu/versus_torch.py have measured: passes of whole models, each against
# its goal and beside PyTorch, and products alone; and a line of the report for each group of passes that has a goal.
#   awk -v passes=FILE -v products=FILE -v goals=FILE -f passes.awk TORCH KERNELS_JSON

function value(object, name) {
    if (!match(object, "\"" name "\":(\"[^\"]*\"|[^,}]*)"))
        return ""
    v = substr(object, RSTART + length(name) + 3, RLENGTH - length(name) - 3)
    gsub(/"/, "", v)
    return v == "null" ? "" : v
}

# "torch MODEL ROWS MILLISECONDS"
$1 == "torch" && NF == 4 && FNR == NR { torch[$2, $3] = $4; next }
FNR == NR && FILENAME != ARGV[2] { next }

{
    n = split(substr($0, index($0, "\"rows\":[") + 8), objects, "},{")
    for (i = 1; i <= n; i++) {
        o = objects[i]
        model = value(o, "model")
        rows = value(o, "rows") + 0
        share = value(o, "fraction")
        wanted = value(o, "goal")
        ms = value(o, "ms") + 0
        layers = value(o, "layers") + 0
        part = share == "" ? "-" : sprintf("%.0f%% %s", 100 * share, value(o, "limit"))
        verdict = wanted == "" ? "" : share == "" ? "not measured" : share + 0 >= wanted + 0 ? "PASS" : "MISS"
        file = layers > 0 ? passes : products
        if (!((file, model) in begun)) {
            begun[file, model] = 1
            printf("%s, %s\n%-28s  rows         ms  ms/layer     GB/s  TFLOP/s   of the limit  goal%s\n", model, value($0, "card"), "",
                (layers > 0 ? "              PyTorch ms  times faster" : "")) > file
        }
        beside = ""
        per_layer = layers > 0 ? sprintf("%.4f", ms / layers) : ""
        asked_for = wanted == "" ? "" : sprintf("%.0f%%", 100 * wanted)
        if (layers > 0 && ((model, rows) in torch))
            beside = sprintf("%10.4f %13.2f", torch[model, rows], torch[model, rows] / ms)
        printf("%-28s %5d %10.4f %9s %8.0f %8.1f %14s %5s %-12s %s\n", value(o, "what"), rows, ms, per_layer, value(o, "gb_s"),
            value(o, "tflop_s"), part, asked_for, verdict, beside) > file
        if (layers == 0)
            continue
        if (!(model in seen)) {
            seen[model] = 1
            models[++n_models] = model
        }
        key = model SUBSEP (rows <= 8 ? 1 : rows <= 16 ? 2 : rows <= 32 ? 3 : rows < 512 ? 4 : 5)
        list[key] = list[key] (list[key] == "" ? "" : ", ") rows
        got[key] = got[key] (got[key] == "" ? "" : ", ") (share == "" ? "-" : sprintf("%.0f %%", 100 * share))
        asked[key] = wanted == "" ? "-" : sprintf("%.0f %%", 100 * wanted)
        if (verdict == "MISS" || verdict == "not measured" || met[key] == "")
            met[key] = verdict == "" ? "-" : verdict
        if ((model, rows) in torch) {
            n_beside[model]++
            if (torch[model, rows] + 0 > ms + 0)
                n_faster[model]++
        }
    }
}

END {
    for (i = 1; i <= n_models; i++) {
        for (k = 1; k <= 5; k++) {
            key = models[i] SUBSEP k
            if (key in list)
                printf "| %s, pass of %s rows | %s | %s | %s |\n", models[i], list[key], asked[key], got[key], met[key] >> goals
        }
        if (n_beside[models[i]])
            printf "| %s, beside PyTorch on the same card | faster | in %d of %d | %s |\n", models[i], n_faster[models[i]], n_beside[models[i]],
                n_faster[models[i]] == n_beside[models[i]] ? "PASS" : "MISS" >> goals
        else
            printf "| %s, beside PyTorch on the same card | faster | not measured | - |\n", models[i] >> goals
    }
    exit n_models == 0
}
