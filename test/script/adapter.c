/* raft-adapter: lines in, answers out. README.md describes the commands for those who use them. */
#include "test/script/adapter.h"
#include <stdlib.h>
#include <string.h>

bool line_wrong(struct line *l, const char *what, const char *arg)
{
	if (!l->wrong)
		show_error("%s%s%s", what, arg ? ": " : "", arg ? arg : "");
	l->wrong = true;
	return false;
}

bool line_number(const char *s, uint64_t *ret_v)
{
	uint64_t v = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || v > 100000000000000u)
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	*ret_v = v;
	return true;
}

uint64_t line_id(struct line *l)
{
	uint64_t id = 0;

	if (l->at >= l->n)
		line_wrong(l, "a node's number is missing", NULL);
	else if (!line_number(l->arg[l->at], &id) || !id)
		line_wrong(l, "not a node's number", l->arg[l->at]);
	l->at++;
	return id;
}

struct node *line_node(struct line *l)
{
	uint64_t id = line_id(l);
	struct node *n = l->wrong ? NULL : node_find(id);

	if (!n && !l->wrong) {
		show_error("no node %llu", (unsigned long long)id);
		l->wrong = true;
	}
	return n;
}

struct node *line_live(struct line *l)
{
	struct node *n = line_node(l);

	if (n && !n->raft) {
		show_error("node %llu is down", (unsigned long long)n->id);
		l->wrong = true;
		return NULL;
	}
	return n;
}

uint64_t line_count(struct line *l, uint64_t standard)
{
	uint64_t v = standard;

	if (l->at < l->n && !strchr(l->arg[l->at], '=') && !line_number(l->arg[l->at++], &v))
		line_wrong(l, "not a number", l->arg[l->at - 1]);
	return v;
}

/* The value of the next word when it is key=value; NULL otherwise. */
char *line_option(struct line *l, const char *key)
{
	size_t n = strlen(key);

	if (l->at >= l->n || strncmp(l->arg[l->at], key, n) || l->arg[l->at][n] != '=')
		return NULL;
	return l->arg[l->at++] + n + 1;
}

bool line_ended(struct line *l)
{
	if (l->at < l->n)
		line_wrong(l, "not understood", l->arg[l->at]);
	return !l->wrong;
}

/* Numbers with commas between. */
uint32_t line_ids(struct line *l, char *s, uint64_t *ret_ids, uint32_t max)
{
	uint32_t n = 0;
	char *rest = NULL;

	for (char *w = strtok_r(s, ",", &rest); w; w = strtok_r(NULL, ",", &rest)) {
		if (n == max || !line_number(w, &ret_ids[n]) || !ret_ids[n]) {
			line_wrong(l, "not a list of at most 32 nodes' numbers", w);
			return 0;
		}
		n++;
	}
	return n;
}

bool line_flag(struct line *l, const char *v)
{
	if (strcmp(v, "0") && strcmp(v, "1"))
		line_wrong(l, "neither 0 nor 1", v);
	return !strcmp(v, "1");
}

void line_option_number(struct line *l, const char *v, uint64_t *ret)
{
	if (!line_number(v, ret))
		line_wrong(l, "not a number", v);
}

static void cmd_echo(struct line *l)
{
	const char *s = l->at < l->n ? l->arg[l->at++] : "";

	if (!line_ended(l))
		return;
	printf("{\"echo\":");
	show_text(s, strlen(s));
	puts("}");
}

static const struct { const char *name; void (*run)(struct line *); } commands[] = {
	{ "new", cmd_new }, { "tick", cmd_tick }, { "timeout", cmd_timeout }, { "propose", cmd_propose },
	{ "conf", cmd_conf }, { "queue", cmd_queue }, { "deliver", cmd_deliver }, { "drop", cmd_drop },
	{ "settle", cmd_settle }, { "persist", cmd_persist }, { "restart", cmd_restart }, { "compact", cmd_compact },
	{ "unreachable", cmd_unreachable }, { "reachable", cmd_reachable }, { "transfer", cmd_transfer }, { "read", cmd_read },
	{ "state", cmd_state }, { "log", cmd_log }, { "applied", cmd_applied }, { "echo", cmd_echo },
};

static void obey(char *text)
{
	struct line l = { .at = 1 };
	char *rest = NULL;

	if (!valid_utf8(text)) {
		show_error("the line is not UTF-8");
		return;
	}
	for (char *w = strtok_r(text, " \t\r\n", &rest); w; w = strtok_r(NULL, " \t\r\n", &rest)) {
		if (l.n == ARGS_MAX) {
			show_error("too many words");
			return;
		}
		l.arg[l.n++] = w;
	}
	if (!l.n) {
		show_error("an empty line");
		return;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, l.arg[0]))
			continue;
		commands[i].run(&l);
		return;
	}
	show_error("unknown command: %s", l.arg[0]);
}

int main(void)
{
	char *text = NULL;
	size_t cap = 0;
	ssize_t len;

	while ((len = getline(&text, &cap, stdin)) >= 0) {
		/* A zero byte would hide what follows it. */
		if (memchr(text, 0, (size_t)len))
			show_error("the line has a zero byte");
		else
			obey(text);
		if (world.broken[0])
			fprintf(stderr, "raft-adapter: %s\n", world.broken);
		world.broken[0] = 0;
		fflush(stdout);
	}
	free(text);
	for (size_t i = 0; i < world.n_nodes; i++)
		node_free(world.nodes[i]);
	net_forget();
	return world.failed ? 3 : 0;
}
