/* cmd/engine/device.h - what computes in this process, from --backend, --device, --math, --isa, --threads and --kv. */
#ifndef CMD_ENGINE_DEVICE_H
#define CMD_ENGINE_DEVICE_H

#include "core/model/backend.h"

#include <stdbool.h>
#include <stdint.h>

struct engine_opts;

enum { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA }; /* of --backend */
extern const char *const device_choices[];
enum { MATH_FULL, MATH_FAST }; /* of --math */
extern const char *const device_math_choices[];

/* The backend that the options ask for. auto: a card where this machine has one that can be used, and the CPU where it
 * has none (a line of the log says why), or where an option is for the CPU only. ERR_USAGE: options that do not go
 * together; ERR_DEVICE: a card was asked for, and why there is none. */
int device_open(struct backend **out, const struct engine_opts *o, struct err *e);
/* For who computes a whole model or a cloud's part: refuses --kv fp8 where b is the CPU, which rounds as a card would
 * and saves nothing. The edges of a split and checks may want just that. */
int device_check_kv(const struct backend *b, const struct engine_opts *o, struct err *e);
bool device_is_card(const struct backend *b);
/* The first card that --device names, for who measures one. */
int device_first(const struct engine_opts *o);
/* How many cards compute the first layers together (0+1: 2): as many times the memory's bandwidth. */
int device_joined(const struct engine_opts *o);

/* "cpu-avx2", "cuda-sm90", "cuda-sm90-fast": as WELCOME names it. o: the options that b was opened with. Valid as long
 * as b. */
const char *device_name(const struct backend *b, const struct engine_opts *o);

/* Memory in which b's weights, KV and work space may lie: asked (--memory) where that is not 0, else what is left. *is:
 * "is what --memory allows", for messages. */
uint64_t device_memory(const struct backend *b, uint64_t asked, const char **is);
/* What a message about too little of it begins to call it: "of memory", "of the card's memory". */
const char *device_memory_name(const struct backend *b);

#endif
