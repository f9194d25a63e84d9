#include "wire/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const code_texts[] = {
#define X(name, text) [WIRE_##name] = (text),
	WIRE_CODES(X)
#undef X
};
_Static_assert(sizeof code_texts / sizeof code_texts[0] == WIRE_CODE_COUNT, "every code has a text");

/* Arguments may point into err->text (a sentence that quotes the one before), hence the copy. */
static void set_text(struct wire_err *err, int code, int sys, const char *text)
{
	size_t n = strnlen(text, sizeof err->text - 1);

	memcpy(err->text, text, n);
	err->text[n] = '\0';
	err->code = code;
	err->sys = sys;
}

int wire_fail(struct wire_err *err, int code, const char *fmt, ...)
{
	char text[sizeof err->text];
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	set_text(err, code, 0, text);
	return code;
}

static int code_of_errno(int sys)
{
	switch (sys) {
	case ENOSPC:
	case EDQUOT:
		return WIRE_FULL;
	case EACCES:
	case EPERM:
	case EROFS:
		return WIRE_PERM;
	case ENOENT:
		return WIRE_NOTFOUND;
	case EEXIST:
		return WIRE_EXISTS;
	case EADDRINUSE:
		return WIRE_BUSY;
	case ENOMEM:
		return WIRE_NOMEM;
	default:
		return WIRE_IO;
	}
}

int wire_fail_errno(struct wire_err *err, int sys, const char *fmt, ...)
{
	char text[sizeof err->text], why_mem[128];
	int code = code_of_errno(sys);
	size_t keep, why_len;
	const char *why;
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	why = strerror_r(sys, why_mem, sizeof why_mem);
	why_len = strnlen(why, sizeof why_mem - 1);
	/* The cause is worth more than the end of a long sentence. */
	keep = strlen(text);
	if (keep + 2 + why_len > sizeof text - 1)
		keep = sizeof text - 1 - 2 - why_len;
	(void)snprintf(text + keep, sizeof text - keep, ": %.*s", (int)why_len, why);
	set_text(err, code, sys, text);
	return code;
}

int wire_context(struct wire_err *err, const char *fmt, ...)
{
	char text[sizeof err->text];
	va_list ap;
	size_t n;

	if (!err)
		return WIRE_INTERNAL;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	n = strlen(text);
	(void)snprintf(text + n, sizeof text - n, ": %.*s", (int)(sizeof text - n), err->text);
	set_text(err, err->code, err->sys, text);
	return err->code;
}

const char *wire_code_text(int code)
{
	if (code < 0 || code >= WIRE_CODE_COUNT)
		return "unknown code";
	return code_texts[code];
}
