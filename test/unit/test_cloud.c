/* net/cloud/cloud: good clients, going away, the metrics, and the limits of the machine. */
#include "core/base/clock.h"
#include "net/cloud/cloud.h"
#include "net/cloud/log_gate.h"
#include "test/unit/cloud_rig.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct cloud_rig r;

Test(cloud, serves_and_says_goodbye) {
    struct guest p;
    struct wbuf w = {0};
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    cr_assert_eq(p.welcome.max_rows, 64);
    cr_assert_eq(p.welcome.idle_ms, 60000);
    cr_assert_str_eq(p.welcome.backend, "fake");
    guest_ping(&p, 0x0123456789abcdef);
    cr_assert_eq(guest_submit(&p, 5), 0);
    guest_await(&p, WIRE_RESULT);
    wire_put_bye(&w);
    cr_assert_eq(guest_send(&p, w.p, w.n), 0);
    cr_assert_eq(guest_frame(&p, RIG_WAIT_MS), 0);
    guest_close(&p);
    log_await("conn event=closed", 1);
    cr_assert_eq(log_count("conn event=open"), 1);
    cr_assert_eq(log_count("reason=finished"), 1);
    wbuf_free(&w);
    cloud_rig_stop(&r);
}

Test(cloud, several_in_one_process) {
    struct cloud_rig other;
    struct guest p, q;
    cloud_rig_init(&r, NULL);
    cloud_rig_init(&other, NULL);
    cloud_rig_start(&r);
    cloud_rig_start(&other);
    guest_open(&p, &r);
    guest_open(&q, &other);
    guest_close(&q);
    cloud_rig_stop(&other);
    guest_ping(&p, 1);
    guest_close(&p);
    cloud_rig_stop(&r);
}

/* Going away. */

static char scratch[4096];

static int http(const char *request, char *reply, size_t cap) {
    int fd = tcp_connect(cloud_metrics_port(r.cloud)), status = 0;
    cr_assert_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
    size_t n = tcp_drain(fd, reply, cap - 1);
    reply[n] = '\0';
    close(fd);
    cr_assert_eq(sscanf(reply, "HTTP/1.%*d %d", &status), 1, "%s", reply);
    return status;
}

Test(cloud, drains) {
    struct guest p;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    cr_assert_eq(http("GET /health HTTP/1.0\r\n\r\n", scratch, sizeof scratch), 200);
    cr_assert(strstr(scratch, "{\"status\":\"ok\"}"));
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 4), 0);
    rig_await_pass();
    cloud_stop(r.cloud, 60000);
    log_await("event=draining", 1);
    cr_assert_eq(http("GET /health HTTP/1.0\r\n\r\n", scratch, sizeof scratch), 503);
    cr_assert(strstr(scratch, "{\"status\":\"draining\"}"));
    guest_ping(&p, 1); /* still here */
    rig_hold(false);
    guest_await(&p, WIRE_RESULT); /* what was in flight is finished */
    guest_await_error(&p, WIRE_E_DRAINING);
    guest_close(&p);
    cloud_rig_join(&r);
    cloud_rig_stop(&r);
}

Test(cloud, drain_has_an_end) {
    struct guest p;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 4), 0);
    rig_await_pass();
    cloud_stop(r.cloud, 200);
    cloud_rig_join(&r); /* although the pass hangs */
    guest_close(&p);
    cloud_rig_stop(&r);
}

Test(cloud, second_stop_does_not_wait) {
    struct guest p;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    rig_hold(true);
    cr_assert_eq(guest_submit(&p, 4), 0);
    rig_await_pass();
    cloud_stop(r.cloud, 3600000);
    log_await("event=draining", 1);
    cloud_stop(r.cloud, 3600000);
    cloud_rig_join(&r);
    guest_close(&p);
    cloud_rig_stop(&r);
}

/* Metrics. */

/* The value of a sample, which must be there once. */
static double sample(const char *text, const char *name) {
    size_t n = strlen(name);
    double v = -1;
    int found = 0;
    for (const char *at = text; (at = strstr(at, name)); at += n)
        if ((at == text || at[-1] == '\n') && at[n] == ' ') {
            v = strtod(at + n, NULL);
            found++;
        }
    cr_assert_eq(found, 1, "%s stands there %d times in\n%s", name, found, text);
    return v;
}

/* Every line is a comment or a sample of a family that HELP and TYPE were given for. */
static void check_format(char *text) {
    char family[100] = "", kind[20] = "";
    for (char *line = text, *next; line && *line; line = next) {
        char name[100], value[60];
        next = strchr(line, '\n');
        cr_assert(next, "no newline at the end");
        *next++ = '\0';
        if (strncmp(line, "# HELP ", 7) == 0) {
            cr_assert_eq(sscanf(line, "# HELP %99s %*s", family), 1, "%s", line);
            kind[0] = '\0';
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            cr_assert_eq(sscanf(line, "# TYPE %99s %19s", name, kind), 2, "%s", line);
            cr_assert_str_eq(name, family);
        } else {
            char *end, *brace = strchr(line, '{'), *at = brace ? strrchr(line, '}') + 1 : strchr(line, ' ');
            snprintf(name, sizeof name, "%.*s", (int)((brace ? brace : at) - line), line);
            cr_assert_eq(strncmp(name, family, strlen(family)), 0, "%s under %s", name, family);
            cr_assert(name[strlen(family)] == '\0' || strcmp(kind, "histogram") == 0, "%s under %s", name, family);
            cr_assert(kind[0] && *at == ' ');
            snprintf(value, sizeof value, "%s", at + 1);
            strtod(value, &end);
            cr_assert(end != value && *end == '\0', "%s", line);
        }
        next[-1] = '\0';
    }
}

Test(cloud, metrics) {
    static char page[65536];
    struct guest p;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    guest_ping(&p, 1);
    cr_assert_eq(guest_submit(&p, 3), 0);
    guest_await(&p, WIRE_RESULT);
    cr_assert_eq(http("GET /metrics HTTP/1.0\r\n\r\n", page, sizeof page), 200);
    char *body = strstr(page, "\r\n\r\n");
    cr_assert(body && strstr(page, "text/plain; version=0.0.4"));
    body += 4;
    cr_assert(strstr(body, "splitinf_build_info{version=\"test \\\"1\\\"\",backend=\"fake\",protocol=\"1\"} 1\n"));
    cr_assert_eq(sample(body, "splitinf_sessions"), 1);
    cr_assert_eq(sample(body, "splitinf_sessions_attached"), 1);
    cr_assert_eq(sample(body, "splitinf_rows_total"), 3);
    cr_assert_eq(sample(body, "splitinf_pass_rows_count"), 1);
    cr_assert_eq(sample(body, "splitinf_pass_rows_bucket{le=\"2\"}"), 0);
    cr_assert_eq(sample(body, "splitinf_pass_rows_bucket{le=\"4\"}"), 1);
    cr_assert_eq(sample(body, "splitinf_pass_rows_bucket{le=\"+Inf\"}"), 1);
    cr_assert_eq(sample(body, "splitinf_pass_rows_sum"), 3);
    cr_assert_eq(sample(body, "splitinf_connections"), 1);
    cr_assert_eq(sample(body, "splitinf_connections_strangers"), 0);
    cr_assert_eq(sample(body, "splitinf_connections_closing"), 0);
    cr_assert_eq(sample(body, "splitinf_handshakes_failed_total"), 0);
    cr_assert_eq(sample(body, "splitinf_handshakes_delayed_total"), 0);
    cr_assert_eq(sample(body, "splitinf_pings_total"), 1);
    cr_assert_eq(sample(body, "splitinf_handshakes_total"), 1);
    cr_assert_gt(sample(body, "splitinf_received_bytes_total"), 3 * RIG_HIDDEN);
    cr_assert_gt(sample(body, "splitinf_kv_slots"), 0);
    cr_assert_geq(sample(body, "splitinf_kv_slots_used"), 3);
    check_format(body);

    cr_assert_eq(http("GET /nothing HTTP/1.0\r\n\r\n", page, sizeof page), 404);
    cr_assert_eq(http("HEAD /health HTTP/1.0\r\n\r\n", page, sizeof page), 200);
    cr_assert_geq(http("POST /metrics HTTP/1.0\r\nContent-Length: 0\r\n\r\n", page, sizeof page), 400);
    guest_close(&p);
    cloud_rig_stop(&r);
}

/* Out of descriptors: the listener rests, and goes on when there are some again. */
Test(cloud, no_descriptors_left) {
    enum { N = 40 };
    struct rlimit old, few;
    struct guest p;
    int fds[N], n = 0;
    cloud_rig_init(&r, NULL);
    cloud_rig_start(&r);
    guest_open(&p, &r);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (; n < 8; n++) /* these will wait in the backlog while there are none left */
        fds[n] = socket(AF_INET, SOCK_STREAM, 0);
    few = old;
    few.rlim_cur = (rlim_t)fds[n - 1] + 1;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(cloud_port(r.cloud)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < n; i++)
        cr_assert_eq(connect(fds[i], (struct sockaddr *)&a, sizeof a), 0);
    log_await("listener event=paused", 1);
    struct rusage u0, u1;
    double t0 = clock_ms();
    getrusage(RUSAGE_SELF, &u0);
    poll(NULL, 0, 1300);
    getrusage(RUSAGE_SELF, &u1);
    double cpu = (double)(u1.ru_utime.tv_sec - u0.ru_utime.tv_sec) * 1e3 +
                 (double)(u1.ru_utime.tv_usec - u0.ru_utime.tv_usec) / 1e3 +
                 (double)(u1.ru_stime.tv_sec - u0.ru_stime.tv_sec) * 1e3 +
                 (double)(u1.ru_stime.tv_usec - u0.ru_stime.tv_usec) / 1e3;
    cr_assert_lt(cpu, 500, "%.0f ms of processor time while it should rest", cpu);
    cr_assert_leq(log_count("listener event=paused"), 3 + (int)((clock_ms() - t0) / 1000));
    guest_ping(&p, 1);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    rig_check_served(&r);
    for (int i = 0; i < n; i++)
        close(fds[i]);
    guest_close(&p);
    cloud_rig_stop(&r);
}

Test(cloud, bad_addresses) {
    static const char *const bad[] = {
        "",         "7433",  "localhost",    "127.0.0.1:",       "127.0.0.1:70000", "127.0.0.1:80x",
        "::1:7433", ":7433", "127.0.0.1:-1", "nowhere.invalid:1"};
    cloud_rig_init(&r, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        r.o.listen = bad[i];
        cr_assert_eq(cloud_create(&r.cloud, &r.o, &e), -1, "%s", bad[i]);
        cr_assert_eq(e.kind, ERR_USAGE, "%s: %s", bad[i], e.msg);
    }
    struct err e = {0};
    char taken[40];
    r.o.listen = "127.0.0.1:0";
    cloud_rig_start(&r);
    snprintf(taken, sizeof taken, "127.0.0.1:%u", cloud_port(r.cloud));
    struct cloud_opts o = r.o;
    struct cloud *second;
    o.listen = taken;
    cr_assert_eq(cloud_create(&second, &o, &e), -1);
    cr_assert(e.kind == ERR_IO && strstr(e.msg, taken) && strstr(e.msg, "in use"), "%s", e.msg);
    cloud_rig_stop(&r);
}

Test(cloud, log_gate) {
    static struct log_gate g;
    uint64_t held = 99;
    cr_assert(log_gate_pass(&g, "a", 1, 1000, &held) && held == 0);
    cr_assert_not(log_gate_pass(&g, "a", 1, 2000, &held));
    cr_assert_not(log_gate_pass(&g, "a", 1, 60999, &held));
    cr_assert(log_gate_pass(&g, "b", 1, 3000, &held) && held == 2);
    cr_assert(log_gate_pass(&g, "a", 1, 61000, &held) && held == 0);
    for (int i = 0; i < 1000; i++)
        log_gate_pass(&g, &i, sizeof i, 61000, &held);
    cr_assert_not(log_gate_pass(&g, "new", 3, 61001, &held));
    cr_assert(log_gate_pass(&g, "new", 3, 121001, &held));
    cr_assert_geq(held, 1000 - LOG_GATE_KEYS);
}
