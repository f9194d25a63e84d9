#include "test/sim/machine.h"
#include "test/sim/rng.h"
#include "wire/buf.h"
#include <string.h>

void machine_op_put(const struct machine_op *op, uint8_t *dst, uint32_t size)
{
	wire_set_le64(dst, op->attempt);
	wire_set_le64(dst + 8, op->seq);
	wire_set_le64(dst + 16, op->value);
	wire_set_le32(dst + 24, op->client);
	wire_set_le32(dst + 28, op->key);
	wire_set_le64(dst + 32, size);
	memset(dst + MACHINE_OP_BYTES, (int)(op->attempt & 0xff), size - MACHINE_OP_BYTES);
}

bool machine_op_get(const uint8_t *src, size_t size, struct machine_op *ret_op)
{
	if (size < MACHINE_OP_BYTES || wire_le64(src + 32) != size)
		return false;
	*ret_op = (struct machine_op){ .attempt = wire_le64(src), .seq = wire_le64(src + 8), .value = wire_le64(src + 16),
		                       .client = wire_le32(src + 24), .key = wire_le32(src + 28) };
	return ret_op->client < MACHINE_CLIENTS && ret_op->key < MACHINE_KEYS;
}

bool machine_apply(struct machine *m, uint64_t term, const struct machine_op *op)
{
	m->index++;
	m->hash = rng_mix(m->hash, term);
	if (!op || op->seq <= m->seq[op->client])
		return false;
	struct machine_key *k = &m->key[op->key];
	m->seq[op->client] = op->seq;
	k->value = op->value;
	k->version++;
	k->list = rng_mix(k->list, op->value);
	m->hash = rng_mix(m->hash, k->list ^ op->key);
	return true;
}
