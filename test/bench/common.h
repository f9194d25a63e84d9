/* Shared by the benchmark programs: clock, latency samples, result lines "peer figure value unit". */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static inline void pause_us(long us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	nanosleep(&ts, NULL);
}

static inline void die(const char *what)
{
	fprintf(stderr, "bench: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
	exit(1);
}

/* Latency samples in microseconds. */
struct lat { float *v; size_t n, cap; };

static inline void lat_add(struct lat *l, double us)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 1 << 16;
		l->v = realloc(l->v, l->cap * sizeof *l->v);
		if (!l->v)
			die("out of memory");
	}
	l->v[l->n++] = (float)us;
}

static inline int lat_cmp(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return x < y ? -1 : x > y;
}

static inline double lat_pct(const struct lat *l, double p)
{
	size_t i = (size_t)(p * (double)l->n);

	return l->n ? (double)l->v[i < l->n ? i : l->n - 1] : 0;
}

static inline void emit(const char *peer, const char *fig, double v, const char *unit)
{
	printf("%s %s %.1f %s\n", peer, fig, v, unit);
	fflush(stdout);
}

/* Rate, p50 and p99 of one run. */
static inline void emit_run(const char *peer, const char *fig, struct lat *l, double seconds)
{
	static const struct { const char *suffix; double p; } q[] = { { "p50", 0.50 }, { "p99", 0.99 } };
	char f[128];

	if (l->n)
		qsort(l->v, l->n, sizeof *l->v, lat_cmp);
	snprintf(f, sizeof f, "%s_rate", fig);
	emit(peer, f, (double)l->n / seconds, "1/s");
	for (size_t i = 0; i < sizeof q / sizeof *q; i++) {
		snprintf(f, sizeof f, "%s_%s", fig, q[i].suffix);
		emit(peer, f, lat_pct(l, q[i].p), "us");
	}
}

#endif
