#include "cmd/help.h"

#include <string.h>

enum { WIDTH = 96, COLUMN = 28 };
/* A range from 0 to more than this says nothing that a reader would want to know; error messages have it all the same.
 */
enum { OBVIOUS = 1000 };

void help_wrap(FILE *f, const char *text, int at, int indent) {
    while (*text) {
        size_t word = strcspn(text, " \n");
        if (at > indent && at + 1 + (int)word > WIDTH) {
            fprintf(f, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', f);
            at++;
        }
        fprintf(f, "%.*s", (int)word, text);
        at += (int)word;
        text += word;
        if (*text == '\n') {
            fprintf(f, "\n%*s", indent, "");
            at = indent;
        }
        if (*text)
            text++;
    }
    fputc('\n', f);
}

static void help_option(FILE *f, const struct opt *o) {
    int at = fprintf(f, "  --%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    if (at > COLUMN - 2)
        at = fprintf(f, "\n") - 1;
    fprintf(f, "%*s", COLUMN - at, "");

    char text[1000];
    size_t n = (size_t)snprintf(text, sizeof text, "%s", o->help);
    if (o->type == OPT_CHOICE) {
        for (int i = 0; o->choices[i]; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s %s", i ? "," : ":", o->choices[i]);
    } else if (o->min != 0 || (o->max != 0 && o->max < OBVIOUS)) {
        n += (size_t)snprintf(text + n, sizeof text - n, " (%.10g to %.10g)", o->min, o->max);
    }
    if (o->def || o->type == OPT_CHOICE)
        snprintf(text + n, sizeof text - n, " [%s]", o->def ? o->def : o->choices[0]);
    help_wrap(f, text, COLUMN, COLUMN);
}

void help_command(FILE *f, const struct opt_table *t) {
    for (int i = 0; t->synopsis[i]; i++)
        fprintf(f, "usage: splitinf %s\n", t->synopsis[i]);
    fputc('\n', f);
    help_wrap(f, t->about, 0, 0);
    for (int i = 0; i < t->n_groups; i++) {
        fprintf(f, "\n%s\n", t->groups[i].title);
        for (const struct opt *o = t->groups[i].opts; o->name; o++)
            help_option(f, o);
    }
    fputc('\n', f);
    help_wrap(f,
              "Each option can also come from the environment, as SPLITINF_ and its name in capitals with _ for -: "
              "--max-tokens 50 is SPLITINF_MAX_TOKENS=50. The command line wins. --no-NAME turns a flag off again. "
              "Defaults stand in brackets.",
              0, 0);
}
