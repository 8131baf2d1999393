/* core/base/thread.h - the one way to start a thread. */
#ifndef CORE_BASE_THREAD_H
#define CORE_BASE_THREAD_H

#include "core/base/err.h"

#include <pthread.h>

/* Starts fn(arg) with every signal blocked: signals belong to the thread that started the program, which waits for them
 * in poll; one that was delivered elsewhere would not wake it. what ends the sentence of an error: "cannot start ...".
 */
int thread_start(pthread_t *t, void *(*fn)(void *), void *arg, const char *what, struct err *e);

#endif
