/* core/model/kv.h - which slot of KV memory holds which node. No keys or values live here, only numbers.
 *
 * A slot pool hands out slot numbers; several sessions may share one. A KV table is one session's context: the slots of
 * its committed nodes in logical order, and the nodes in flight with their ancestry. Commit appends numbers, cancel
 * frees them, nothing is copied. Node lists may come from a peer: every operation checks them. */
#ifndef CORE_MODEL_KV_H
#define CORE_MODEL_KV_H

#include "core/base/err.h"
#include "core/model/window.h"

#include <stdbool.h>
#include <stdint.h>

struct slot_pool;
struct kv_table;

int slot_pool_create(struct slot_pool **out, uint32_t n_slots, struct err *e);
void slot_pool_free(struct slot_pool *p);
uint32_t slot_pool_size(const struct slot_pool *p);
uint32_t slot_pool_left(const struct slot_pool *p);

/* A table for at most max_ctx positions and max_live nodes in flight. Memory is taken here, none later. */
int kv_table_create(struct kv_table **out, struct slot_pool *pool, uint32_t max_ctx, uint32_t max_live, struct err *e);
void kv_table_free(struct kv_table *t); /* gives its slots back to the pool */

uint32_t kv_table_len(const struct kv_table *t);            /* committed positions */
uint32_t kv_table_head(const struct kv_table *t);           /* id of the last committed node, NODE_NONE when empty */
uint32_t kv_table_live(const struct kv_table *t);           /* nodes in flight */
bool kv_table_knows(const struct kv_table *t, uint32_t id); /* in flight */

/* Adds the nodes whose parents are known (the head, a live node, an earlier node of this window) and drops the rest:
 * keep[i] tells for each, keep may be NULL. Returns how many were kept, or -1 with nothing changed: ids that do not
 * increase or a position that is not the parent's + 1 (ERR_PEER), no slots or table space left (ERR_MEMORY). */
int kv_table_add(struct kv_table *t, const struct node *nodes, int n, bool *keep, struct err *e);

/* Moves the chain ids[0..n) - a child of the head, its child, and so on - from live to committed. Live nodes that do
 * not descend from the new head are dropped and their slots freed. All or nothing. */
int kv_table_commit(struct kv_table *t, const uint32_t *ids, int n, struct err *e);

/* Drops live nodes and all that descend from them. Unknown ids are no error. */
void kv_table_cancel(struct kv_table *t, const uint32_t *ids, int n);

/* Keeps the first len committed positions (len <= kv_table_len); drops the rest and every live node. head is the id
 * that the last kept node gets (NODE_NONE when len is 0): the caller knows it, the table keeps only the newest id. */
void kv_table_rewind(struct kv_table *t, uint32_t len, uint32_t head);

/* What commits and cancels to come would drop, without changing anything: begin, then the calls in their order, then
 * ask. Good until the table changes. A commit that is no chain of live nodes drops something or other. */
void kv_table_foresee(struct kv_table *t);
void kv_table_foresee_commit(struct kv_table *t, const uint32_t *ids, int n);
void kv_table_foresee_cancel(struct kv_table *t, const uint32_t *ids, int n);
bool kv_table_foreseen(const struct kv_table *t, uint32_t id); /* id would be dropped, or is not live */

/* Describes live nodes ids[0..n) as rows of a pass. The rows point into the table's own memory: valid until the table
 * changes or kv_table_rows is called on it again. -1 when an id is not live. */
int kv_table_rows(struct kv_table *t, const uint32_t *ids, int n, struct row *rows, struct err *e);

#endif
