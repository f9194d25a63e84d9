/* Bytes of records and segment headers; raft/JOURNAL.md shows them. */
#include "raft/journal_impl.h"
#include <assert.h>
#include <string.h>

enum {
	AT_SUM = 0,
	AT_LENGTH = 8,
	AT_TYPE = 12,
	AT_KIND = 13,
	AT_SYNCED_BACK = 14,
	AT_SYNCED_OFF = 16,
	AT_COMMIT = 20,
	NOTHING_SAID = 0xffff,
	HEADER_FIXED = 136,
	PUBLICATION_BYTES = 28,
	HEADER_RECYCLED = 1,
	HEADER_FORGETFUL = 2,
};
#define MAGIC 0x4a74666172766c77u /* "wlvraftJ" */

/* Seeded with its place, so that a record read where it was not written is not valid. */
static uint64_t seed_in(uint32_t version, uint64_t group, uint64_t no, uint32_t off)
{
	uint8_t b[24];

	wire_set_le64(b, group);
	wire_set_le64(b + 8, no);
	wire_set_le64(b + 16, off);
	return wire_hash(b, sizeof(b), version);
}

static uint64_t seed_of(uint64_t group, uint64_t no, uint32_t off)
{
	return seed_in(RAFT_JRN_VERSION, group, no, off);
}

static bool length_fits(uint8_t type, uint32_t length)
{
	switch (type) {
	case RAFT_JRN_ENTRY:
	case RAFT_JRN_FILL:
		return length >= RAFT_JRN_ENTRY_HEAD && length <= RAFT_JRN_ENTRY_HEAD + WIRE_ENTRY_MAX;
	case RAFT_JRN_TRUNCATE:
	case RAFT_JRN_TRIM:
		return length == 8;
	case RAFT_JRN_VOTE:
		return length == 16;
	case RAFT_JRN_PUBLICATION:
		return length == PUBLICATION_BYTES;
	case RAFT_JRN_MARK:
		return length == 20;
	case RAFT_JRN_NOTE:
		return length <= RAFT_JRN_NOTE_MAX;
	case RAFT_JRN_COMMIT:
	case RAFT_JRN_SYNC:
	case RAFT_JRN_END:
		return length == 0;
	}
	return false;
}

uint32_t raft_jrn_entry_bytes(uint32_t size)
{
	return raft_jrn_align(RAFT_JRN_REC_HEAD + RAFT_JRN_ENTRY_HEAD + size);
}

void raft_jrn_put(struct wire_buf *b, uint64_t group, uint64_t no, uint32_t off, const struct raft_jrn_rec *rec)
{
	bool entry = raft_jrn_has_data(rec->type);
	uint32_t length = entry ? RAFT_JRN_ENTRY_HEAD + rec->size : rec->length;
	uint32_t covered = RAFT_JRN_REC_HEAD + (entry ? (uint32_t)RAFT_JRN_ENTRY_HEAD : length);
	uint32_t total = raft_jrn_align(RAFT_JRN_REC_HEAD + length);
	uint64_t back = no - (rec->synced >> 32);

	assert(length_fits(rec->type, length));
	assert(rec->synced <= raft_jrn_pos(no, off));
	if (!wire_buf_reserve(b, total)) {
		b->failed = true;
		return;
	}
	uint8_t *p = b->data + b->len;
	wire_set_le32(p + AT_LENGTH, length);
	p[AT_TYPE] = rec->type;
	p[AT_KIND] = rec->kind;
	if (!rec->synced || back >= NOTHING_SAID)
		back = NOTHING_SAID;
	p[AT_SYNCED_BACK] = (uint8_t)back;
	p[AT_SYNCED_BACK + 1] = (uint8_t)(back >> 8);
	wire_set_le32(p + AT_SYNCED_OFF, back == NOTHING_SAID ? 0 : (uint32_t)rec->synced);
	wire_set_le64(p + AT_COMMIT, rec->commit);
	if (entry) {
		wire_set_le32(p + RAFT_JRN_REC_HEAD, rec->index_low);
		wire_set_le64(p + RAFT_JRN_REC_HEAD + 4, rec->term);
		wire_set_le64(p + RAFT_JRN_REC_HEAD + 12, rec->sum);
		if (rec->size)
			memcpy(p + covered, rec->data, rec->size);
	} else if (length) {
		memcpy(p + RAFT_JRN_REC_HEAD, rec->payload, length);
	}
	memset(p + RAFT_JRN_REC_HEAD + length, 0, total - RAFT_JRN_REC_HEAD - length);
	wire_set_le64(p + AT_SUM, wire_hash(p + AT_LENGTH, covered - AT_LENGTH, seed_of(group, no, off)));
	b->len += total;
}

bool raft_jrn_parse(const uint8_t *p, size_t n, uint64_t group, uint64_t no, uint32_t off, struct raft_jrn_rec *ret_rec)
{
	if (n < RAFT_JRN_REC_HEAD)
		return false;
	struct raft_jrn_rec r = { .type = p[AT_TYPE], .kind = p[AT_KIND], .length = wire_le32(p + AT_LENGTH) };
	if (!length_fits(r.type, r.length) || RAFT_JRN_REC_HEAD + r.length > n)
		return false;
	bool entry = raft_jrn_has_data(r.type);
	uint32_t covered = RAFT_JRN_REC_HEAD + (entry ? (uint32_t)RAFT_JRN_ENTRY_HEAD : r.length);
	if (wire_le64(p + AT_SUM) != wire_hash(p + AT_LENGTH, covered - AT_LENGTH, seed_of(group, no, off)))
		return false;
	uint32_t back = p[AT_SYNCED_BACK] | (uint32_t)p[AT_SYNCED_BACK + 1] << 8;
	if (back != NOTHING_SAID && back <= no)
		r.synced = raft_jrn_pos(no - back, wire_le32(p + AT_SYNCED_OFF));
	r.commit = wire_le64(p + AT_COMMIT);
	r.payload = p + RAFT_JRN_REC_HEAD;
	r.total = raft_jrn_align(RAFT_JRN_REC_HEAD + r.length);
	if (entry) {
		r.index_low = wire_le32(r.payload);
		r.term = wire_le64(r.payload + 4);
		r.sum = wire_le64(r.payload + 12);
		r.size = r.length - RAFT_JRN_ENTRY_HEAD;
		r.data = r.payload + RAFT_JRN_ENTRY_HEAD;
	}
	*ret_rec = r;
	return true;
}

bool raft_jrn_data_ok(const struct raft_jrn_rec *rec)
{
	return !raft_jrn_has_data(rec->type) || wire_hash(rec->data, rec->size, 0) == rec->sum;
}

void raft_jrn_put_publication(uint8_t dst[28], const struct raft_journal_publication *p)
{
	wire_set_le32(dst, p->salt[0]);
	wire_set_le32(dst + 4, p->salt[1]);
	wire_set_le32(dst + 8, p->mx_frame);
	wire_set_le32(dst + 12, p->cksum[0]);
	wire_set_le32(dst + 16, p->cksum[1]);
	wire_set_le64(dst + 20, p->index);
}

void raft_jrn_get_publication(const uint8_t src[28], struct raft_journal_publication *p)
{
	p->salt[0] = wire_le32(src);
	p->salt[1] = wire_le32(src + 4);
	p->mx_frame = wire_le32(src + 8);
	p->cksum[0] = wire_le32(src + 12);
	p->cksum[1] = wire_le32(src + 16);
	p->index = wire_le64(src + 20);
}

void raft_jrn_put_header(struct wire_buf *b, const struct raft_jrn_header *h)
{
	size_t at = b->len;

	wire_put_u64(b, 0); /* the sum */
	wire_put_u64(b, MAGIC);
	wire_put_u32(b, RAFT_JRN_VERSION);
	wire_put_u32(b, 0); /* bytes of the area */
	wire_put_u32(b, 0); /* of which used */
	wire_put_u32(b, (h->recycled ? HEADER_RECYCLED : 0) | (h->forgetful ? HEADER_FORGETFUL : 0));
	wire_put_u64(b, h->group);
	wire_put_u64(b, h->no);
	wire_put_u32(b, h->segment_bytes);
	wire_put_u32(b, h->n_pubs);
	wire_put_u64(b, h->oldest);
	wire_put_u64(b, h->synced);
	wire_put_u64(b, h->commit);
	wire_put_u64(b, h->first_index);
	wire_put_u64(b, h->prev_term);
	wire_put_u64(b, h->term);
	wire_put_u64(b, h->vote);
	wire_put_u64(b, h->mark.index);
	wire_put_u64(b, h->mark.checksum);
	wire_put_u32(b, h->mark.db_pages);
	wire_put_u32(b, 0); /* bytes of the configuration */
	for (uint32_t i = 0; i < h->n_pubs; i++) {
		uint8_t pub[PUBLICATION_BYTES];
		raft_jrn_put_publication(pub, &h->pubs[i]);
		wire_put_bytes(b, pub, sizeof(pub));
	}
	size_t config_at = b->len;
	raft_config_put(&h->config, b);
	size_t used = b->len - at;
	while (!b->failed && (b->len - at) % RAFT_JRN_SECTOR)
		wire_put_u8(b, 0);
	if (b->failed)
		return;
	wire_set_u32(b, at + 20, (uint32_t)(b->len - at));
	wire_set_u32(b, at + 24, (uint32_t)used);
	wire_set_u32(b, at + 132, (uint32_t)(at + used - config_at));
	wire_set_u64(b, at, wire_hash(b->data + at + 8, used - 8, seed_of(0, h->no, 0)));
}

uint32_t raft_jrn_header_bytes(const struct raft_jrn_header *h)
{
	struct wire_buf b = WIRE_BUF_INIT;

	raft_jrn_put_header(&b, h);
	uint32_t n = b.failed ? 0 : (uint32_t)b.len;
	wire_buf_free(&b);
	return n;
}

static int check_header(const uint8_t *p, size_t n, uint64_t no, struct wire_err *err)
{
	if (n < HEADER_FIXED)
		return wire_fail(err, WIRE_CORRUPT, "segment %llu ends within its header", (unsigned long long)no);
	uint32_t used = wire_le32(p + 24);
	if (wire_le64(p + 8) != MAGIC || used < HEADER_FIXED || used > n || used > RAFT_JRN_HEADER_MAX ||
	    wire_le64(p) != wire_hash(p + 8, used - 8, seed_in(wire_le32(p + 16), 0, no, 0)))
		return wire_fail(err, WIRE_CORRUPT, "segment %llu has no valid header", (unsigned long long)no);
	if (wire_le32(p + 16) != RAFT_JRN_VERSION)
		return wire_fail(err, WIRE_VERSION, "journal segment %llu has format version %u, this program knows %d: use a program of that version, or join anew",
		                 (unsigned long long)no, wire_le32(p + 16), RAFT_JRN_VERSION);
	return WIRE_OK;
}

int raft_jrn_get_header(const uint8_t *p, size_t n, uint64_t no, struct raft_jrn_header *ret_h, struct wire_err *err)
{
	struct raft_jrn_header h = { 0 };
	int rc = check_header(p, n, no, err);

	if (rc)
		return rc;
	struct wire_in in = wire_in_make(p, wire_le32(p + 24));
	wire_get_bytes(&in, 20);
	h.bytes = wire_get_u32(&in);
	wire_get_u32(&in);
	uint32_t flags = wire_get_u32(&in);
	h.recycled = flags & HEADER_RECYCLED;
	h.forgetful = flags & HEADER_FORGETFUL;
	h.group = wire_get_u64(&in);
	h.no = wire_get_u64(&in);
	h.segment_bytes = wire_get_u32(&in);
	h.n_pubs = wire_get_u32(&in);
	h.oldest = wire_get_u64(&in);
	h.synced = wire_get_u64(&in);
	h.commit = wire_get_u64(&in);
	h.first_index = wire_get_u64(&in);
	h.prev_term = wire_get_u64(&in);
	h.term = wire_get_u64(&in);
	h.vote = wire_get_u64(&in);
	h.mark.index = wire_get_u64(&in);
	h.mark.checksum = wire_get_u64(&in);
	h.mark.db_pages = wire_get_u32(&in);
	uint32_t config_bytes = wire_get_u32(&in);
	for (uint32_t i = 0; i < h.n_pubs && i < RAFT_JRN_PUBS; i++) {
		const uint8_t *pub = wire_get_bytes(&in, PUBLICATION_BYTES);
		if (pub)
			raft_jrn_get_publication(pub, &h.pubs[i]);
	}
	const uint8_t *config = wire_get_bytes(&in, config_bytes);
	if (in.bad || wire_in_left(&in) || h.n_pubs > RAFT_JRN_PUBS || h.no != no || !h.first_index || h.oldest > no ||
	    (flags & ~(uint32_t)(HEADER_RECYCLED | HEADER_FORGETFUL)) || h.segment_bytes < RAFT_JRN_SEGMENT_MIN || h.segment_bytes > RAFT_JRN_SEGMENT_MAX ||
	    h.bytes % RAFT_JRN_SECTOR || h.bytes < wire_le32(p + 24) ||
	    h.bytes > h.segment_bytes - RAFT_JRN_END_BYTES)
		return wire_fail(err, WIRE_CORRUPT, "segment %llu has a header that contradicts itself", (unsigned long long)no);
	rc = raft_config_get(config, config_bytes, &h.config, err);
	if (rc)
		return wire_context(err, "header of segment %llu", (unsigned long long)no);
	*ret_h = h;
	return WIRE_OK;
}
