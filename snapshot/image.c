#include "snapshot/image.h"

#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

#define VERSION 2u
#define CHUNK_HEAD 13u /* first page, pages, raw length, lz4 */
#define CHUNK_SUM 8u
#define LOCK_BYTE 0x40000000u
#define PAGES_MAX 0xfffffffeu

static bool is_page_size(uint32_t n)
{
	return n >= 512 && n <= 65536 && (n & (n - 1)) == 0;
}

/* SQLite never writes the page that holds byte 0x40000000; it goes as zeros and is not part of the state checksum. */
static uint32_t lock_page(uint32_t page_size)
{
	return LOCK_BYTE / page_size + 1;
}

/* ---- info ---- */

void snap_info_put(const struct snap_info *i, struct wire_buf *b)
{
	wire_put_u8(b, VERSION);
	wire_put_u64(b, i->index);
	wire_put_u64(b, i->term);
	wire_put_u64(b, i->checksum);
	wire_put_u32(b, i->page_size);
	wire_put_u32(b, i->pages);
	wire_put_u64(b, i->beside_bytes);
	wire_put_varint(b, i->config_len);
	wire_put_bytes(b, i->config, i->config_len);
}

int snap_info_get(const void *p, size_t n, struct snap_info *ret_info, struct wire_err *err)
{
	struct wire_in in = wire_in_make(p, n);
	const uint8_t version = wire_get_u8(&in);

	if (!in.bad && version != VERSION)
		return wire_fail(err, WIRE_VERSION, "the image has format %u, this program knows %u; use the same version of walraft on "
		                 "both nodes", version, VERSION);

	const uint64_t index = wire_get_u64(&in), term = wire_get_u64(&in), checksum = wire_get_u64(&in);
	const uint32_t page_size = wire_get_u32(&in), pages = wire_get_u32(&in);
	const uint64_t beside_bytes = wire_get_u64(&in), config_len = wire_get_varint(&in);
	if (in.bad || config_len > SNAP_CONFIG_MAX)
		return wire_fail(err, WIRE_CORRUPT, "malformed description of an image");
	const uint8_t *const config = wire_get_bytes(&in, (size_t)config_len);
	if (in.bad || wire_in_left(&in) != 0)
		return wire_fail(err, WIRE_CORRUPT, "malformed description of an image");
	if (!is_page_size(page_size) || pages > PAGES_MAX)
		return wire_fail(err, WIRE_CORRUPT, "the image has %u pages of %u bytes, which no database has", pages, page_size);

	ret_info->index = index;
	ret_info->term = term;
	ret_info->checksum = checksum;
	ret_info->page_size = page_size;
	ret_info->pages = pages;
	ret_info->beside_bytes = beside_bytes;
	ret_info->config_len = (uint32_t)config_len;
	memset(ret_info->config, 0, sizeof ret_info->config);
	if (config_len > 0)
		memcpy(ret_info->config, config, (size_t)config_len);
	return WIRE_OK;
}

uint32_t snap_chunk_pages(uint32_t page_size)
{
	return page_size < SNAP_CHUNK_BYTES ? SNAP_CHUNK_BYTES / page_size : 1;
}

/* ---- the file beside it ---- */

uint32_t snap_piece_bytes(uint64_t file_bytes, uint32_t number)
{
	const uint64_t at = (uint64_t)number * SNAP_PIECE_BYTES;

	if (at >= file_bytes)
		return 0;
	return file_bytes - at < SNAP_PIECE_BYTES ? (uint32_t)(file_bytes - at) : SNAP_PIECE_BYTES;
}

void snap_piece_put(struct wire_buf *out, uint32_t number, const void *bytes, uint32_t len)
{
	const size_t start = out->len;

	wire_put_u32(out, number);
	wire_put_bytes(out, bytes, len);
	wire_put_u64(out, out->failed ? 0 : wire_hash(out->data + start, out->len - start, 0));
}

int snap_piece_get(const void *p, size_t n, uint64_t file_bytes, uint32_t number, const uint8_t **ret_bytes, struct wire_err *err)
{
	const uint32_t len = snap_piece_bytes(file_bytes, number);
	const uint8_t *const b = p;

	if (len == 0 || n != (size_t)len + 12 || wire_le32(b) != number || wire_le64(b + 4 + len) != wire_hash(b, len + 4, 0))
		return wire_fail(err, WIRE_CORRUPT, "piece %u of the file beside the image is damaged, or another one", number);
	*ret_bytes = b + 4;
	return WIRE_OK;
}

/* ---- sender ---- */

int snap_chunk_encode(struct wire_buf *out, const struct snap_info *info, uint32_t first, uint32_t n,
                      int (*read_page)(void *ctx, uint32_t pgno, void *dst, struct wire_err *err), void *ctx, struct wire_err *err)
{
	const size_t start = out->len;
	const uint32_t most = (SNAP_CHUNK_MAX - CHUNK_HEAD - CHUNK_SUM) / info->page_size;

	if (first == 0 || first > info->pages || n == 0)
		return wire_fail(err, WIRE_INVALID, "%u pages from %u on were asked for, of an image of %u", n, first, info->pages);
	if (n > info->pages - first + 1)
		n = info->pages - first + 1;
	if (n > most)
		return wire_fail(err, WIRE_TOOBIG, "%u pages were asked for at once, %u is the most", n, most);

	const uint32_t raw_len = n * info->page_size;
	uint8_t *const raw = malloc(raw_len);
	if (raw == NULL)
		return wire_fail(err, WIRE_NOMEM, "no memory for a chunk of an image");
	int rc = WIRE_OK;
	for (uint32_t i = 0; i < n && rc == WIRE_OK; i++) {
		uint8_t *const at = raw + (size_t)i * info->page_size;
		if (first + i == lock_page(info->page_size))
			memset(at, 0, info->page_size);
		else
			rc = read_page(ctx, first + i, at, err);
	}
	if (rc != WIRE_OK) {
		free(raw);
		return rc;
	}

	wire_put_u32(out, first);
	wire_put_u32(out, n);
	wire_put_u32(out, raw_len);
	wire_put_u8(out, 1);
	if (!wire_lz4_pack(out, raw, raw_len) && !out->failed) {
		out->data[out->len - 1] = 0;
		wire_put_bytes(out, raw, raw_len);
	}
	free(raw);
	if (!out->failed)
		wire_put_u64(out, wire_hash(out->data + start, out->len - start, 0));
	if (out->failed) {
		out->len = start;
		return wire_fail(err, WIRE_NOMEM, "no memory for a chunk of an image");
	}
	return WIRE_OK;
}

/* ---- receiver ---- */

struct snap_recv {
	const struct wire_env *env;
	struct wire_file *file;
	char *temp_path;
	void (*on_page)(void *ctx, uint32_t pgno, uint64_t hash);
	void *ctx;
	uint32_t page_size, pages, chunk_pages, chunks, arrived, next; /* next: no chunk below it is to be asked for */
	uint64_t expected, checksum, done_pages;
	uint8_t *state; /* [chunks], enum chunk_state */
	uint8_t *scratch; /* an unpacked chunk */
};

enum chunk_state { MISSING, ASKED, ARRIVED };

static uint32_t pages_of(const struct snap_recv *r, uint32_t chunk)
{
	const uint32_t before = chunk * r->chunk_pages;
	return r->pages - before < r->chunk_pages ? r->pages - before : r->chunk_pages;
}

static void recv_free(struct snap_recv *r)
{
	if (r->file != NULL)
		r->env->close(r->env->ctx, r->file);
	free(r->temp_path);
	free(r->state);
	free(r->scratch);
	free(r);
}

int snap_recv_open(const struct wire_env *env, const char *temp_path, const struct snap_info *info,
                   void (*on_page)(void *ctx, uint32_t pgno, uint64_t hash), void *ctx, struct snap_recv **ret_recv, struct wire_err *err)
{
	struct snap_recv *const r = calloc(1, sizeof *r);

	if (r == NULL)
		return wire_fail(err, WIRE_NOMEM, "no memory to receive an image");
	r->env = env;
	r->on_page = on_page;
	r->ctx = ctx;
	r->page_size = info->page_size;
	r->pages = info->pages;
	r->chunk_pages = snap_chunk_pages(info->page_size);
	r->chunks = info->pages / r->chunk_pages + (info->pages % r->chunk_pages != 0);
	r->expected = info->checksum;
	r->temp_path = strdup(temp_path);
	r->state = calloc(1, (size_t)r->chunks + 1);
	r->scratch = malloc((size_t)r->chunk_pages * r->page_size);
	if (r->temp_path == NULL || r->state == NULL || r->scratch == NULL) {
		recv_free(r);
		return wire_fail(err, WIRE_NOMEM, "no memory to receive an image of %u pages", info->pages);
	}

	int rc = env->open(env->ctx, temp_path, WIRE_OPEN_WRITE | WIRE_OPEN_CREATE, &r->file, err);
	if (rc != WIRE_OK) {
		r->file = NULL;
		recv_free(r);
		return rc;
	}
	/* What an earlier attempt left is of no use: nobody knows which pages of it belong to this image. */
	rc = env->truncate(env->ctx, r->file, 0, err);
	if (rc == WIRE_OK)
		rc = env->truncate(env->ctx, r->file, (uint64_t)info->pages * info->page_size, err);
	if (rc != WIRE_OK) {
		snap_recv_abort(r);
		return rc;
	}
	*ret_recv = r;
	return WIRE_OK;
}

bool snap_recv_next(struct snap_recv *r, uint32_t *ret_first, uint32_t *ret_n)
{
	while (r->next < r->chunks && r->state[r->next] != MISSING)
		r->next++;
	if (r->next == r->chunks)
		return false;
	r->state[r->next] = ASKED;
	*ret_first = r->next * r->chunk_pages + 1;
	*ret_n = pages_of(r, r->next);
	r->next++;
	return true;
}

void snap_recv_retry(struct snap_recv *r)
{
	for (uint32_t i = 0; i < r->chunks; i++) {
		if (r->state[i] == ASKED)
			r->state[i] = MISSING;
	}
	r->next = 0;
}

/* Checks everything that can be checked without the image's own checksum; gives the chunk's number and its pages. */
static int open_chunk(struct snap_recv *r, const void *p, size_t n, uint32_t *ret_chunk, const uint8_t **ret_raw, struct wire_err *err)
{
	if (n < CHUNK_HEAD + CHUNK_SUM || n > SNAP_CHUNK_MAX)
		return wire_fail(err, WIRE_CORRUPT, "a chunk of %zu bytes is none", n);
	if (wire_le64((const uint8_t *)p + n - CHUNK_SUM) != wire_hash(p, n - CHUNK_SUM, 0))
		return wire_fail(err, WIRE_CORRUPT, "a chunk has the wrong checksum");

	struct wire_in in = wire_in_make(p, n - CHUNK_SUM);
	const uint32_t first = wire_get_u32(&in), pages = wire_get_u32(&in), raw_len = wire_get_u32(&in);
	const uint8_t lz4 = wire_get_u8(&in);
	if (first == 0 || first > r->pages || (first - 1) % r->chunk_pages != 0)
		return wire_fail(err, WIRE_CORRUPT, "a chunk from page %u on was not asked for", first);
	const uint32_t chunk = (first - 1) / r->chunk_pages;
	if (pages != pages_of(r, chunk) || raw_len != pages * r->page_size || lz4 > 1)
		return wire_fail(err, WIRE_CORRUPT, "the chunk from page %u on has %u pages in %u bytes, which was not asked for", first,
		                 pages, raw_len);

	const size_t body_len = wire_in_left(&in);
	const uint8_t *const body = wire_get_bytes(&in, body_len);
	if (lz4 == 0) {
		if (body_len != raw_len)
			return wire_fail(err, WIRE_CORRUPT, "the chunk from page %u on has %zu bytes of pages instead of %u", first,
			                 body_len, raw_len);
		*ret_raw = body;
	} else {
		const int rc = wire_lz4_unpack(r->scratch, raw_len, body, body_len, err);
		if (rc != WIRE_OK) {
			wire_context(err, "the chunk from page %u on", first);
			return rc;
		}
		*ret_raw = r->scratch;
	}
	*ret_chunk = chunk;
	return WIRE_OK;
}

int snap_recv_chunk(struct snap_recv *r, const void *p, size_t n, struct wire_err *err)
{
	uint32_t chunk = 0;
	const uint8_t *raw = NULL;
	int rc = open_chunk(r, p, n, &chunk, &raw, err);

	if (rc != WIRE_OK || r->state[chunk] == ARRIVED)
		return rc;
	const uint32_t first = chunk * r->chunk_pages + 1, pages = pages_of(r, chunk);
	rc = r->env->write(r->env->ctx, r->file, raw, (size_t)pages * r->page_size, (uint64_t)(first - 1) * r->page_size, err);
	if (rc != WIRE_OK)
		return rc;

	for (uint32_t i = 0; i < pages; i++) {
		const bool counts = first + i != lock_page(r->page_size);
		const uint64_t hash = counts ? wire_page_hash(first + i, raw + (size_t)i * r->page_size, r->page_size) : 0;
		r->checksum ^= hash;
		if (r->on_page != NULL)
			r->on_page(r->ctx, first + i, hash);
	}
	r->state[chunk] = ARRIVED;
	r->arrived++;
	r->done_pages += pages;
	return WIRE_OK;
}

bool snap_recv_complete(const struct snap_recv *r)
{
	return r->arrived == r->chunks;
}

void snap_recv_progress(const struct snap_recv *r, uint64_t *ret_done_bytes, uint64_t *ret_total_bytes)
{
	*ret_done_bytes = r->done_pages * r->page_size;
	*ret_total_bytes = (uint64_t)r->pages * r->page_size;
}

/* Makes a rename in the file's directory durable. */
static int sync_dir_of(const struct wire_env *env, const char *path, struct wire_err *err)
{
	const char *const slash = strrchr(path, '/');
	if (slash == NULL)
		return env->sync_dir(env->ctx, ".", err);

	char *const dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (dir == NULL)
		return wire_fail(err, WIRE_NOMEM, "no memory to finish %s", path);
	const int rc = env->sync_dir(env->ctx, dir, err);
	free(dir);
	return rc;
}

int snap_recv_finish(struct snap_recv *r, const char *final_path, struct wire_err *err)
{
	const struct wire_env *const env = r->env;
	int rc = WIRE_OK;

	if (!snap_recv_complete(r))
		rc = wire_fail(err, WIRE_INVALID, "the image for %s is not complete: %u of %u chunks are there", final_path, r->arrived,
		               r->chunks);
	else if (r->checksum != r->expected)
		rc = wire_fail(err, WIRE_CORRUPT, "the image for %s has the state checksum %016llx instead of %016llx: the sender's database "
		               "or a disk is damaged; check both, then join again", final_path, (unsigned long long)r->checksum,
		               (unsigned long long)r->expected);
	if (rc == WIRE_OK)
		rc = env->sync(env->ctx, r->file, err);
	if (rc == WIRE_OK)
		rc = env->rename_new(env->ctx, r->temp_path, final_path, err);
	if (rc != WIRE_OK) {
		snap_recv_abort(r);
		return rc;
	}
	rc = sync_dir_of(env, final_path, err);
	recv_free(r);
	return rc;
}

void snap_recv_abort(struct snap_recv *r)
{
	if (r == NULL)
		return;
	const struct wire_env *const env = r->env;

	env->close(env->ctx, r->file);
	r->file = NULL;
	env->unlink(env->ctx, r->temp_path, NULL); /* best effort: the next attempt starts the file over */
	recv_free(r);
}
