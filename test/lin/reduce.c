/* Writes of unknown outcome are what makes a search explode: they stay open to the end, so that each could come at every
 * later step, and each set of them gives other configurations. Most can be settled before the search.
 *
 * Below, x is optional, v the value it makes. An operation *needs* v when it is a read of v or a cas from v. A read or cas
 * that needs v stands, in every right order, behind an operation that makes v, with only reads of v between them (or, for
 * the value of the absent key, perhaps behind none).
 *
 * Rule 1: when no operation needs v and could stand behind x, x is left out. Proof: take a right order with x. What follows
 * right behind x sees v, so it is nothing that needs a value: it is a plain write, or the end. Without x the same follows:
 * a write does not look at the state, and no operation is nearer to another in time than before. An operation y could stand
 * behind x only when it is optional, or ended after x was invoked. This needs no unique values: only that nobody read this one.
 *
 * Rule 2: when x alone makes v, v is not the absent key's, and a required operation y needs v, then x is required too, and
 * must have its place before the end of y: x may be given the earliest end of these y. Proof: x stands before y in every
 * right order, so it has a point in time before y's, which is before y's end; conversely an order that is right with the
 * earlier end is right with the later one.
 *
 * Rule 3: a cas from a value to itself changes nothing: it is a read, and without meaning when its outcome is unknown.
 *
 * With values that are written once, rules 1 and 2 leave no optional operation, whatever their number was: one whose value
 * nobody needs goes by rule 1, one whose value is needed by a required operation by rule 2, and of those that only optional
 * ones need, the last of a chain goes by rule 1 and takes the others with it. */
#include "test/lin/search.h"

#include <stdlib.h>

struct fact {
	uint32_t makers;         /* operations that make the value */
	uint32_t optional_needs; /* optional ones that need it */
	uint32_t first_ret;      /* earliest and latest end of required ones that need it */
	uint32_t last_ret;
	bool needed;             /* there are such */
};

static void count_item(struct fact *facts, const struct lin_item *i)
{
	if (i->make != LIN_NONE)
		facts[i->make].makers++;
	if (i->need == LIN_NONE)
		return;
	if (i->optional) {
		facts[i->need].optional_needs++;
		return;
	}
	struct fact *f = &facts[i->need];

	f->first_ret = f->needed && f->first_ret < i->ret ? f->first_ret : i->ret;
	f->last_ret = f->needed && f->last_ret > i->ret ? f->last_ret : i->ret;
	f->needed = true;
}

enum fate { STAYS, GOES, REQUIRED };

static enum fate fate(const struct fact *facts, const struct lin_item *x)
{
	const struct fact *f = &facts[x->make];

	if (!f->optional_needs && (!f->needed || f->last_ret < x->inv))
		return GOES;
	return x->make != 0 && f->makers == 1 && f->needed ? REQUIRED : STAYS;
}

/* Settles what can be settled; false when nothing changed any more. `gone` marks what was left out. */
static bool settle(struct lin_item *items, uint32_t count, struct fact *facts, bool *gone, bool *possible)
{
	bool changed = false;

	/* From the back, since in a chain of cas each of them often comes later than what it needs. */
	for (uint32_t i = count; i-- > 0;) {
		struct lin_item *x = &items[i];
		enum fate what = !x->optional || gone[i] ? STAYS : fate(facts, x);

		if (what == STAYS)
			continue;
		changed = true;
		if (x->need != LIN_NONE)
			facts[x->need].optional_needs--;
		facts[x->make].makers--;
		if (what == GOES) {
			gone[i] = true;
			continue;
		}
		x->optional = false;
		x->ret = facts[x->make].first_ret;
		*possible = *possible && x->inv < x->ret;
		count_item(facts, x);
	}
	return changed;
}

int lin_reduce_register(struct lin_item *items, uint32_t *count, uint32_t value_count, uint32_t *ret_map, bool *ret_possible)
{
	struct fact *facts = calloc((size_t)value_count + 1, sizeof *facts);
	bool *gone = calloc((size_t)*count + 1, sizeof *gone);
	bool possible = true;
	uint32_t n = 0;

	if (!facts || !gone) {
		free(facts);
		free(gone);
		return WIRE_NOMEM;
	}
	for (uint32_t i = 0; i < *count; i++) {
		if (lin_is_cas(&items[i]) && items[i].need == items[i].make) {
			items[i].make = LIN_NONE;
			gone[i] = items[i].optional;
		}
		if (!gone[i])
			count_item(facts, &items[i]);
	}
	while (possible && settle(items, *count, facts, gone, &possible))
		continue;
	for (uint32_t i = 0; i < *count; i++) {
		if (gone[i])
			continue;
		items[n] = items[i];
		ret_map[n++] = i;
	}
	*count = n;
	*ret_possible = possible;
	free(facts);
	free(gone);
	return WIRE_OK;
}
