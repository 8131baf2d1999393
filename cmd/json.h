/* cmd/json.h - JSON with secrets in it: a yyjson allocator that wipes what it frees. */
#ifndef CMD_JSON_H
#define CMD_JSON_H

#include "core/base/err.h"

#include <yyjson.h>

extern const struct yyjson_alc json_wiping;

/* Why a document with what ("the answer") could not be written. */
int json_write_error(const yyjson_write_err *why, const char *what, struct err *e);

#endif
