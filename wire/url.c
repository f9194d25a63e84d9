/* What counts as a node's address. */
#include "wire/link.h"
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

enum { HOST_MAX = 253 };

static const char digits[] = "0123456789";
static const char name_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

static bool port_ok(const char *s)
{
	size_t n = strspn(s, digits);
	if (n == 0 || n > 5 || s[n])
		return false;
	unsigned v = 0;
	for (size_t i = 0; i < n; i++)
		v = v * 10 + (unsigned)(s[i] - '0');
	return v >= 1 && v <= 65535;
}

static bool host_ok(const char *host, bool bracketed, bool *ret_loopback)
{
	struct in6_addr a6;
	struct in_addr a4;
	if (bracketed) {
		if (inet_pton(AF_INET6, host, &a6) != 1)
			return false;
		*ret_loopback = IN6_IS_ADDR_LOOPBACK(&a6);
		return true;
	}
	if (inet_pton(AF_INET, host, &a4) == 1) {
		*ret_loopback = (ntohl(a4.s_addr) >> 24) == 127;
		return true;
	}
	size_t n = strlen(host);
	/* Digits and dots alone that are no IPv4 address would be looked up as a name that nobody can have meant. */
	if (n == 0 || strspn(host, name_chars) != n || strspn(host, "0123456789.") == n || host[0] == '.' ||
	    host[0] == '-')
		return false;
	*ret_loopback = strcasecmp(host, "localhost") == 0;
	return true;
}

int wire_url_check(const char *url, bool *ret_loopback, struct wire_err *err)
{
	char host[HOST_MAX + 1];
	bool loopback = false;
	const char *p = url && strncmp(url, "tcp://", 6) == 0 ? url + 6 : NULL;
	const char *colon = p ? strrchr(p, ':') : NULL;
	if (colon && strlen(url) <= WIRE_TEXT_MAX && port_ok(colon + 1)) {
		bool bracketed = p[0] == '[' && colon[-1] == ']' && colon - p > 2;
		const char *from = bracketed ? p + 1 : p;
		size_t n = (size_t)((bracketed ? colon - 1 : colon) - from);
		if (n <= HOST_MAX) {
			memcpy(host, from, n);
			host[n] = 0;
			if (host_ok(host, bracketed, &loopback)) {
				if (ret_loopback)
					*ret_loopback = loopback;
				return WIRE_OK;
			}
		}
	}
	return wire_fail(
	        err, WIRE_INVALID,
	        "'%.200s' is no node address: write tcp://HOST:PORT, with HOST an IPv4 address, [IPv6] or a name and "
	        "PORT from 1 to 65535",
	        url ? url : "");
}
