/* render_template TEMPLATE VARIABLES.json [DATE] - renders a chat template file for the differential test against
 * jinja2 (test/oracle/fuzz_templates.py). With "-" as its only argument: a stream on standard input of pairs of blocks,
 * each a decimal length, a newline and so many bytes (template, then variables); for each an answer "ok LEN\nTEXT" or
 * "KIND LEN\nMESSAGE". */
#include "core/base/file.h"
#include "tok/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 64 << 20 };

static void answer(const char *src, size_t n, const char *vars, const char *date) {
    struct err e = {0};
    struct chat_template *t = NULL;
    struct chat_prompt p = {0};
    struct chat_vars v = {.date = date, .extra_json = vars};
    if (chat_template_parse(&t, src, n, "template", &e) == 0 && chat_template_render(t, NULL, 0, &v, &p, &e) == 0) {
        printf("ok %zu\n", p.text.n);
        fwrite(p.text.p, 1, p.text.n, stdout);
    } else {
        printf("%s %zu\n%s", err_kind_name(e.kind), strlen(e.msg), e.msg);
    }
    fflush(stdout);
    chat_prompt_free(&p);
    chat_template_free(t);
}

static char *block(size_t *n) {
    char line[32];
    if (!fgets(line, sizeof line, stdin))
        return NULL;
    *n = strtoul(line, NULL, 10);
    char *p = *n <= MAX ? malloc(*n + 1) : NULL;
    if (p && fread(p, 1, *n, stdin) != *n) {
        free(p);
        p = NULL;
    }
    if (p)
        p[*n] = '\0';
    return p;
}

int main(int argc, char **argv) {
    struct err e = {0};
    char *src = NULL, *vars = NULL;
    size_t n = 0, n_vars;
    if (argc == 2 && strcmp(argv[1], "-") == 0) {
        while ((src = block(&n)) && (vars = block(&n_vars))) {
            answer(src, n, vars, "26 Jul 2024");
            free(src);
            free(vars);
            src = vars = NULL;
        }
        free(src);
        return 0;
    }
    if (argc < 3) {
        fprintf(stderr, "usage: render_template TEMPLATE VARIABLES.json [DATE] | -\n");
        return 2;
    }
    int rc = file_read(argv[1], MAX, &src, &n, &e) != 0 || file_read(argv[2], MAX, &vars, &n_vars, &e) != 0;
    if (rc)
        fprintf(stderr, "%s\n", e.msg);
    else
        answer(src, n, vars, argc > 3 ? argv[3] : NULL);
    free(src);
    free(vars);
    return rc;
}
