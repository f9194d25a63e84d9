/* The latest checkpoint mark once more, beside the journal: should that be lost, or put back from an old copy, then a start knows by this file that there was more, and
 * where a new log may begin. Written at each checkpoint, durably, when `pages` is durable at the mark and before the journal says so; all entries up to there are durable in
 * the journal by then (I9), and its term is too. A lone member has none: nobody could give it what is missing.
 *
 *   0   u64 sum     hash of all that follows
 *   8   u64 magic   "wlvraftM"
 *   16  u32 version 1
 *   20  u64 group
 *   28  u64 index, u64 term of that entry, u64 current term, u64 state checksum, u32 pages of the database
 *   64  the configuration in force at index */
#include "shell/node_impl.h"
#include "wire/hash.h"

#include <stdlib.h>

#define MAGIC 0x4d74666172766c77u
#define VERSION 1
#define FIXED_BYTES 64
#define MARK_MAX (64 << 10)

static int write_file(struct shell_node *n, const struct raft_journal_start *s, struct wire_err *err)
{
	struct wire_buf b = WIRE_BUF_INIT;
	int rc = WIRE_NOMEM;

	wire_put_u64(&b, 0);
	wire_put_u64(&b, MAGIC);
	wire_put_u32(&b, VERSION);
	wire_put_u64(&b, n->conf.group);
	wire_put_u64(&b, s->base_index);
	wire_put_u64(&b, s->base_term);
	wire_put_u64(&b, s->term);
	wire_put_u64(&b, s->mark.checksum);
	wire_put_u32(&b, s->mark.db_pages);
	raft_config_put(&s->base_config, &b);
	if (b.failed) {
		wire_fail(err, rc, "no memory for a checkpoint mark");
	} else {
		wire_set_u64(&b, 0, wire_hash(b.data + 8, b.len - 8, 0));
		rc = wire_env_replace(n->env, n->paths.mark, b.data, b.len, err);
	}
	wire_buf_free(&b);
	return rc;
}

int node_mark_write(struct shell_node *n, const struct raft_journal_mark *m, struct wire_err *err)
{
	struct raft_journal_start *s = malloc(sizeof *s);
	int rc = s ? raft_journal_start_at(n->journal, m->index, s, err) : wire_fail(err, WIRE_NOMEM, "no memory for a checkpoint mark");

	if (!rc && s->base_config.n > 1) {
		s->mark = *m;
		rc = raft_journal_sync(n->journal, err); /* the term */
		if (!rc)
			rc = write_file(n, s, err);
	} else if (!rc) {
		(void)n->env->unlink(n->env->ctx, n->paths.mark, NULL); /* of the time when it had company; it would only ask for members that are gone */
	}
	free(s);
	return rc;
}

static int parse(const struct shell_node *n, const uint8_t *p, size_t len, struct raft_journal_start *s, struct wire_err *err)
{
	struct wire_in in = wire_in_make(p, len);

	if (len < FIXED_BYTES || wire_get_u64(&in) != wire_hash(p + 8, len - 8, 0) || wire_get_u64(&in) != MAGIC || wire_get_u32(&in) != VERSION ||
	    wire_get_u64(&in) != n->conf.group)
		return wire_fail(err, WIRE_NOTFOUND, "%s is damaged, or of another database or program", n->paths.mark);
	s->base_index = s->mark.index = wire_get_u64(&in);
	s->base_term = wire_get_u64(&in);
	s->term = wire_get_u64(&in);
	s->mark.checksum = wire_get_u64(&in);
	s->mark.db_pages = wire_get_u32(&in);
	return raft_config_get(p + FIXED_BYTES, len - FIXED_BYTES, &s->base_config, err) ? WIRE_NOTFOUND : WIRE_OK;
}

/* A damaged one is as good as none: it is only asked what the journal does not say. */
int node_mark_read(struct shell_node *n, struct raft_journal_start *ret_mark, struct wire_err *err)
{
	struct raft_journal_start *s;
	char *text;
	size_t len;
	int rc = wire_env_slurp(n->env, n->paths.mark, MARK_MAX, &text, &len, err);

	if (rc)
		return rc;
	s = calloc(1, sizeof *s);
	rc = s ? parse(n, (const uint8_t *)text, len, s, err) : wire_fail(err, WIRE_NOMEM, "no memory for a checkpoint mark");
	if (!rc)
		*ret_mark = *s;
	free(s);
	free(text);
	return rc;
}
