/* cmd/engine/engine.h - a model opened to be run by a command: weights, tokenizer, template; then the three parts and a
 * session.
 *
 * Opening and loading are two steps, so that everything that can be refused (files, prompt, memory) is refused before
 * gigabytes are read. */
#ifndef CMD_ENGINE_ENGINE_H
#define CMD_ENGINE_ENGINE_H

#include "cmd/engine/guesser.h"
#include "cmd/engine/tunnel.h"
#include "cmd/options.h"
#include "cmd/term.h"
#include "core/decode/session.h"
#include "core/model/backend.h"
#include "core/model/middle.h"
#include "core/model/weights.h"
#include "tok/template.h"
#include "tok/tokenizer.h"

struct engine_opts {
    const char *model;
    const char *tokenizer;     /* NULL: the model's own */
    const char *chat_template; /* a file; NULL: the model's own */
    int front, back;
    int backend;                 /* index into device_choices */
    const char *device;          /* cards, "0", "1,0" or "0+1"; NULL: the first */
    int math;                    /* index into device_math_choices */
    int isa;                     /* engine_isa_name */
    int threads;                 /* 0: all */
    int ctx;                     /* 0: what the model was made for, at most 4096 */
    int mode;                    /* enum session_mode, through engine_mode */
    struct iterate_opts iterate; /* of modes jacobi and lookahead */
    const char *pad;             /* "ROWS[:MS]"; NULL: windows are not padded */
    const char *draft_log;       /* a file; NULL: none */
    int chunk;        /* rows of a prefill window; 0: 256, or 64 to a cloud, where chunks under way overlap */
    int quant;        /* enum quant */
    int middle_quant; /* 0: as quant, else 1 + enum quant */
    int kv;           /* as HELLO has it: 0 f16, 1 f32, 2 fp8 */
    uint64_t memory;  /* bytes that may be used where weights and KV lie; 0: what is free there */
    struct tunnel_opts tunnel;
    const char *draft; /* a small model that guesses; not an option of its own here */
    const char *home;  /* of the key and of remembered pins; not an option of its own here */
};
extern const struct opt engine_options[];
extern const struct opt engine_context_options[]; /* for commands that have one context of their own; the same struct */
extern const struct opt engine_iterate_options[]; /* of modes jacobi and lookahead; the same struct */
extern const struct opt engine_text_options[];    /* for commands that deal in text; the same struct */

enum { ENGINE_MAX_STOP = 24 };

struct engine {
    struct engine_opts o;
    struct weights *weights;
    const struct model_config *config; /* of weights */
    struct tokenizer *tok;
    struct chat_template *tmpl;     /* NULL until engine_open_template */
    char *bos, *eos;                /* texts for the template; NULL: none */
    uint32_t stop[ENGINE_MAX_STOP]; /* tokens that end an answer */
    int n_stop;
    struct part parts[3]; /* front, middle, back */
    uint32_t ctx;
    int chunk;
    int pad_rows; /* of session_speculation, from o.pad */
    double pad_ms;
    uint64_t beside;        /* bytes that the caller will take beside what it loads: set between opening and loading */
    uint64_t beside_stages; /* the same, where weights and KV lie */
    struct draft_store *store; /* for the drafter: borrowed, set then as well; NULL: none */
    bool settled; /* weights are packed while loading, not behind the first token; set as beside, by who measures */

    /* What was loaded of the three parts; the first pass goes on with it, so the struct stays where it is. */
    struct progress loading;
    struct engine_part {
        struct engine *en;
        uint64_t before; /* bytes of the parts in front of it */
    } loads[3];
    uint64_t to_load; /* bytes */

    struct backend *backend; /* opened when loading, or before that by who has to know it */
    struct stage *stages[3];
    struct tunnel *tunnel;   /* NULL: all on this machine */
    struct middle *middle;   /* the tunnel's, or a local one */
    enum codec codec;        /* of the boundary */
    struct guesser *guesser; /* NULL: none */
    struct drafter *drafter;
    struct draft_log *draft_log; /* NULL: none */
    struct session *session;
    double load_ms;
};

/* Opens headers; settles parts and context. en is zeroed first; engine_close is right in any state. */
int engine_open(struct engine *en, const struct engine_opts *o, struct err *e);
/* The tokenizer, and the tokens that end an answer; then the chat template. For those who need them: ERR_USAGE when the
 * model has none. */
int engine_open_tokenizer(struct engine *en, struct err *e);
int engine_open_template(struct engine *en, struct err *e);
/* Checks the memory, connects to the cloud when the options name one, loads the parts that belong here and makes the
 * session. ERR_IO when Ctrl-C stopped it. */
int engine_load(struct engine *en, struct err *e);
void engine_close(struct engine *en);
/* Sets chunk anew, after ctx was changed between opening and loading. */
void engine_settle_chunk(struct engine *en);

/* How tokens are computed, from the choice of --mode. */
enum session_mode engine_mode(const struct engine *en);

/* Prefill windows in flight to a cloud: as many as hold 512 positions, so that a link of 100 Mbit/s and 80 ms is full.
 */
int engine_cloud_windows(const struct engine *en);

/* How the weights of part 0, 1, 2 are re-encoded. */
enum quant engine_quant(const struct engine *en, int part);

enum dtype engine_kv_type(const struct engine *en);
/* Says it where the type is one that the model does not bear. */
void engine_warn_kv(const struct engine *en);

/* What computes here, as WELCOME of a cloud names it: "cpu-avx512". */
const char *engine_backend_name(const struct engine *en);

/* What backend_cpu_create takes for a choice of --isa: NULL for auto. */
const char *engine_isa_name(int choice);
extern const char *const engine_isa_choices[];
extern const char *const engine_middle_quant_choices[];

#endif
