#include "shell/attach_msg.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

bool attach_link_init(struct attach_link *l, int fd)
{
	*l = (struct attach_link){ .fd = -1, .in = malloc(ATTACH_HEAD + ATTACH_PAYLOAD_MAX) };
	if (!l->in)
		return false;
	l->fd = fd;
	return true;
}

void attach_link_close(struct attach_link *l)
{
	int fd = l->fd;

	l->fd = -1; /* first: a forked child closes what it finds here */
	if (fd >= 0)
		close(fd);
	free(l->in);
	l->in = NULL;
	wire_buf_free(&l->out);
}

size_t attach_begin(struct attach_link *l, enum attach_type type)
{
	size_t begin = l->out.len;

	wire_put_u32(&l->out, 0);
	wire_put_u8(&l->out, (uint8_t)type);
	wire_put_u8(&l->out, ATTACH_VERSION);
	wire_put_u16(&l->out, 0);
	return begin;
}

void attach_end(struct attach_link *l, size_t begin)
{
	if (!l->out.failed)
		wire_set_u32(&l->out, begin, (uint32_t)(l->out.len - begin - ATTACH_HEAD));
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* False: not by then. UINT64_MAX: without end. */
static bool wait_for(int fd, short events, uint64_t deadline_ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		uint64_t now = deadline_ms == UINT64_MAX ? 0 : now_ms();
		int wait_ms = deadline_ms == UINT64_MAX ? -1 : now >= deadline_ms ? 0 : (int)(deadline_ms - now);
		int rc = poll(&p, 1, wait_ms);

		if (rc > 0)
			return true;
		if (rc == 0 || errno != EINTR)
			return false;
	}
}

static int gone(struct wire_err *err)
{
	return wire_fail(err, WIRE_CLOSED, "the connection was closed by the other end");
}

int attach_send(struct attach_link *l, unsigned patience_ms, struct wire_err *err)
{
	const uint8_t *p = l->out.data;
	size_t left = l->out.len;
	bool failed = l->out.failed;
	int rc = WIRE_OK;

	wire_buf_reset(&l->out);
	if (failed)
		return wire_fail(err, WIRE_NOMEM, "no memory for a message");
	while (left && !rc) {
		ssize_t put = send(l->fd, p, left, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (put > 0) {
			p += put;
			left -= (size_t)put;
		} else if (put < 0 && errno != EAGAIN && errno != EINTR) {
			rc = gone(err);
		} else if (!wait_for(l->fd, POLLOUT, now_ms() + patience_ms)) {
			rc = wire_fail(err, WIRE_TIMEOUT, "the other end takes nothing");
		}
	}
	return rc;
}

int attach_send_fd(struct attach_link *l, int fd, unsigned patience_ms, struct wire_err *err)
{
	union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control = { 0 };
	struct iovec part = { .iov_base = l->out.data, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	ssize_t put;

	if (fd < 0 || l->out.failed || !l->out.len)
		return attach_send(l, patience_ms, err);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	do
		put = sendmsg(l->fd, &m, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	if (put != 1) {
		wire_buf_reset(&l->out);
		return gone(err);
	}
	memmove(l->out.data, l->out.data + 1, --l->out.len);
	return attach_send(l, patience_ms, err);
}

int attach_receive_fd(struct attach_link *l, unsigned patience_ms, int *ret_fd, struct wire_err *err)
{
	union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control = { 0 };
	struct iovec part = { .iov_base = l->in + l->have, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = ret_fd ? control.bytes : NULL, .msg_controllen = ret_fd ? sizeof control.bytes : 0 };
	const uint64_t deadline = now_ms() + patience_ms;
	struct cmsghdr *c;
	ssize_t got;

	do {
		if (!wait_for(l->fd, POLLIN, deadline))
			return wire_fail(err, WIRE_TIMEOUT, "the other end does not answer");
		got = recvmsg(l->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (got < 0 && (errno == EINTR || errno == EAGAIN));
	if (got != 1)
		return gone(err);
	l->have++;
	if (!ret_fd)
		return WIRE_OK;
	c = CMSG_FIRSTHDR(&m);
	*ret_fd = -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return WIRE_OK;
}

/* More bytes into l->in. */
static int fill(struct attach_link *l, uint64_t deadline_ms, struct wire_err *err)
{
	for (;;) {
		/* Mostly there is nothing yet: without end it is waited for in one call. */
		ssize_t got = recv(l->fd, l->in + l->have, ATTACH_HEAD + ATTACH_PAYLOAD_MAX - l->have, deadline_ms == UINT64_MAX ? 0 : MSG_DONTWAIT);

		if (got > 0) {
			l->have += (size_t)got;
			return WIRE_OK;
		}
		if (got == 0 || (errno != EAGAIN && errno != EINTR))
			return gone(err);
		if (!wait_for(l->fd, POLLIN, deadline_ms))
			return wire_fail(err, WIRE_TIMEOUT, "the other end does not answer");
	}
}

static int need(struct attach_link *l, size_t n, uint64_t deadline_ms, struct wire_err *err)
{
	int rc = WIRE_OK;

	while (!rc && l->have < n)
		rc = fill(l, deadline_ms, err);
	return rc;
}

int attach_receive(struct attach_link *l, unsigned patience_ms, unsigned stall_ms, enum attach_type *ret_type, struct wire_in *ret_in, struct wire_err *err)
{
	uint32_t size;
	int rc;

	memmove(l->in, l->in + l->used, l->have - l->used);
	l->have -= l->used;
	l->used = 0;
	rc = need(l, 1, patience_ms ? now_ms() + patience_ms : UINT64_MAX, err);
	if (!rc && l->have < ATTACH_HEAD)
		rc = need(l, ATTACH_HEAD, now_ms() + stall_ms, err);
	if (rc)
		return rc;
	size = wire_le32(l->in);
	if (size > ATTACH_PAYLOAD_MAX || l->in[4] == 0 || l->in[4] > ATTACH_TYPE_MAX || l->in[5] != ATTACH_VERSION || l->in[6] || l->in[7])
		return wire_fail(err, WIRE_INVALID, "the other end sent something that is no message");
	if (l->have < ATTACH_HEAD + size)
		rc = need(l, ATTACH_HEAD + size, now_ms() + stall_ms, err);
	if (rc)
		return rc;
	l->used = ATTACH_HEAD + size;
	*ret_type = (enum attach_type)l->in[4];
	*ret_in = wire_in_make(l->in + ATTACH_HEAD, size);
	return WIRE_OK;
}

void attach_put_header(struct wire_buf *b, const struct vfs_walindex_hdr *hdr)
{
	wire_put_bytes(b, hdr, sizeof *hdr); /* of one machine */
}

void attach_get_header(struct wire_in *in, struct vfs_walindex_hdr *hdr)
{
	const uint8_t *p = wire_get_bytes(in, sizeof *hdr);

	if (p)
		memcpy(hdr, p, sizeof *hdr);
}

void attach_put_step(struct wire_buf *b, const struct vfs_once *once)
{
	wire_put_u64(b, once->seq);
	wire_put_u32(b, once->idle_s);
	wire_put_u8(b, once->id_len);
	wire_put_bytes(b, once->id, once->id_len);
}

void attach_get_step(struct wire_in *in, struct vfs_once *once)
{
	struct vfs_once o = { .seq = wire_get_u64(in), .idle_s = wire_get_u32(in), .id_len = 0 };
	uint8_t len = wire_get_u8(in);
	const uint8_t *id = wire_get_bytes(in, len);

	if (len > VFS_ONCE_ID_MAX || (len && !o.idle_s))
		in->bad = true;
	if (in->bad)
		return;
	o.id_len = len;
	memcpy(o.id, id, len);
	*once = o;
}

bool attach_is_whole(const struct wire_in *in)
{
	return !in->bad && wire_in_left(in) == 0;
}
