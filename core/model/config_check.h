/* core/model/config_check.h - what config_json and config_gguf share: nothing above core/model needs it. */
#ifndef CORE_MODEL_CONFIG_CHECK_H
#define CORE_MODEL_CONFIG_CHECK_H

#include "core/model/config.h"

/* Checks a filled config as a whole: limits, divisibility, RoPE. name is used in messages. */
int config_check(const struct model_config *c, const char *name, struct err *e);

/* Adds an end-of-sequence id. One that is outside the vocabulary can never occur: it is left out, with a warning. */
int config_add_eos(struct model_config *c, int64_t id, const char *name, struct err *e);
void config_set_bos(struct model_config *c, int64_t id, const char *name);

#endif
