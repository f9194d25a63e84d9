/* What the journal knows of the log in memory: 12 bytes an entry, runs of terms, configurations, hard state. */
#include "raft/journal_impl.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

void raft_jrn_log_free(struct raft_jrn_log *l)
{
	free(l->at);
	free(l->runs);
	free(l->configs);
	free(l->holes);
	*l = (struct raft_jrn_log){ 0 };
}

bool raft_jrn_grow(void **mem, size_t *cap, size_t n, size_t more, size_t size)
{
	size_t want = *cap ? *cap : 16;

	if (n + more <= *cap)
		return true;
	while (want < n + more)
		want *= 2;
	void *p = realloc(*mem, want * size);
	if (!p)
		return false;
	*mem = p;
	*cap = want;
	return true;
}

bool raft_jrn_log_reserve(struct raft_jrn_log *l, size_t n, size_t n_configs)
{
	/* Half empty at the front: move down instead of growing without end. */
	if (l->head && l->head + l->n + n > l->cap && l->head >= l->n) {
		memmove(l->at, l->at + l->head, l->n * sizeof(*l->at));
		l->head = 0;
	}
	return raft_jrn_grow((void **)&l->at, &l->cap, l->head + l->n, n, sizeof(*l->at)) &&
	       raft_jrn_grow((void **)&l->runs, &l->cap_runs, l->n_runs, n, sizeof(*l->runs)) &&
	       raft_jrn_grow((void **)&l->configs, &l->cap_configs, l->n_configs, n_configs, sizeof(*l->configs));
}

void raft_jrn_log_append(struct raft_jrn_log *l, uint64_t term, struct raft_jrn_at at, const struct raft_config *config)
{
	uint64_t index = raft_jrn_log_last(l) + 1;

	assert(l->head + l->n < l->cap);
	l->at[l->head + l->n++] = at;
	if (!l->n_runs || l->runs[l->n_runs - 1].term != term) {
		assert(l->n_runs < l->cap_runs);
		l->runs[l->n_runs++] = (struct raft_jrn_run){ .first = index, .term = term };
	}
	if (config) {
		assert(l->n_configs < l->cap_configs);
		l->configs[l->n_configs++] = (struct raft_log_config){ .index = index, .config = *config };
	}
	/* An entry of a term proves that the term began; its hard state may not have been written yet. */
	if (term > l->term) {
		l->term = term;
		l->vote = 0;
	}
}

void raft_jrn_log_truncate(struct raft_jrn_log *l, uint64_t from)
{
	assert(from > l->base_index && from <= raft_jrn_log_last(l));
	l->n = (size_t)(from - 1 - l->base_index);
	while (l->n_runs && l->runs[l->n_runs - 1].first >= from)
		l->n_runs--;
	while (l->n_configs && l->configs[l->n_configs - 1].index >= from)
		l->n_configs--;
	while (l->n_holes && l->holes[l->n_holes - 1].index >= from)
		l->n_holes--;
}

struct raft_jrn_hole *raft_jrn_log_hole(const struct raft_jrn_log *l, uint64_t index)
{
	for (size_t i = 0; i < l->n_holes; i++)
		if (l->holes[i].index == index)
			return &l->holes[i];
	return NULL;
}

bool raft_jrn_log_add_hole(struct raft_jrn_log *l, const struct raft_jrn_hole *h)
{
	if (!raft_jrn_grow((void **)&l->holes, &l->cap_holes, l->n_holes, 1, sizeof(*l->holes)))
		return false;
	/* A fill may be damaged after later entries were. */
	size_t k = l->n_holes++;
	for (; k && l->holes[k - 1].index > h->index; k--)
		l->holes[k] = l->holes[k - 1];
	l->holes[k] = *h;
	return true;
}

void raft_jrn_log_fill(struct raft_jrn_log *l, struct raft_jrn_hole *h, struct raft_jrn_at at)
{
	size_t k = (size_t)(h - l->holes);

	l->at[l->head + (size_t)(h->index - l->base_index - 1)] = at;
	memmove(l->holes + k, l->holes + k + 1, (--l->n_holes - k) * sizeof(*l->holes));
}

void raft_jrn_log_rebase(struct raft_jrn_log *l, uint64_t base)
{
	uint64_t term = raft_jrn_log_term(l, base);
	struct raft_config config = *raft_jrn_log_config(l, base);
	size_t drop = (size_t)(base - l->base_index), k = 0;

	l->head += drop;
	l->n -= drop;
	while (k < l->n_runs && l->runs[k].first <= base)
		k++;
	/* The run that reaches over the base stays, cut. */
	if (k && l->n && (k == l->n_runs || l->runs[k].first > base + 1)) {
		k--;
		l->runs[k].first = base + 1;
	}
	memmove(l->runs, l->runs + k, (l->n_runs - k) * sizeof(*l->runs));
	l->n_runs -= k;
	for (k = 0; k < l->n_configs && l->configs[k].index <= base;)
		k++;
	if (k)
		memmove(l->configs, l->configs + k, (l->n_configs - k) * sizeof(*l->configs));
	l->n_configs -= k;
	for (k = 0; k < l->n_holes && l->holes[k].index <= base;)
		k++;
	if (k)
		memmove(l->holes, l->holes + k, (l->n_holes - k) * sizeof(*l->holes));
	l->n_holes -= k;
	l->base_index = base;
	l->base_term = term;
	l->base_config = config;
}

uint64_t raft_jrn_log_term(const struct raft_jrn_log *l, uint64_t index)
{
	assert(index >= l->base_index && index <= raft_jrn_log_last(l));
	if (index == l->base_index)
		return l->base_term;
	size_t k = l->n_runs;
	while (k > 1 && l->runs[k - 1].first > index)
		k--;
	return l->runs[k - 1].term;
}

const struct raft_config *raft_jrn_log_config(const struct raft_jrn_log *l, uint64_t index)
{
	for (size_t k = l->n_configs; k-- > 0;)
		if (l->configs[k].index <= index)
			return &l->configs[k].config;
	return &l->base_config;
}

void raft_jrn_log_published(struct raft_jrn_log *l, const struct raft_journal_publication *p)
{
	if (l->n_pubs == RAFT_JRN_PUBS)
		memmove(l->pubs, l->pubs + 1, --l->n_pubs * sizeof(*l->pubs));
	l->pubs[l->n_pubs++] = *p;
}
