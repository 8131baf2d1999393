/* test/fuzz/replay.c - runs a fuzz target over files, once each: so that the corpora are tests with any compiler.
 *
 *   replay_NAME FILE|DIR...
 *
 * The first byte of a file may steer a target as it does under libFuzzer; nothing is added or cut. A copy of exactly
 * the file's length is passed, so that a sanitizer sees one byte too many. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path, const struct stat *st) {
    size_t n = (size_t)st->st_size;
    uint8_t *data = malloc(n ? n : 1);
    FILE *f = fopen(path, "rb");
    int rc = -1;

    if (!data || !f || fread(data, 1, n, f) != n) {
        fprintf(stderr, "%s: cannot be read\n", path);
        goto out;
    }
    fprintf(stderr, "%s\n", path); /* before the call: the last line names the file that crashed */
    LLVMFuzzerTestOneInput(data, n);
    rc = 0;
out:
    if (f)
        fclose(f);
    free(data);
    return rc;
}

static int replay(const char *path, int *n_files) {
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        return -1;
    }
    if (!S_ISDIR(st.st_mode)) {
        ++*n_files;
        return replay_file(path, &st);
    }
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort), rc = 0;
    if (n < 0) {
        perror(path);
        return -1;
    }
    for (int i = 0; i < n; i++) {
        char child[4096];
        int len = snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && (len >= (int)sizeof child || replay(child, n_files) != 0))
            rc = -1;
        free(entries[i]);
    }
    free(entries);
    return rc;
}

int main(int argc, char **argv) {
    int n_files = 0, rc = 0;
    for (int i = 1; i < argc; i++)
        rc |= replay(argv[i], &n_files);
    if (n_files == 0)
        fprintf(stderr, "no file to replay\n");
    return rc == 0 && n_files > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
