/* cmd/interrupt.h - signals as flags. Ctrl-C asks the work in hand to stop; a termination signal asks the program to.
 * SIGPIPE is ignored: writers see EPIPE. */
#ifndef CMD_INTERRUPT_H
#define CMD_INTERRUPT_H

#include <stdbool.h>
#include <stddef.h>

void interrupt_setup(void);
/* Ctrl-C, or a termination signal, since the last clear. */
bool interrupt_asked(void);
/* SIGTERM or SIGHUP came: its number, else 0. Stays. */
int interrupt_terminated(void);
void interrupt_clear(void); /* forgets Ctrl-C */

/* While on, a second Ctrl-C ends the process at once, for work that does not look at the flag. */
void interrupt_insist(bool on);

/* Waits for input on fd. 1: readable or closed; 0: a signal came first. */
int interrupt_wait(int fd);
/* Since the last call: the terminal changed size, or the process came back from a stop. */
bool interrupt_take_resize(void);
bool interrupt_take_resume(void);

/* The exit status for a run that a signal stopped: 128 + its number. */
int interrupt_status(void);

#endif
