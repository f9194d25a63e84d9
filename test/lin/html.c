/* The page: a table of the keys, and an SVG picture for each violation. No script; tooltips are SVG titles. */
#include "test/lin/history.h"
#include "test/lin/picture.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define PICTURES_MAX 8u
#define LANE_HEIGHT 40.0
#define BAR_HEIGHT 32.0
#define POINT_DOWN 25.0 /* from a bar's top to its point */
#define TOP 62.0 /* above the lanes: times, and the store's states */
#define MARGIN 110.0

static const char style[] =
        "<style>\nbody{font:14px/1.45 system-ui,sans-serif;margin:24px;color:#1d2430;background:#fff}\n"
        "h1{font-size:20px;margin:0 0 4px}h2{font-size:16px;margin:28px 0 4px}p{margin:4px 0;max-width:76em}\n"
        "table{border-collapse:collapse;margin:12px 0}td,th{padding:3px 12px 3px 0;text-align:left;border-bottom:1px solid #dfe3ea}"
        "td.n,th.n{text-align:right}\n"
        ".ok{color:#1b7f4b}.bad{color:#c0262d;font-weight:600}.open{color:#9a6700;font-weight:600}\n"
        /* From right to left, so that it is the violation that one sees first. */
        ".scroll{direction:rtl;overflow-x:auto;border:1px solid #dfe3ea;border-radius:6px;margin:8px 0;padding:4px 0}\n"
        "svg{direction:ltr;display:block;margin-right:auto;font:12px ui-monospace,monospace}svg text{fill:#1d2430}\n"
        ".lane{stroke:#e7eaf0}.name{font-weight:600}.tick{stroke:#cdd3dd}.when{fill:#6b7484!important;font-size:11px}\n"
        ".fits{fill:#dcecff;stroke:#5b93d6}.stuck{fill:#ffd6d6;stroke:#c0262d;stroke-width:2.5}"
        ".pending{fill:#f3f4f6;stroke:#9aa3b2;stroke-dasharray:4 3}.conflict{stroke:#d9730d;stroke-width:2.5}\n"
        "g.op:hover rect{filter:brightness(.93)}.way{fill:none;stroke:#1b7f4b;stroke-width:1;opacity:.45}.point{fill:#1b7f4b}"
        ".place{fill:#1b7f4b!important;font-size:10px}\n"
        ".cross{stroke:#c0262d;stroke-width:2.5}.end{stroke:#c0262d;stroke-dasharray:6 4}.endname{fill:#c0262d!important}\n"
        ".break{fill:#fff;stroke:none}.zigzag{fill:none;stroke:#9aa3b2}.state{fill:#e9f6ee;stroke:#9fd0b2}"
        ".key span{display:inline-block;margin-right:18px}.key svg{display:inline-block;vertical-align:middle;margin-right:6px}\n"
        "code{font:12px ui-monospace,monospace}li code{white-space:pre-wrap}\n</style>\n";

static void put_value(const struct lin_history *h, lin_value v, size_t items_max, struct wire_buf *out)
{
	struct wire_buf b = WIRE_BUF_INIT;

	lin_value_put(h, v, items_max, &b);
	lin_put_escaped(out, b.data, b.len);
	out->failed |= b.failed;
	wire_buf_free(&b);
}

static void put_op(const struct lin_history *h, uint32_t i, struct wire_buf *out)
{
	struct wire_buf b = WIRE_BUF_INIT;

	lin_op_put(h, i, &b);
	lin_put_escaped(out, b.data, b.len);
	out->failed |= b.failed;
	wire_buf_free(&b);
}

static void put_duration(const struct lin_history *h, double d, struct wire_buf *b)
{
	if (!lin_has_times(h))
		lin_putf(b, "%.0f events", d);
	else if (d < 1e3)
		lin_putf(b, "%.0f ns", d);
	else if (d < 1e6)
		lin_putf(b, "%.4g &micro;s", d / 1e3);
	else if (d < 1e9)
		lin_putf(b, "%.5g ms", d / 1e6);
	else
		lin_putf(b, "%.6g s", d / 1e9);
}

/* Ticks are read against each other, so they have one unit and all digits. */
static void put_when(const struct lin_history *h, int64_t when, struct wire_buf *b)
{
	if (!lin_has_times(h))
		lin_putf(b, "event %" PRId64, when);
	else
		lin_putf(b, "%.3f ms", (double)when / 1e6);
}

/* The store's state when the operation of that place in the order has been executed: of a list, its length. */
struct states {
	const struct lin_history *h;
	const struct lin_key_report *k;
	size_t done;
	lin_value value;
	size_t length;
};

static void go_to(struct states *s, uint32_t place)
{
	for (; s->done <= place; s->done++) {
		const struct lin_op *op = lin_op_at(s->h, s->k->order[s->done]);

		if (op->kind == LIN_APPEND)
			s->length++;
		if (op->kind != LIN_READ)
			s->value = op->value;
	}
}

static void put_state(const struct states *s, struct wire_buf *b)
{
	if (s->k->model == LIN_LIST && s->length)
		lin_putf(b, "%zu: &hellip;", s->length);
	if (s->k->model == LIN_LIST && !s->length)
		lin_putf(b, "[]");
	else
		put_value(s->h, s->value, 4, b);
}

static void put_tooltip(const struct lin_history *h, const struct lin_bar *bar, const struct states *s, struct wire_buf *b)
{
	const struct lin_op *op = lin_op_at(h, bar->op);

	lin_putf(b, "<title>");
	put_op(h, bar->op, b);
	lin_putf(b, "\nprocess ");
	put_value(h, op->process, 0, b);
	lin_putf(b, ", invoked in line %zu", op->invoke_line);
	if (op->end_line)
		lin_putf(b, ", ended in line %zu", op->end_line);
	if (lin_has_times(h))
		lin_putf(b, "\ninvoked at %" PRId64 " ns", op->invoked_ns);
	if (lin_has_times(h) && op->end_line) {
		lin_putf(b, ", took ");
		put_duration(h, (double)(op->ended_ns - op->invoked_ns), b);
	}
	lin_putf(b, "\n%s", op->outcome == LIN_OK ? "ok" : "outcome unknown: it may have taken effect at any time, or never");
	if (bar->mark == LIN_FITS) {
		lin_putf(b, "\nnumber %u in the order; the store then has ", bar->place + 1);
		put_state(s, b);
	} else if (bar->mark == LIN_STUCK) {
		lin_putf(b, "\nno order has a place for it");
	} else {
		lin_putf(b, "\nnobody saw anything of it up to the end of the linearizable prefix");
	}
	if (bar->conflict)
		lin_putf(b, "\npart of the conflict");
	lin_putf(b, "</title>");
}

static double lane_top(uint32_t lane)
{
	return TOP + lane * LANE_HEIGHT + (LANE_HEIGHT - BAR_HEIGHT) / 2;
}

static void put_bar(const struct lin_history *h, const struct lin_bar *bar, const struct states *s, struct wire_buf *b)
{
	static const char *const classes[] = { "fits", "stuck", "pending" };
	double x = MARGIN + bar->left, y = lane_top(bar->lane), w = bar->right - bar->left;

	lin_putf(b, "<g class=\"op\">");
	put_tooltip(h, bar, s, b);
	/* What goes on behind the picture has no right edge. */
	if (bar->open)
		lin_putf(b, "<path class=\"%s%s\" d=\"M%.1f %.1fh%.1fl7 %.1fl-7 %.1fh%.1fz\"/>", classes[bar->mark],
		         bar->conflict && bar->mark != LIN_STUCK ? " conflict" : "", x, y, w - 7, BAR_HEIGHT / 2, BAR_HEIGHT / 2, 7 - w);
	else
		lin_putf(b, "<rect class=\"%s%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"3\"/>", classes[bar->mark],
		         bar->conflict && bar->mark != LIN_STUCK ? " conflict" : "", x, y, w, BAR_HEIGHT);
	lin_putf(b, "<text x=\"%.1f\" y=\"%.1f\">", x + 5, y + 14);
	lin_put_escaped(b, bar->label, strlen(bar->label));
	lin_putf(b, "%s</text>", lin_op_at(h, bar->op)->outcome == LIN_OK ? "" : " ?");
	if (bar->mark == LIN_STUCK)
		lin_putf(b, "<path class=\"cross\" d=\"M%.1f %.1fl10 10m0 -10l-10 10\"/>", x + w - 16, y + 7);
	lin_putf(b, "</g>\n");
}

/* The operation with the lowest place above `above`, or NULL. */
static const struct lin_bar *next_in_order(const struct lin_picture *p, int64_t above)
{
	const struct lin_bar *found = NULL;

	for (size_t n = 0; n < p->bar_count; n++)
		if (p->bars[n].mark == LIN_FITS && p->bars[n].place > above && (!found || p->bars[n].place < found->place))
			found = &p->bars[n];
	return found;
}

/* The line through the points, with their numbers, and above it what the store had between them. */
static void put_order(const struct lin_history *h, const struct lin_key_report *k, const struct lin_picture *p, struct wire_buf *b)
{
	struct states s = { .h = h, .k = k };
	const struct lin_bar *bar = next_in_order(p, -1), *next;

	lin_putf(b, "<polyline class=\"way\" points=\"");
	for (next = bar; next; next = next_in_order(p, next->place))
		lin_putf(b, "%.1f,%.1f ", MARGIN + next->point, lane_top(next->lane) + POINT_DOWN);
	lin_putf(b, "\"/>\n");
	for (double from = -1; bar; bar = next) {
		const struct lin_op *op = lin_op_at(h, bar->op);
		double right;

		next = next_in_order(p, bar->place);
		go_to(&s, bar->place);
		lin_putf(b, "<circle class=\"point\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/><text class=\"place\" x=\"%.1f\" y=\"%.1f\">%u</text>\n",
		         MARGIN + bar->point, lane_top(bar->lane) + POINT_DOWN, MARGIN + bar->point + 5,
		         lane_top(bar->lane) + POINT_DOWN + 3, bar->place + 1);
		if (from < 0 || op->kind != LIN_READ)
			from = bar->point;
		/* A state lasts until the next write; what is not shown in between may have changed it as well. */
		if (next && next->place == bar->place + 1 && lin_op_at(h, next->op)->kind == LIN_READ)
			continue;
		right = next ? next->point : p->end;
		lin_putf(b, "<rect class=\"state\" x=\"%.1f\" y=\"26\" width=\"%.1f\" height=\"20\"><title>the store has ", MARGIN + from, right - from);
		put_state(&s, b);
		lin_putf(b, "</title></rect><svg x=\"%.1f\" y=\"26\" width=\"%.1f\" height=\"20\"><text x=\"3\" y=\"14\">", MARGIN + from, right - from);
		put_state(&s, b);
		lin_putf(b, "</text></svg>\n");
		from = -1;
	}
}

static void put_ground(const struct lin_history *h, const struct lin_picture *p, double height, struct wire_buf *b)
{
	for (size_t i = 0; i < p->tick_count; i++) {
		double x = MARGIN + p->ticks[i].at;

		lin_putf(b, "<path class=\"tick\" d=\"M%.1f 20V%.1f\"/><text class=\"when\" x=\"%.1f\" y=\"14\">", x, height - 18, x);
		put_when(h, p->ticks[i].when, b);
		lin_putf(b, "</text>\n");
	}
	for (size_t lane = 0; lane < p->lane_count; lane++) {
		const struct lin_op *op = lin_op_at(h, p->lanes[lane]);
		double y = TOP + (double)lane * LANE_HEIGHT + LANE_HEIGHT / 2;

		lin_putf(b, "<path class=\"lane\" d=\"M%.1f %.1fH%.1f\"/><svg x=\"0\" y=\"%.1f\" width=\"%.1f\" height=\"20\">"
		            "<text class=\"name\" x=\"8\" y=\"14\"><title>process ",
		         MARGIN, y, MARGIN + p->width, y - 10, MARGIN - 6);
		put_value(h, op->process, 0, b);
		lin_putf(b, "</title>");
		put_value(h, op->process, 0, b);
		lin_putf(b, "%s</text></svg>\n", op->session ? "&prime;" : "");
	}
	lin_putf(b, "<text class=\"name\" x=\"8\" y=\"40\">store</text>\n");
}

static void put_front(const struct lin_history *h, const struct lin_picture *p, double height, struct wire_buf *b)
{
	for (size_t i = 0; i < p->break_count; i++) {
		double x = MARGIN + p->breaks[i].at;

		lin_putf(b, "<g><title>");
		put_duration(h, p->breaks[i].duration, b);
		lin_putf(b, " not drawn to scale</title><rect class=\"break\" x=\"%.1f\" y=\"18\" width=\"8\" height=\"%.1f\"/>", x - 4, height - 34);
		for (int side = -4; side <= 4; side += 8) {
			lin_putf(b, "<path class=\"zigzag\" d=\"M%.1f 18", x + side);
			for (double y = 18; y + 8 < height - 16; y += 8)
				lin_putf(b, "l%s 8", (int)((y - 18) / 8) % 2 ? "-3" : "3");
			lin_putf(b, "\"/>");
		}
		lin_putf(b, "<text class=\"when\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">", x, height - 4);
		put_duration(h, p->breaks[i].duration, b);
		lin_putf(b, "</text></g>\n");
	}
	lin_putf(b, "<path class=\"end\" d=\"M%.1f 20V%.1f\"/><text class=\"endname\" x=\"%.1f\" y=\"%.1f\">linearizable up to here</text>\n",
	         MARGIN + p->end, height - 18, fmax(4, MARGIN + p->end - 168), height - 20);
}

static void put_list(const struct lin_history *h, const struct lin_key_report *k, struct wire_buf *b)
{
	if (k->conflict_count < 2) {
		lin_putf(b, "<p>%s</p>\n", k->conflict_count ? "It cannot have happened as told, whatever is believed of the others."
		                                             : "Limits ended the search for a smaller conflict.");
		return;
	}
	lin_putf(b, "<p>These cannot all have happened as told, whatever is believed of the others:</p>\n<ul>\n");
	for (size_t i = 0; i < k->conflict_count; i++) {
		const struct lin_op *op = lin_op_at(h, k->conflict[i]);

		lin_putf(b, "<li><code>");
		put_op(h, k->conflict[i], b);
		lin_putf(b, "</code>, process ");
		put_value(h, op->process, 0, b);
		lin_putf(b, ", lines %zu to %zu</li>\n", op->invoke_line, op->end_line);
	}
	lin_putf(b, "</ul>\n");
}

static void put_picture(const struct lin_history *h, const struct lin_key_report *k, struct wire_buf *b)
{
	struct lin_picture p;
	struct states s = { .h = h, .k = k };
	double height;

	if (!lin_picture_make(&p, h, k)) {
		lin_picture_free(&p);
		b->failed = true;
		return;
	}
	lin_putf(b, "<h2>Key ");
	put_value(h, k->key, 0, b);
	lin_putf(b, "</h2>\n<p>With the %zu operations that had ended ok before, no order has a place for <code>", k->prefix_ok);
	put_op(h, k->stuck, b);
	lin_putf(b, "</code> of process ");
	put_value(h, lin_op_at(h, k->stuck)->process, 0, b);
	lin_putf(b, " (line %zu).%s</p>\n", lin_op_at(h, k->stuck)->end_line,
	         k->exact ? "" : " Limits ended the search: an earlier operation may be to blame.");
	put_list(h, k, b);
	height = TOP + (double)p.lane_count * LANE_HEIGHT + 30;
	lin_putf(b, "<div class=\"scroll\"><svg width=\"%.0f\" height=\"%.0f\">\n", MARGIN + p.width + 10, height);
	put_ground(h, &p, height, b);
	for (size_t n = 0; n < p.bar_count; n++) {
		if (p.bars[n].mark == LIN_FITS) {
			s = (struct states){ .h = h, .k = k };
			go_to(&s, p.bars[n].place);
		}
		put_bar(h, &p.bars[n], &s, b);
	}
	put_order(h, k, &p, b);
	put_front(h, &p, height, b);
	lin_putf(b, "</svg></div>\n");
	if (p.left_out)
		lin_putf(b, "<p>Not shown: %zu other%s of the key.</p>\n", p.left_out, p.left_out == 1 ? "" : "s");
	lin_picture_free(&p);
}

static void put_legend(struct wire_buf *b)
{
	static const struct {
		const char *class, *text;
	} entries[] = { { "fits", "has its place in the order: the dot, with its number" },
		        { "stuck", "has no place" },
		        { "conflict fits", "in conflict with that" },
		        { "pending", "not ended then, or of unknown outcome, and nobody saw it" } };

	lin_putf(b, "<p class=\"key\">");
	for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
		lin_putf(b, "<span><svg width=\"30\" height=\"16\"><rect class=\"%s\" x=\"2\" y=\"2\" width=\"26\" height=\"12\" rx=\"3\"/></svg>%s</span>",
		         entries[i].class, entries[i].text);
	lin_putf(b, "<span>? outcome unknown</span></p>\n<p>Time goes to the right, not to scale; each lane is a process. Above, what the "
	            "store had between the dots. Point at a bar for more.</p>\n");
}

static void put_keys(const struct lin_history *h, const struct lin_report *r, struct wire_buf *b)
{
	static const char *const classes[] = { "ok", "bad", "open" };

	lin_putf(b, "<table><tr><th>key</th><th>model</th><th class=\"n\">operations</th><th class=\"n\">ok</th><th class=\"n\">fail</th>"
	            "<th class=\"n\">unknown</th><th class=\"n\">states</th><th>verdict</th></tr>\n");
	for (size_t i = 0; i < r->key_count; i++) {
		const struct lin_key_report *k = &r->keys[i];

		lin_putf(b, "<tr><td><code>");
		put_value(h, k->key, 0, b);
		lin_putf(b, "</code></td><td>%s</td><td class=\"n\">%zu</td><td class=\"n\">%zu</td><td class=\"n\">%zu</td><td class=\"n\">%zu</td>"
		            "<td class=\"n\">%" PRIu64 "</td><td class=\"%s\">%s</td></tr>\n",
		         k->model == LIN_LIST ? "list" : "register", k->ops, k->ok, k->fail, k->info, k->states, classes[k->verdict],
		         lin_verdict_text(k->verdict));
	}
	lin_putf(b, "</table>\n");
}

void lin_put_html(const struct lin_history *h, const struct lin_report *r, const char *title, struct wire_buf *b)
{
	size_t bad = 0;

	for (size_t i = 0; i < r->key_count; i++)
		bad += r->keys[i].verdict == LIN_VIOLATION;
	lin_putf(b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
	lin_put_escaped(b, title, strlen(title));
	wire_put_bytes(b, "</title>\n", 9);
	wire_put_bytes(b, style, sizeof style - 1);
	lin_putf(b, "</head><body>\n<h1>");
	lin_put_escaped(b, title, strlen(title));
	lin_putf(b, ": %s</h1>\n", lin_verdict_text(r->verdict));
	lin_putf(b, "<p>%zu operations on %zu keys.%s</p>\n", lin_op_count(h), r->key_count,
	         r->verdict == LIN_UNDECIDED ? " Limits ended the search: nothing is known of the keys that are undecided." : "");
	if (bad)
		put_legend(b);
	for (size_t i = 0, shown = 0; i < r->key_count && shown < PICTURES_MAX; i++) {
		if (r->keys[i].verdict != LIN_VIOLATION)
			continue;
		put_picture(h, &r->keys[i], b);
		shown++;
	}
	if (bad > PICTURES_MAX)
		lin_putf(b, "<p>%zu more keys have violations.</p>\n", bad - PICTURES_MAX);
	lin_putf(b, "<h2>Keys</h2>\n");
	put_keys(h, r, b);
	lin_putf(b, "</body></html>\n");
}
