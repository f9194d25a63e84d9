/* The command `new`: a node from a description of its members and its log. */
#include "test/script/adapter.h"
#include "wire/hash.h"
#include <stdlib.h>
#include <string.h>

static void add_members(struct line *l, struct raft_config *c, char *list, uint8_t flags)
{
	uint64_t ids[RAFT_MEMBERS_MAX];
	uint32_t n = line_ids(l, list, ids, RAFT_MEMBERS_MAX);

	for (uint32_t i = 0; i < n && !l->wrong; i++) {
		if (c->n == RAFT_MEMBERS_MAX || raft_config_find(c, ids[i]))
			line_wrong(l, "a member is named twice, or there are more than 32", NULL);
		else
			c->m[c->n++] = (struct raft_member){ .id = ids[i], .flags = flags, .priority = RAFT_PRIORITY };
	}
}

static void add_log(struct line *l, struct store *s, char *text)
{
	char *rest = NULL;
	uint64_t term = s->base_term;

	for (char *w = strtok_r(text, ",", &rest); w && !l->wrong; w = strtok_r(NULL, ",", &rest)) {
		char *value = strchr(w, ':');
		uint64_t t = 0;
		if (value)
			*value++ = 0;
		if (!line_number(w, &t) || !t || t < term) {
			line_wrong(l, "log=: not a term, or one below that of the entry before", w);
			return;
		}
		term = t;
		size_t n = value ? strlen(value) : 0;
		entries_add(&s->log, &(struct wire_entry){ .index = s->base_index + s->log.n + 1, .term = t, .kind = WIRE_ENTRY_DATA,
			.size = (uint32_t)n, .sum = wire_hash(value ? value : "", n, 0), .data = (const uint8_t *)value });
	}
	if (s->term < term)
		s->term = term;
}

static void snap_option(struct line *l, struct store *s, char *v)
{
	char *slash = strchr(v, '/');

	if (slash)
		*slash++ = 0;
	if (!slash || !line_number(v, &s->base_index) || !line_number(slash, &s->base_term) || !s->base_index != !s->base_term)
		line_wrong(l, "snap=: not INDEX/TERM", v);
	s->term = s->base_term;
}

static void new_options(struct line *l, struct store *s, struct options *o)
{
	char *v, *log = NULL;
	uint64_t term = 0, window = 0, append = 0, catch_up = 0;

	while (l->at < l->n && !l->wrong) {
		if ((v = line_option(l, "voters")))
			add_members(l, &s->base_config, v, RAFT_VOTER);
		else if ((v = line_option(l, "learners")))
			add_members(l, &s->base_config, v, RAFT_LEARNER);
		else if ((v = line_option(l, "witnesses")))
			add_members(l, &s->base_config, v, RAFT_VOTER | RAFT_WITNESS);
		else if ((v = line_option(l, "log")))
			log = v;
		else if ((v = line_option(l, "snap")))
			snap_option(l, s, v);
		else if ((v = line_option(l, "prevote")))
			o->no_prevote = !line_flag(l, v);
		else if ((v = line_option(l, "checkquorum")))
			o->no_check_quorum = !line_flag(l, v);
		else if ((v = line_option(l, "lease")))
			o->lease = line_flag(l, v);
		else if ((v = line_option(l, "term")))
			line_option_number(l, v, &term);
		else if ((v = line_option(l, "vote")))
			line_option_number(l, v, &s->vote);
		else if ((v = line_option(l, "window")))
			line_option_number(l, v, &window);
		else if ((v = line_option(l, "append")))
			line_option_number(l, v, &append);
		else if ((v = line_option(l, "catchup")))
			line_option_number(l, v, &catch_up);
		else
			line_wrong(l, "not understood", l->arg[l->at]);
	}
	if (!l->wrong && log)
		add_log(l, s, log);
	if (!l->wrong && (window > 1024 || append > WIRE_MSG_MAX || catch_up > UINT32_MAX || (term && term < s->term)))
		line_wrong(l, "window= is above 1024, append= above 8 MiB, catchup= above 4 GiB, or term= below a term of the log", NULL);
	o->window_msgs = (uint32_t)window;
	o->append_bytes = (uint32_t)append;
	o->catch_up_bytes = (uint32_t)catch_up;
	if (s->term < term)
		s->term = term;
}

/* A term that has entries had a leader, so that a majority was in that term: nodes that are made before anything has
 * happened are all in the latest term of any of their logs. Else two leaders of one term could be made (figure 7). */
static void raise_terms(uint64_t term)
{
	for (size_t i = 0; i < world.n_nodes && !world.begun; i++) {
		struct node *n = world.nodes[i];
		if (n->disk.term >= term)
			continue;
		n->disk.term = term;
		n->disk.vote = 0;
		node_stop(n);
		node_start(n);
	}
}

static uint64_t known_term(void)
{
	uint64_t term = 0;

	for (size_t i = 0; i < world.n_nodes && !world.begun; i++)
		if (world.nodes[i]->disk.term > term)
			term = world.nodes[i]->disk.term;
	return term;
}

void cmd_new(struct line *l)
{
	struct store s = { 0 };
	struct options o = { 0 };
	uint64_t id = line_id(l), term = known_term();

	if (!l->wrong && node_find(id))
		line_wrong(l, "there is such a node already", l->arg[1]);
	if (!l->wrong && world.n_nodes == NODES_MAX)
		line_wrong(l, "there are 64 nodes already", NULL);
	if (!l->wrong)
		new_options(l, &s, &o);
	s.base_config.level = s.base_config.n ? RAFT_LEVEL : 0;
	if (l->wrong) {
		entries_free(&s.log);
		return;
	}
	if (s.term < term)
		s.term = term;
	struct node *n = node_new(id, &s, &o);
	if (!node_start(n)) {
		show_error("%s", world.broken);
		world.broken[0] = 0;
		node_free(n);
		return;
	}
	world.nodes[world.n_nodes++] = n;
	raise_terms(s.term);
	show_ok();
}
