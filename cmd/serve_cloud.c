/* The serve-cloud command: the middle layers of a model behind net/cloud/cloud, for clients whose pins were allowed. */
#include "cmd/command.h"
#include "cmd/engine/device.h"
#include "cmd/engine/engine.h"
#include "cmd/engine/memory.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "cmd/version.h"
#include "core/base/log.h"
#include "core/model/export.h"
#include "net/cloud/cloud.h"
#include "net/cloud/listen.h"
#include "net/fingerprint.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

/* Nodes that one session may have in flight: prefill chunks under way, or a draft tree. */
enum { MAX_LIVE = 4096 };

struct serve_opts {
    struct strings allow;
    const char *allow_file, *listen, *metrics, *export_middle;
    uint64_t kv_mem;
    int max_sessions, max_per_pin, max_ctx, session_ttl, max_rows, grace;
    struct engine_opts engine;
    struct common_opts common;
};

#define AT(field) .offset = offsetof(struct serve_opts, field)
static const struct opt options[] = {
    {"allow", "PIN", "serve the client with this pin, which splitinf identity prints there; may be repeated",
     OPT_STRINGS, AT(allow)},
    {"allow-file", "FILE", "serve the clients with the pins in this file, one a line; read again on SIGHUP", OPT_STRING,
     AT(allow_file)},
    {"listen", "HOST:PORT", "where clients connect, an IP address of this machine; port 0 takes a free one", OPT_STRING,
     AT(listen), .def = "0.0.0.0:7433"},
    {"metrics", "HOST:PORT",
     "answer /metrics (Prometheus) and /health here in plain HTTP, such as 127.0.0.1:9433; without it nowhere",
     OPT_STRING, AT(metrics)},
    {"kv-mem", "BYTES", "memory for the KV cache that all sessions share; 0: three quarters of what the weights leave",
     OPT_BYTES, AT(kv_mem), .def = "0"},
    {"max-sessions", "N", "sessions at once", OPT_INT, AT(max_sessions), .def = "64", .min = 1, .max = 4096},
    {"max-sessions-per-pin", "N", "sessions at once of one client; 0: a quarter of --max-sessions, at least 8", OPT_INT,
     AT(max_per_pin), .def = "0", .min = 0, .max = 4096},
    {"max-ctx", "N", "positions of one session; 0: what the model was made for", OPT_INT, AT(max_ctx), .def = "0",
     .min = 0, .max = CONFIG_MAX_CTX},
    {"session-ttl", "S", "seconds that a session is kept for a client whose connection dropped", OPT_INT,
     AT(session_ttl), .def = "600", .min = 0, .max = 1000000},
    {"max-rows", "N", "tokens computed in one pass, over all sessions", OPT_INT, AT(max_rows), .def = "256", .min = 1,
     .max = 8192},
    {"grace", "S", "seconds for what is in flight when SIGTERM comes; a second signal does not wait", OPT_INT,
     AT(grace), .def = "30", .min = 0, .max = 3600},
    {"export-middle", "OUT",
     "serve nothing: write a model directory with the middle layers only, which is all that a rented machine needs",
     OPT_STRING, AT(export_middle)},
    {0},
};
#undef AT

static const char *const synopsis[] = {
    "serve-cloud --model M --allow PIN... [--listen HOST:PORT] [OPTION]...",
    "serve-cloud --model M --allow-file FILE [--listen HOST:PORT] [OPTION]...",
    "serve-cloud --model M --export-middle OUT [--front N] [--back N] [OPTION]...",
    NULL,
};

static const struct opt_group groups[] = {
    {"Serving", options, 0},
    {"Model", engine_options, offsetof(struct serve_opts, engine)},
    {"Common", common_options, offsetof(struct serve_opts, common)},
};

static const struct opt_table table = {
    .command = "serve-cloud",
    .synopsis = synopsis,
    .about = "Computes the middle layers of a model for allowed clients, on the rented machine.\n"
             "When ready it prints one line on standard output: ready HOST:PORT pin PIN. Logs go to standard error. "
             "SIGTERM finishes what is in flight and leaves with status 0; SIGHUP reads the allow file again.",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .no_args = "a client's pin is given as --allow PIN",
};

struct server {
    const struct serve_opts *o;
    struct engine en; /* weights and parts; only the middle is loaded */
    struct identity *id;
    struct allow_list *allow;
    struct stage *stage;
    struct cloud *cloud;
    char backend[WIRE_MAX_BACKEND + 1];
    uint64_t kv_bytes;
};

/* The log: one line per event, with its time, on standard error. */

static void log_stderr(void *ctx, enum log_level level, const char *line) {
    static const char *const names[] = {"error", "warn", "info", "debug"};
    struct timespec now;
    struct tm tm;
    char at[32];
    (void)ctx;
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &tm));
    fprintf(stderr, "%s.%03ldZ %s %s\n", at, now.tv_nsec / 1000000, names[level], line);
}

/* Signals. The handlers run on this thread only: the others are started while the signals are held, and inherit that.
 */

static struct cloud *_Atomic running;
static volatile sig_atomic_t n_stops, stop_signal, reload_asked;
static uint32_t grace_ms;

static void on_stop(int sig) {
    struct cloud *c = running;
    stop_signal = sig;
    n_stops = n_stops + 1;
    if (c)
        cloud_stop(c, grace_ms);
}

static void on_reload(int sig) {
    struct cloud *c = running;
    (void)sig;
    reload_asked = 1;
    if (c)
        cloud_reload(c);
}

static void handle(int sig, void (*fn)(int)) {
    struct sigaction a = {.sa_handler = fn, .sa_flags = SA_RESTART};
    sigemptyset(&a.sa_mask);
    sigaction(sig, &a, NULL);
}

static void hold_signals(bool on) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(on ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

/* What can be refused before anything large is read. */

static int open_allow_list(struct server *s, struct err *e) {
    const struct strings *texts = &s->o->allow;
    struct pin *pins = calloc((size_t)texts->n + 1, sizeof *pins);
    int rc = pins ? 0 : err_set(e, ERR_MEMORY, "out of memory");
    for (int i = 0; i < texts->n && rc == 0; i++)
        if ((rc = pin_parse(&pins[i], texts->p[i], e)) != 0)
            err_wrap(e, "--allow");
    if (rc == 0)
        rc = allow_list_create(&s->allow, pins, texts->n, s->o->allow_file, e);
    free(pins);
    if (rc == 0 && allow_list_size(s->allow) == 0)
        term_warn("%s holds no pin: nobody can connect until it does and SIGHUP was sent", s->o->allow_file);
    return rc;
}

static int open_identity(struct server *s, struct err *e) {
    char *home = s->o->common.home ? strdup(s->o->common.home) : identity_default_home(e);
    int rc = home ? identity_open(&s->id, home, e) : err_set(e, ERR_MEMORY, "out of memory");
    free(home);
    return rc;
}

/* An address that is taken is better known before a large model is read than after it. */
static int try_address(const char *address, struct err *e) {
    uint16_t port;
    int fd = listen_tcp(address, &port, e);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int check_options(const struct serve_opts *o, struct err *e) {
    if (!o->engine.model)
        return err_set(e, ERR_USAGE, "--model is needed: a Hugging Face directory or a .gguf file");
    if (!o->export_middle && o->allow.n == 0 && !o->allow_file)
        return err_set(e, ERR_USAGE,
                       "--allow PIN or --allow-file FILE is needed: nobody is served who was not named. Run "
                       "`splitinf identity` on the client's machine; it prints the pin");
    return 0;
}

static int open_model(struct server *s, struct err *e) {
    struct engine *en = &s->en;
    if (engine_open(en, &s->o->engine, e) != 0)
        return -1;
    if (en->parts[1].lo >= en->parts[1].hi)
        return err_set(e, ERR_USAGE, "%s has %d layers: with --front %d --back %d none is left for this machine",
                       en->o.model, en->config->n_layers, en->o.front, en->o.back);
    if (s->o->max_ctx > en->config->max_ctx)
        return err_set(e, ERR_USAGE, "--max-ctx %d: %s was made for at most %d positions", s->o->max_ctx, en->o.model,
                       en->config->max_ctx);
    en->parts[0] = en->parts[2] = (struct part){0}; /* not for this machine */
    return 0;
}

static uint32_t max_per_pin(const struct serve_opts *o) {
    uint32_t quarter = (uint32_t)o->max_sessions / 4;
    return o->max_per_pin ? (uint32_t)o->max_per_pin : quarter > 8 ? quarter : 8;
}

static uint32_t max_ctx(const struct server *s) {
    return (uint32_t)(s->o->max_ctx ? s->o->max_ctx : s->en.config->max_ctx);
}

/* Settles the KV cache's size, and refuses what does not fit. *file: bytes that will be read. */
static int plan_memory(struct server *s, uint64_t *file, struct err *e) {
    const struct engine *en = &s->en;
    struct memory_plan p;
    const enum quant quant[3] = {QUANT_NONE, (enum quant)en->o.quant, QUANT_NONE};
    if (memory_plan(&p, en->weights, en->parts, quant, engine_kv_type(en), 1, s->o->max_rows,
                    device_is_card(en->backend), e) != 0)
        return -1;
    const char *is;
    uint64_t limit = device_memory(en->backend, en->o.memory, &is);
    uint64_t fixed = p.weights + p.scratch, left = limit > fixed ? limit - fixed : 0;
    uint64_t most = p.kv * ((uint64_t)max_ctx(s) + MAX_LIVE) * (uint64_t)s->o->max_sessions;
    s->kv_bytes = s->o->kv_mem ? s->o->kv_mem : left / 4 * 3 < most ? left / 4 * 3 : most;
    *file = p.file[1];
    char weights[16], kv[16], scratch[16], have[16], slot[16];
    term_size((double)p.weights, weights);
    term_size((double)s->kv_bytes, kv);
    term_size((double)p.scratch, scratch);
    term_size((double)limit, have);
    term_size((double)p.kv, slot);
    if (fixed >= limit || s->kv_bytes > left)
        return err_set(e, ERR_MEMORY,
                       "%s needs %s %s for the weights of layers %d-%d, %s of work space and %s for the KV cache (%s "
                       "a position), but %s %s; try %s%s",
                       en->o.model, weights, device_memory_name(en->backend), en->parts[1].lo, en->parts[1].hi, scratch,
                       kv, slot, have, is,
                       en->o.quant == QUANT_Q4 ? "a smaller --kv-mem" : "--quant q8 or q4, or a smaller --kv-mem",
                       en->o.memory ? ", or more --memory" : "");
    log_line(LOG_INFO,
             "memory weights=%" PRIu64 " scratch=%" PRIu64 " kv=%" PRIu64 " kv_positions=%" PRIu64
             " available=%" PRIu64,
             p.weights, p.scratch, s->kv_bytes, s->kv_bytes / p.kv, limit);
    return 0;
}

static int on_progress(void *ctx, uint64_t done, uint64_t total) {
    progress_show(ctx, done, total);
    return interrupt_asked();
}

static int load(struct server *s, struct err *e) {
    struct engine *en = &s->en;
    struct progress p;
    uint64_t file;
    engine_warn_kv(en);
    hold_signals(true);
    int rc = device_open(&en->backend, &en->o, e);
    hold_signals(false);
    if (rc != 0 || device_check_kv(en->backend, &en->o, e) != 0 || plan_memory(s, &file, e) != 0)
        return -1;
    snprintf(s->backend, sizeof s->backend, "%s", engine_backend_name(en));
    const struct load_opts lo = {
        .quant = (enum quant)en->o.quant, .max_rows = s->o->max_rows, .progress = on_progress, .progress_ctx = &p};
    progress_start(&p, "loading weights", NULL);
    rc = en->backend->ops->stage_load(en->backend, en->weights, &en->parts[1], &lo, &s->stage, e);
    progress_end(&p, rc == 0 ? file : 0);
    return rc;
}

static int start(struct server *s, struct err *e) {
    const struct serve_opts *o = s->o;
    struct cloud_opts co = {
        .listen = o->listen,
        .metrics = o->metrics,
        .id = s->id,
        .allow = s->allow,
        .version = version_string(),
        .batch = {.stage = s->stage,
                  .kv_bytes = s->kv_bytes,
                  .max_sessions = (uint32_t)o->max_sessions,
                  .max_per_pin = max_per_pin(o),
                  .max_ctx = max_ctx(s),
                  .max_live = MAX_LIVE,
                  .max_rows = o->max_rows,
                  .session_ttl_ms = (uint32_t)o->session_ttl * 1000,
                  .backend_name = s->backend},
    };
    if (fingerprint_hello(s->en.weights, s->en.parts[1].lo, s->en.parts[1].hi, &co.batch.mine, e) != 0)
        return -1;
    co.batch.mine.kv = (uint8_t)s->en.o.kv;
    co.batch.mine.quant = (uint8_t)s->en.o.quant;
    hold_signals(true); /* until serve */
    return cloud_create(&s->cloud, &co, e);
}

static int print_ready(const struct server *s, struct err *e) {
    const char *listen = s->o->listen;
    int host = (int)(strrchr(listen, ':') - listen); /* listen_tcp has accepted it */
    char pin[PIN_TEXT], address[300];
    pin_format(identity_pin(s->id), pin);
    snprintf(address, sizeof address, "%.*s:%u", host, listen, cloud_port(s->cloud));
    if (s->o->common.json) {
        yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *r = yyjson_mut_obj(d);
        yyjson_mut_doc_set_root(d, r);
        yyjson_mut_obj_add_str(d, r, "ready", address);
        yyjson_mut_obj_add_str(d, r, "pin", pin);
        if (s->o->metrics)
            yyjson_mut_obj_add_int(d, r, "metrics_port", cloud_metrics_port(s->cloud));
        char *text = yyjson_mut_write(d, 0, NULL);
        yyjson_mut_doc_free(d);
        if (!text)
            return err_set(e, ERR_MEMORY, "out of memory");
        puts(text);
        free(text);
    } else {
        printf("ready %s pin %s\n", address, pin);
    }
    fflush(stdout);
    log_line(LOG_INFO, "cloud event=ready listen=%s metrics_port=%u pin=%s model=%s layers=%d-%d backend=%s allowed=%d",
             address, cloud_metrics_port(s->cloud), pin, s->en.o.model, s->en.parts[1].lo, s->en.parts[1].hi,
             s->backend, allow_list_size(s->allow));
    return 0;
}

/* From here on signals speak to the cloud; those that came while it was made are told to it now. */
static int serve(struct server *s, struct err *e) {
    running = s->cloud;
    handle(SIGTERM, on_stop);
    handle(SIGINT, on_stop);
    hold_signals(false);
    if (interrupt_asked())
        cloud_stop(s->cloud, grace_ms);
    if (reload_asked)
        cloud_reload(s->cloud);
    int rc = print_ready(s, e);
    if (rc == 0)
        rc = cloud_run(s->cloud, e);
    hold_signals(true);
    running = NULL;
    hold_signals(false);
    return rc != 0 ? -1 : n_stops > 1 ? 128 + stop_signal : EXIT_DONE;
}

static int export(struct server *s, struct err *e) {
    const struct part *part = &s->en.parts[1];
    struct progress p;
    uint64_t bytes = 0;
    char size[16];
    progress_start(&p, "writing", NULL);
    int rc = export_layers(s->en.weights, s->en.o.model, part->lo, part->hi, s->o->export_middle, on_progress, &p,
                           &bytes, e);
    progress_end(&p, rc == 0 ? bytes : 0);
    if (rc != 0)
        return -1;
    term_size((double)bytes, size);
    term_note("layers %d-%d are in %s (%s); serve them with the same --front and --back", part->lo, part->hi,
              s->o->export_middle, size);
    return EXIT_DONE;
}

static void close_server(struct server *s) {
    cloud_free(s->cloud);
    if (s->stage)
        s->stage->ops->stage_free(s->stage);
    engine_close(&s->en);
    allow_list_free(s->allow);
    identity_free(s->id);
}

static int run(void *values, const struct opt_result *given, struct err *e) {
    const struct serve_opts *o = values;
    struct server s = {.o = o};
    int status = -1;
    (void)given;
    term_setup("serve-cloud", o->common.quiet, o->common.verbose);
    if (check_options(o, e) != 0)
        return -1;
    interrupt_setup();
    interrupt_insist(true);
    if (!o->export_middle) {
        grace_ms = (uint32_t)o->grace * 1000;
        log_to(log_stderr, NULL, o->common.verbose ? LOG_DEBUG : o->common.quiet ? LOG_ERROR : LOG_INFO);
        handle(SIGHUP, on_reload);
    }
    if (open_model(&s, e) != 0)
        goto out;
    if (o->export_middle) {
        status = export(&s, e);
        goto out;
    }
    if (open_allow_list(&s, e) != 0 || open_identity(&s, e) != 0 || try_address(o->listen, e) != 0 ||
        (o->metrics && try_address(o->metrics, e) != 0))
        goto out;
    if (load(&s, e) != 0 || start(&s, e) != 0)
        goto out;
    status = serve(&s, e);
out:
    if (status < 0 && interrupt_asked())
        status = interrupt_status();
    close_server(&s);
    return status;
}

const struct command cmd_serve_cloud = {
    .name = "serve-cloud",
    .summary = "compute the middle layers for allowed clients, on the rented machine",
    .table = &table,
    .values_size = sizeof(struct serve_opts),
    .run = run,
};
