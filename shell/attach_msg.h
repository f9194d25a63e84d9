/* What an attached process and its host tell each other over node.sock. The connection begins with the line `attach 1`, or `attach 1 watch` when it only serves to notice the host's end; the
 * host answers HELLO, in the latter case with the descriptor of the locks of -shm (vfs/shmlock.h), if there is one, or FAIL. From then on both sides send messages, integers little endian:
 *
 *   u32 length of the payload    u8 type    u8 version (1)    u16 0    payload
 *
 * A step (struct vfs_once) is u64 seq, u32 idle_s, u8 length of the id (0: none), the id.
 *
 * One side asks, the other answers; UNLOCK and FRAMES have no answer. A payload is at most ATTACH_PAYLOAD_MAX bytes. Who gets anything else closes the connection: with it goes what stood behind
 * it on the host, that is a ticket, or the lock and the frames that were sent. */
#ifndef SHELL_ATTACH_MSG_H
#define SHELL_ATTACH_MSG_H

#include "vfs/attached.h"
#include "wire/buf.h"
#include "wire/err.h"

#define ATTACH_LINE "attach 1"
#define ATTACH_WATCH_LINE "attach 1 watch"
#define ATTACH_VERSION 1u
#define ATTACH_HEAD 8u
#define ATTACH_PIECE (64u << 10)                   /* bytes of frames in one message */
#define ATTACH_PAYLOAD_MAX (ATTACH_PIECE + 1024u)

enum attach_type {
	ATTACH_HELLO = 1, /* host: u64 owner, u32 page size, u64 clock (shell_shared_clock) */
	ATTACH_FAIL,      /* host: u32 wire code, text */
	ATTACH_LOCK,      /* u32 flags, u32 timeout_ms -> GRANT, FAIL */
	ATTACH_GRANT,     /* host: u64 epoch, 16 bytes txid, u8 fresh (struct vfs_grant), u64 sequence, u64 voided, 48 bytes wal-index header */
	ATTACH_SLEEP,     /* u32 us -> DONE with a u32: slept */
	ATTACH_UNLOCK,    /* u8 keep */
	ATTACH_GATE,      /* u8 level, u32 bound_ms, u32 timeout_ms -> DONE with a u8: waited; FAIL */
	ATTACH_VALID,     /* u64 epoch -> DONE with a u8 and a u64 voided */
	ATTACH_LEADER,    /* -> DONE with a text */
	ATTACH_STATUS,    /* -> DONE with struct vfs_db_status: u64 index, checksum, u32 db_pages, page_size, wal_frames, backfilled, u64 publications, restarts, checkpoints */
	ATTACH_FRAMES,    /* u64 at, then bytes */
	ATTACH_COMMIT,    /* u64 epoch, sequence, u32 n_frames, db_after, timeout_ms, u8 rewritten, u64 bytes, 48 bytes header, step -> COMMITTED */
	ATTACH_COMMITTED, /* host: u32 SQLite code, text, u8 mended, u64 index, 48 bytes header */
	ATTACH_DONE,
	ATTACH_WAIT,      /* u64 index, u32 timeout_ms -> DONE, FAIL */
	ATTACH_STEP,      /* step -> DONE with u64 seq, u64 index; FAIL */
	ATTACH_OUTCOME,   /* 16 bytes txid, u32 timeout_ms -> DONE with u64 index; FAIL */
	ATTACH_TYPE_MAX = ATTACH_OUTCOME,
};

/* One end. fd -1: closed. */
struct attach_link {
	int fd;
	uint8_t *in; /* ATTACH_HEAD + ATTACH_PAYLOAD_MAX */
	size_t have, used;
	struct wire_buf out;
};

bool attach_link_init(struct attach_link *l, int fd); /* false: no memory; fd stays the caller's then */
void attach_link_close(struct attach_link *l);        /* also twice */

/* Messages are put together in l->out, and sent at once by attach_send. */
size_t attach_begin(struct attach_link *l, enum attach_type type); /* where it begins */
void attach_end(struct attach_link *l, size_t begin);
/* WIRE_TIMEOUT: nothing moved for patience_ms; WIRE_CLOSED: the other end is gone. Some of it may have been sent. Empties l->out. */
int attach_send(struct attach_link *l, unsigned patience_ms, struct wire_err *err);
/* With it the descriptor; -1: none. It stays the caller's. */
int attach_send_fd(struct attach_link *l, int fd, unsigned patience_ms, struct wire_err *err);
/* The first bytes that come, and the descriptor that comes with them, which is the caller's then; -1: none does; ret_fd NULL: it is left to the kernel. attach_receive gives the message. */
int attach_receive_fd(struct attach_link *l, unsigned patience_ms, int *ret_fd, struct wire_err *err);

/* The next message. Without patience (0) the first byte is waited for without end; once a message has begun it has to be whole within stall_ms. ret_in points into the link until the next call.
 * WIRE_INVALID: not a message. */
int attach_receive(struct attach_link *l, unsigned patience_ms, unsigned stall_ms, enum attach_type *ret_type, struct wire_in *ret_in, struct wire_err *err);

void attach_put_header(struct wire_buf *b, const struct vfs_walindex_hdr *hdr);
void attach_get_header(struct wire_in *in, struct vfs_walindex_hdr *hdr);
void attach_put_step(struct wire_buf *b, const struct vfs_once *once);
void attach_get_step(struct wire_in *in, struct vfs_once *once); /* an id that is too long makes `in` bad */
bool attach_is_whole(const struct wire_in *in); /* nothing bad, nothing left */

#endif
