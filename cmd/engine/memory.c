#include "cmd/engine/memory.h"

#include "core/cpu/cpu.h"
#include "core/model/names.h"
#include "gpu/kernels.h"
#include "gpu/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add_matrix(struct memory_plan *p, int part, struct weights *w, const char *name, enum quant quant,
                      struct err *e) {
    struct tensor_info shape;
    struct tensor t;
    enum dtype packed;
    if (!names_find(weights_config(w), name, &shape))
        return err_set(e, ERR_MODEL, "%s has no tensor %s", weights_path(w), name);
    if (weights_get(w, name, shape.rows, shape.cols, &t, e) != 0)
        return -1;
    p->file[part] += (uint64_t)t.rows * t.row_bytes;
    p->weights += packed_size(t.dtype, (int)shape.rows, (int)shape.cols, quant, &packed);
    return 0;
}

static int add_layer(struct memory_plan *p, int part, struct weights *w, int layer, enum quant quant, struct err *e) {
    static const char *const matrices[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                           "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                           "mlp.down_proj"};
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, matrices[i]);
        if (add_matrix(p, part, w, name, quant, e) != 0)
            return -1;
    }
    return 0;
}

/* What a stage on a card takes beside weights and KV, roughly: the backend counts again, to the byte, when it loads. */
static uint64_t card_scratch(const struct model_config *c, const struct part *part, uint64_t slots, int max_rows) {
    const uint64_t few = 64, pass = 512, segments = 8, hidden = (uint64_t)c->hidden, most = (uint64_t)max_rows;
    uint64_t rows = most < few ? few : most < pass ? most : pass;
    uint64_t q = (uint64_t)c->n_heads * (uint64_t)c->head_dim, kv = (uint64_t)c->n_kv_heads * (uint64_t)c->head_dim;
    uint64_t ffn = (uint64_t)c->ffn, keys = (uint64_t)c->max_ctx, widest = 2 * ffn > q + 2 * kv ? 2 * ffn : q + 2 * kv;
    keys = slots > 1 && slots < keys ? slots : keys;
    uint64_t floats = rows * (2 * hidden + 2 * q + 2 * kv + ffn) + few * segments * widest +
                      few * (uint64_t)c->n_heads * ((uint64_t)c->head_dim + 2) * (keys / GPU_KV_SPLIT + 1);
    return (floats + (part->head ? few * (uint64_t)c->vocab : 0)) * sizeof(float);
}

static int plan_card(struct memory_plan *p, struct weights *w, const struct part parts[3], const enum quant quant[3],
                     enum dtype kv_type, uint64_t slots, int max_rows, struct err *e) {
    const struct model_config *c = weights_config(w);
    for (int i = 0; i < 3; i++) {
        struct stage_plan s;
        int n = parts[i].hi - parts[i].lo;
        if (n == 0 && !parts[i].head)
            continue;
        if (stage_plan_make(&s, w, &parts[i], (struct seat){0, 1}, quant[i], e) != 0)
            return -1;
        p->file[i] = s.file;
        for (int l = 0; l < n; l++)
            p->weights += s.layers[l].bytes;
        p->weights += s.head_bytes;
        p->kv += slots * (uint64_t)n * config_kv_bytes(c, kv_type);
        p->scratch += card_scratch(c, &parts[i], slots, max_rows);
        stage_plan_free(&s);
    }
    return 0;
}

int memory_plan(struct memory_plan *p, struct weights *w, const struct part parts[3], const enum quant quant[3],
                enum dtype kv_type, uint64_t slots, int max_rows, bool card, struct err *e) {
    const struct model_config *c = weights_config(w);
    *p = (struct memory_plan){0};
    if (card)
        return plan_card(p, w, parts, quant, kv_type, slots, max_rows, e);
    for (int i = 0; i < 3; i++) {
        for (int l = parts[i].lo; l < parts[i].hi; l++)
            if (add_layer(p, i, w, l, quant[i], e) != 0)
                return -1;
        const char *head = c->tied_head ? "model.embed_tokens.weight" : "lm_head.weight";
        if (parts[i].head && add_matrix(p, i, w, head, quant[i], e) != 0)
            return -1;
        /* An embedding is read where it lies in the file: the page cache's memory, not ours. */
        enum dtype kept = kv_type == DT_E4M3 ? DT_F16 : kv_type;
        p->kv += slots * (uint64_t)(parts[i].hi - parts[i].lo) * config_kv_bytes(c, kept);
        uint64_t row = 3 * (uint64_t)c->hidden + 2 * (uint64_t)c->n_heads * (uint64_t)c->head_dim +
                       2 * (uint64_t)c->n_kv_heads * (uint64_t)c->head_dim + 2 * (uint64_t)c->ffn;
        p->scratch += (uint64_t)max_rows * row * sizeof(float);
    }
    p->scratch += 3 * (uint64_t)c->vocab * sizeof(float);
    return 0;
}

/* The number behind key in a small text file ("MemAvailable: 123 kB", "anon 456"); key NULL: the file's first word. */
static bool read_number(const char *path, const char *key, uint64_t *v) {
    FILE *f = fopen(path, "re");
    char line[256];
    bool found = false;
    if (!f)
        return false;
    size_t n = key ? strlen(key) : 0;
    while (!found && fgets(line, sizeof line, f)) {
        if (key && (strncmp(line, key, n) != 0 || (line[n] != ' ' && line[n] != ':')))
            continue;
        char *end, *at = line + (key ? n + 1 : 0);
        at += strspn(at, " \t");
        *v = strtoull(at, &end, 10);
        found = end > at && *at != '-';
        if (!key)
            break;
    }
    fclose(f);
    return found;
}

uint64_t memory_cgroup_left(const char *root, const char *path) {
    char dir[600], file[640];
    uint64_t left = UINT64_MAX;
    if ((size_t)snprintf(dir, sizeof dir, "%s%s", root, path) >= sizeof dir)
        return left;
    size_t n_root = strlen(root);
    for (;;) {
        uint64_t max, used;
        snprintf(file, sizeof file, "%s/memory.max", dir);
        if (read_number(file, NULL, &max)) { /* "max" is no number: no limit here */
            /* What counts is memory that cannot be taken back; memory.current would count the page cache too. */
            snprintf(file, sizeof file, "%s/memory.stat", dir);
            if (!read_number(file, "anon", &used))
                used = 0;
            uint64_t here = max > used ? max - used : 0;
            left = here < left ? here : left;
        }
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < n_root)
            return left;
        *slash = '\0';
    }
}

uint64_t memory_available(void) {
    uint64_t left = UINT64_MAX, kb;
    if (read_number("/proc/meminfo", "MemAvailable", &kb))
        left = kb * 1024;
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[512];
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::", 3) != 0)
            continue;
        line[strcspn(line, "\n")] = '\0';
        uint64_t group = memory_cgroup_left("/sys/fs/cgroup", strcmp(line + 3, "/") == 0 ? "" : line + 3);
        left = group < left ? group : left;
    }
    if (f)
        fclose(f);
    return left;
}
