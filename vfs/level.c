/* Levels of reads as text: what PRAGMA walraft_read, the URI parameter of that name and the SQL function take and give; likewise walraft_write. And waiting for a position. */
#include "vfs/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LEVELS_TEXT "'linearizable', 'lease', 'bounded:<ms>' (by how much it may be behind, from 1 to 86400000 milliseconds) or 'stale'"

static const char *const names[] = {
	[VFS_READ_LINEARIZABLE] = "linearizable",
	[VFS_READ_LEASE] = "lease",
	[VFS_READ_BOUNDED] = "bounded",
	[VFS_READ_STALE] = "stale",
};

/* Digits and nothing else, within the limits. */
static bool parse_bound(const char *text, uint32_t *ret_ms)
{
	uint64_t v = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		v = v * 10 + (uint64_t)(*text - '0');
		if (v > VFS_BOUND_MS_MAX)
			return false;
	}
	*ret_ms = (uint32_t)v;
	return v > 0;
}

int vfs_read_want_parse(const char *text, struct vfs_read_want *ret_want, struct wire_err *err)
{
	const size_t bounded = strlen(names[VFS_READ_BOUNDED]);
	uint32_t ms = 0;

	for (int level = 0; level <= VFS_READ_STALE; level++) {
		if (level != VFS_READ_BOUNDED && strcasecmp(text, names[level]) == 0) {
			*ret_want = (struct vfs_read_want){ .level = (enum vfs_read_level)level };
			return WIRE_OK;
		}
	}
	if (strncasecmp(text, names[VFS_READ_BOUNDED], bounded) == 0 && text[bounded] == ':' && parse_bound(text + bounded + 1, &ms)) {
		*ret_want = (struct vfs_read_want){ .level = VFS_READ_BOUNDED, .bound_ms = ms };
		return WIRE_OK;
	}
	return wire_fail(err, WIRE_INVALID, "walraft_read is " LEVELS_TEXT ", not '%.100s'", text);
}

void vfs_read_want_text(const struct vfs_read_want *want, char dst[VFS_WANT_TEXT_BYTES])
{
	if (want->level == VFS_READ_BOUNDED)
		snprintf(dst, VFS_WANT_TEXT_BYTES, "%s:%u", names[want->level], want->bound_ms);
	else
		snprintf(dst, VFS_WANT_TEXT_BYTES, "%s", names[want->level]);
}

void vfs_conn_read_level(struct vfs_conn *c, char dst[VFS_WANT_TEXT_BYTES])
{
	vfs_read_want_text(&c->want, dst);
}

int vfs_conn_set_read_level(struct vfs_conn *c, const char *text, struct wire_err *err)
{
	return vfs_read_want_parse(text, &c->want, err);
}

int vfs_conn_wait(struct vfs_conn *c, uint64_t index, uint32_t timeout_ms, struct wire_err *err)
{
	const struct vfs_node_ops *ops;
	int rc;

	if (shim_alive(c) != SQLITE_OK)
		return wire_fail(err, WIRE_CLOSED, "%s", c->error);
	if (!c->db)
		return wire_fail(err, WIRE_INVALID, "%s is not replicated yet", c->path);
	ops = vfs_db_ops(c->db);
	rc = ops->wait_published(ops->ctx, index, timeout_ms, err);
	if (rc)
		shim_fail(c, WALRAFT_IOERR_READ, "%s: %s", c->path, err->text);
	return rc;
}

int vfs_conn_set_write(struct vfs_conn *c, const char *text, struct wire_err *err)
{
	if (strcmp(text, "forward") == 0)
		c->write_flags &= ~(unsigned)VFS_WRITE_LOCAL;
	else if (strcmp(text, "local") == 0)
		c->write_flags |= VFS_WRITE_LOCAL;
	else
		return wire_fail(err, WIRE_INVALID, "walraft_write is 'forward' or 'local', not '%s'", text);
	return WIRE_OK;
}

const char *vfs_conn_write(struct vfs_conn *c)
{
	return c->write_flags & VFS_WRITE_LOCAL ? "local" : "forward";
}
