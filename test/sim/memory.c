#include "test/sim/memory.h"
#include <stdlib.h>
#include <string.h>

/* Names that the linker gives (ld --wrap). */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);

static uint64_t left;
static bool failed;

static bool short_now(void)
{
	if (!left || --left)
		return false;
	failed = true;
	return true;
}

void *__wrap_malloc(size_t n)
{
	return short_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t each)
{
	return short_now() ? NULL : __real_calloc(n, each);
}

void *__wrap_realloc(void *p, size_t n)
{
	return short_now() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s)
{
	return short_now() ? NULL : __real_strdup(s);
}

void memory_begin(uint64_t allocation)
{
	left = allocation;
	failed = false;
}

uint64_t memory_end(bool *ret_failed)
{
	uint64_t n = left;

	left = 0;
	*ret_failed = failed;
	return n;
}

void *memory_sure(void *p, size_t n)
{
	p = __real_realloc(p, n);
	if (!p)
		abort();
	return p;
}
