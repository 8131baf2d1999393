/* cmd/engine/memory.h - what running a model will take, before it is taken. */
#ifndef CMD_ENGINE_MEMORY_H
#define CMD_ENGINE_MEMORY_H

#include "core/model/backend.h"
#include "core/model/weights.h"

struct memory_plan {
    uint64_t file[3]; /* bytes of each part's matrices in the file: for progress */
    uint64_t weights; /* of all parts, as they will lie in memory: the card's, when one computes */
    uint64_t kv;
    uint64_t scratch;
};

/* For the three parts on the CPU backend, or on a card. slots: KV places per layer. Fails where loading would: a
 * missing tensor. */
int memory_plan(struct memory_plan *p, struct weights *w, const struct part parts[3], const enum quant quant[3],
                enum dtype kv_type, uint64_t slots, int max_rows, bool card, struct err *e);

/* Bytes that a program may still take: what the kernel calls available, and no more than the control group leaves.
 * UINT64_MAX when the system does not say. */
uint64_t memory_available(void);

/* The control-group part: bytes left under root ("/sys/fs/cgroup") for the group path ("/a/b") or a group above it. */
uint64_t memory_cgroup_left(const char *root, const char *path);

#endif
