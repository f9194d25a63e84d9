/* The picture of a history around a violation: which operations are shown, and where. Drawing is html.c's. */
#ifndef TEST_LIN_PICTURE_H
#define TEST_LIN_PICTURE_H

#include "test/lin/lin.h"

enum lin_mark_kind {
	LIN_FITS,   /* in the order */
	LIN_STUCK,  /* has no place */
	LIN_PENDING /* had not ended when the prefix did, and nothing of it was seen; or its outcome is unknown */
};

struct lin_bar {
	uint32_t op;
	uint32_t lane;
	enum lin_mark_kind mark;
	bool conflict, open; /* open: it has no end in the picture */
	uint32_t place;      /* LIN_FITS: in the whole order, from 0 */
	double left, right;  /* in pixels */
	double point;        /* LIN_FITS: where it took effect, if it is as the order says */
	char label[64];
};

/* Where time goes on without anything that is shown. */
struct lin_break {
	double at;
	double duration; /* nanoseconds, or events */
};

struct lin_tick {
	double at;
	int64_t when; /* nanoseconds since the first event of the history, or the number of an event */
};

struct lin_picture {
	struct lin_bar *bars; /* by left end */
	size_t bar_count;
	uint32_t *lanes;      /* one operation of each, which names its process */
	size_t lane_count;
	struct lin_break *breaks;
	size_t break_count;
	struct lin_tick *ticks;
	size_t tick_count;
	double width;
	double end; /* of the prefix */
	size_t left_out; /* operations of the key that are not shown, failed ones aside */
};

/* False when memory fails; lin_picture_free then too. */
bool lin_picture_make(struct lin_picture *p, const struct lin_history *h, const struct lin_key_report *k);
void lin_picture_free(struct lin_picture *p);

#endif
