/* core/draft/store_log.h - the log of a store: a header, then records of a token sequence each with a check sum. For
 * store.c only. The reader is a pure function over bytes that are not trusted. */
#ifndef CORE_DRAFT_STORE_LOG_H
#define CORE_DRAFT_STORE_LOG_H

#include "core/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { STORE_LOG_HEAD = 32, STORE_LOG_TOKENS = 1 << 20 /* of one record */ };

/* The header of a log that belongs to this tokenizer, or not. */
void store_log_head(uint8_t out[STORE_LOG_HEAD], uint64_t tokenizer, uint32_t vocab);
/* The whole record at p + *off of n bytes: its tokens (little endian, not aligned) at *tokens, *off behind it.
 * Returns how many tokens, at least 1, or 0: no whole record stands there. */
uint32_t store_log_next(const uint8_t *p, size_t n, size_t *off, const uint8_t **tokens);
uint32_t store_log_token(const uint8_t *tokens, uint32_t i);

/* Appends a record to fd, whose sound part ends at *end. On failure the file is cut back to *end. */
int store_log_append(int fd, uint64_t *end, const uint32_t *tokens, uint32_t n, struct err *e);

#endif
