/* cmd/json.h - JSON with secrets in it: a yyjson allocator that wipes what it frees. */
#ifndef CMD_JSON_H
#define CMD_JSON_H

#include <yyjson.h>

extern const struct yyjson_alc json_wiping;

#endif
