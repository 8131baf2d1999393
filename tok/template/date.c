/* strftime_now: a date that the caller gives, in the C locale whatever the process's locale is. */
#include "tok/template/run.h"

#include <stdio.h>
#include <string.h>

struct date {
    int year, month, day; /* month 1..12 */
};

static const char *const months[] = {"January", "February", "March",     "April",   "May",      "June",
                                     "July",    "August",   "September", "October", "November", "December"};
static const char *const days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};

static bool leap(int y) {
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

static int month_days(int y, int m) {
    static const int n[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return n[m - 1] + (m == 2 && leap(y));
}

static int year_day(const struct date *d) { /* 1 January: 0 */
    int n = d->day - 1;
    for (int m = 1; m < d->month; m++)
        n += month_days(d->year, m);
    return n;
}

static int week_day(const struct date *d) { /* Sunday: 0 */
    int y = d->year - 1;
    return (y * 365 + y / 4 - y / 100 + y / 400 + year_day(d) + 1) % 7;
}

/* A number of at most so many digits; -1: none. */
static int number(const char **s, int digits) {
    int n = 0, i = 0;
    for (; i < digits && **s >= '0' && **s <= '9'; i++)
        n = n * 10 + *(*s)++ - '0';
    return i ? n : -1;
}

static bool skip(const char **s, char c) {
    bool there = **s == c;
    *s += there;
    return there;
}

static int month_named(const char **s) {
    for (int m = 0; m < 12; m++)
        if (strncmp(*s, months[m], 3) == 0) {
            *s += 3;
            return m + 1;
        }
    return -1;
}

/* "26 Jul 2024" or "2024-07-26" */
static bool parse(const char *s, struct date *d) {
    *d = (struct date){.year = number(&s, 4)};
    if (skip(&s, '-')) {
        d->month = number(&s, 2);
        d->day = skip(&s, '-') ? number(&s, 2) : -1;
    } else {
        d->day = d->year;
        d->month = skip(&s, ' ') ? month_named(&s) : -1;
        d->year = skip(&s, ' ') ? number(&s, 4) : -1;
    }
    return !*s && d->year >= 1 && d->month >= 1 && d->month <= 12 && d->day >= 1 &&
           d->day <= month_days(d->year, d->month);
}

/* One directive; false: not supported. The time of day is midnight. */
static bool directive(char c, bool bare, const struct date *d, char out[32]) {
    int n = -1, digits = 2, w = week_day(d), yd = year_day(d);
    const char *s = NULL;
    switch (c) {
    case 'd':
        n = d->day;
        break;
    case 'm':
        n = d->month;
        break;
    case 'y':
        n = d->year % 100;
        break;
    case 'Y':
        n = d->year;
        digits = 1;
        break;
    case 'j':
        n = yd + 1;
        digits = 3;
        break;
    case 'w':
        n = w;
        digits = 1;
        break;
    case 'u':
        n = w ? w : 7;
        digits = 1;
        break;
    case 'U':
        n = (yd + 7 - w) / 7;
        break;
    case 'W':
        n = (yd + 7 - (w + 6) % 7) / 7;
        break;
    case 'H':
    case 'M':
    case 'S':
        n = 0;
        break;
    case 'I':
        n = 12;
        break;
    case 'p':
        s = "AM";
        break;
    case 'B':
    case 'b':
    case 'h':
        s = months[d->month - 1];
        break;
    case 'A':
    case 'a':
        s = days[w];
        break;
    default:
        return false;
    }
    if (s)
        snprintf(out, 32, "%.*s", c == 'b' || c == 'h' || c == 'a' ? 3 : 20, s);
    else
        snprintf(out, 32, "%0*d", bare ? 1 : digits, n);
    return !(s && bare);
}

int tdate_format(struct trun *r, struct tstr format, struct tval *out) {
    struct date d;
    struct tsink k = trun_sink(r);
    if (!r->date || !parse(r->date, &d))
        return trun_fail(r, "strftime_now needs a date such as \"26 Jul 2024\" or \"2024-07-26\"");
    for (size_t i = 0; i < format.n; i++) {
        if (format.p[i] != '%') {
            tsink_put(&k, tstr_sub(format, i, 1));
            continue;
        }
        bool bare = i + 1 < format.n && format.p[i + 1] == '-';
        i += 1 + (size_t)bare;
        char c = i < format.n ? format.p[i] : '\0', text[32];
        if (c == '%' && !bare)
            tsink_lit(&k, "%");
        else if (c == 'F' && !bare)
            snprintf(text, sizeof text, "%d-%02d-%02d", d.year, d.month, d.day), tsink_lit(&k, text);
        else if (directive(c, bare, &d, text))
            tsink_lit(&k, text);
        else
            return trun_fail(r, "strftime_now with %%%c is not supported", c >= ' ' && c <= '~' ? c : '?');
    }
    out->kind = TV_STR;
    return trun_text(r, &k, &out->s);
}
