/* tok/template/builtin.h - the tables of built-in names, each in a file of its own, and help for what stands in them.
 */
#ifndef TOK_TEMPLATE_BUILTIN_H
#define TOK_TEMPLATE_BUILTIN_H

#include "tok/template/run.h"

/* Each ends with an entry without a name. */
extern const struct tbuiltin tfilter_table[], ttest_table[], tfunc_table[];
extern const struct tbuiltin tmethod_str_table[], tmethod_dict_table[], tmethod_loop_table[];

/* The filters of template_filter_seq.c. */
int tfilter_first(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);
int tfilter_last(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);
int tfilter_join(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);
int tfilter_sum(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);
int tfilter_min(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);
int tfilter_max(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);
int tfilter_sort(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);
int tfilter_dictsort(struct trun *r, const struct tval *self, const struct tcall *c, struct tval *out);

/* Is the argument given and true? */
bool tcall_flag(const struct tcall *c, int i);
/* A value that must be a str, as text; what: for the message. */
int tcall_str(struct trun *r, const struct tval *v, const char *what, struct tstr *out);

/* Shared by filters and methods of the same name. count < 0: all. */
int ttext_replace(struct trun *r, struct tstr s, struct tstr from, struct tstr to, int64_t count, struct tval *out);
int ttext_case(struct trun *r, struct tstr s, enum tstr_case how, struct tval *out);
int ttext_strip(struct trun *r, struct tstr s, const struct tval *chars, bool left, bool right, struct tval *out);
/* str.splitlines(): the next line from *off on, without its end; false when there is none. */
bool ttext_line(struct tstr s, size_t *off, struct tstr *line);

#endif
