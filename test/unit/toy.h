/* test/unit/toy.h - a backend that is not a neural network: each "layer" folds the values of all keys of a row, in
 * order, into a number modulo a prime. A wrong slot, order or ancestor gives another number, and the expected one is
 * computed by three nested loops over plain arrays. Numbers are exact in f32. */
#ifndef TEST_TOY_H
#define TEST_TOY_H

#include "core/decode/session.h"
#include "core/model/backend.h"

#include <stdint.h>

enum { TOY_VOCAB = 97, TOY_LAYERS = 6, TOY_CTX = 120 };

extern const struct model_config toy_config;
extern const struct backend_ops toy_ops;
extern _Thread_local uint64_t toy_rows_computed;

/* What the logits [TOY_VOCAB] behind tokens[0..n) must be. */
void toy_expect(const uint32_t *tokens, int n, float *logits);
/* The context is tokens[0..n), and its logits are these. */
void toy_check(struct session *s, const uint32_t *tokens, int n);

/* A conversation: a prompt, tokens one by one with a tree now and then, another prompt that shares a part. Every call
 * has to succeed; logits are held against toy_expect after each. said: the sampled tokens. */
enum { TOY_SAID = 8 };
void toy_converse(struct session *s, double temperature, uint32_t said[TOY_SAID]);

uint32_t toy_rnd(uint32_t *state);
void toy_fill(uint32_t *t, int n, uint32_t seed);

#endif
