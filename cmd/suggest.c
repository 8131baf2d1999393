#include "cmd/suggest.h"

#include <string.h>

enum { MAX_WORD = 63 };

static int min(int a, int b) {
    return a < b ? a : b;
}

int suggest_distance(const char *a, const char *b) {
    int n = (int)strnlen(a, MAX_WORD), m = (int)strnlen(b, MAX_WORD);
    int rows[3][MAX_WORD + 1]; /* rows i-2, i-1 and i of the table, in turn */
    for (int j = 0; j <= m; j++)
        rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *cur = rows[i % 3], *prev = rows[(i + 2) % 3], *prev2 = rows[(i + 1) % 3];
        cur[0] = i;
        for (int j = 1; j <= m; j++) {
            cur[j] = min(min(prev[j], cur[j - 1]) + 1, prev[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                cur[j] = min(cur[j], prev2[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

void suggest_offer(struct suggest *s, const char *typed, const char *candidate) {
    size_t n = strlen(typed);
    int d = suggest_distance(typed, candidate);
    if (n >= 3 && strncmp(typed, candidate, n) == 0)
        d = 1; /* an abbreviation is as near as one slip of the finger */
    /* A third of the word may be wrong; more than that is another word. */
    if (d > min(1 + (int)n / 3, 4) || d >= (int)strlen(candidate))
        return;
    if (!s->best || d < s->distance) {
        s->best = candidate;
        s->distance = d;
    }
}
