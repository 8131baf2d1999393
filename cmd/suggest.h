/* cmd/suggest.h - "did you mean": the nearest word of a list to one that was mistyped. Pure. */
#ifndef CMD_SUGGEST_H
#define CMD_SUGGEST_H

/* Edits (insert, delete, replace, swap of neighbours) between a and b: Damerau 1964, restricted form. Words longer than
 * 63 bytes count as their first 63. */
int suggest_distance(const char *a, const char *b);

/* Keeps the best candidate so far: start with {0}, offer each word, read best (NULL when none is near enough). */
struct suggest {
    const char *best; /* borrowed */
    int distance;
};
void suggest_offer(struct suggest *s, const char *typed, const char *candidate);

#endif
