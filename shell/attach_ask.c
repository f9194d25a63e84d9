/* Of an attached database: outcomes and steps of clients, which the host's ledger knows, and the host's status. */
#include "shell/attach_impl.h"

int attached_step_of(void *ctx, const struct vfs_once *once, struct vfs_step *ret_step, struct wire_err *err)
{
	struct wire_buf q = WIRE_BUF_INIT;
	uint8_t answer[16];
	int rc;

	attach_put_step(&q, once);
	rc = attached_ask(ctx, ATTACH_STEP, &q, 0, answer, sizeof answer, err);
	wire_buf_free(&q);
	if (!rc)
		*ret_step = (struct vfs_step){ .seq = wire_le64(answer), .index = wire_le64(answer + 8) };
	return rc;
}

int attached_outcome(void *ctx, const uint8_t txid[VFS_TXID_BYTES], uint32_t timeout_ms, uint64_t *ret_index, struct wire_err *err)
{
	struct wire_buf q = WIRE_BUF_INIT;
	uint8_t answer[8];
	int rc;

	wire_put_bytes(&q, txid, VFS_TXID_BYTES);
	wire_put_u32(&q, timeout_ms);
	rc = attached_ask(ctx, ATTACH_OUTCOME, &q, timeout_ms, answer, sizeof answer, err);
	wire_buf_free(&q);
	if (!rc)
		*ret_index = wire_le64(answer);
	return rc;
}

int shell_attached_status(struct shell_attached *a, struct vfs_db_status *ret_status, struct wire_err *err)
{
	const struct wire_buf q = WIRE_BUF_INIT;
	uint8_t answer[56] = { 0 };
	struct wire_in in = wire_in_make(answer, sizeof answer);
	struct vfs_db_status s;
	int rc = attached_ask(a, ATTACH_STATUS, &q, 0, answer, sizeof answer, err);

	if (rc)
		return rc;
	s.index = wire_get_u64(&in);
	s.checksum = wire_get_u64(&in);
	s.db_pages = wire_get_u32(&in);
	s.page_size = wire_get_u32(&in);
	s.wal_frames = wire_get_u32(&in);
	s.backfilled = wire_get_u32(&in);
	s.publications = wire_get_u64(&in);
	s.restarts = wire_get_u64(&in);
	s.checkpoints = wire_get_u64(&in);
	*ret_status = s;
	return WIRE_OK;
}
