/* One line of JSON: an object whose members are handed out by name. Strict (RFC 8259): UTF-8, no trailing commas, no
 * doubled members; numbers are kept as they are written. */
#ifndef TEST_LIN_JSON_H
#define TEST_LIN_JSON_H

#include "test/lin/lin.h"

struct lin_json_member {
	size_t name, name_len;  /* its name, unescaped, in the parser's `names` */
	lin_value value;
	bool is_int;            /* a number that is an int64_t: number_value */
	bool is_string;
	int64_t number_value;
};

#define LIN_JSON_MEMBERS_MAX 64

struct lin_json {
	struct lin_history *h;
	const char *at, *end, *begin;
	struct wire_buf names, scratch;
	struct lin_json_member members[LIN_JSON_MEMBERS_MAX];
	size_t count;
	char problem[160];
	bool nomem;
};

/* Parses a whole line. False when it is bad (`problem` has a sentence with the column) or memory failed (`nomem`). Members
 * are valid until the next call. Begin with a zeroed struct whose `h` is set; end with lin_json_free. */
bool lin_json_parse(struct lin_json *j, const char *line, size_t len);
const struct lin_json_member *lin_json_find(const struct lin_json *j, const char *name);
void lin_json_free(struct lin_json *j);

#endif
