/* core/model/names.h - which tensors a model of a given configuration consists of: their Hugging Face names, their GGUF
 * names and their shapes. One table serves all file kinds and the generator. Pure; names may be anything. */
#ifndef CORE_MODEL_NAMES_H
#define CORE_MODEL_NAMES_H

#include "core/model/config.h"

#include <stdbool.h>
#include <stdint.h>

enum tensor_role {
    ROLE_MATRIX,   /* reads the residual stream, or a function of it */
    ROLE_RESIDUAL, /* o_proj and down_proj: their product is added to the residual stream */
    ROLE_EMBED,    /* embedding and head */
    ROLE_NORM,
    ROLE_BIAS,
};

struct tensor_info {
    int layer; /* -1: belongs to no layer */
    enum tensor_role role;
    uint32_t rows, cols; /* a vector has one row */
    uint32_t heads;      /* of q and k projections and their biases: heads whose rows RoPE rotates in pairs; else 0 */
    char gguf[64];
};

/* Looks up an HF name. False when a model of configuration c has no such tensor. */
bool names_find(const struct model_config *c, const char *hf_name, struct tensor_info *out);

/* The HF name of tensor i (0, 1, ...) of a layer; every layer of a model has the same ones in the same order, that of
 * the computation. False behind the last. */
enum { NAMES_MAX = 96 };
bool names_of_layer(const struct model_config *c, int layer, int i, char hf_name[NAMES_MAX]);

#endif
