/* The deep search: a stack of forks. What was remembered before a step back is a dead end. */
#include "test/lin/history.h"
#include "test/lin/register.h"

#include <stdlib.h>

struct fork {
	size_t steps;       /* taken before */
	size_t choice, end; /* the next one to try, in `choices`, and behind its last */
};

struct stack {
	struct fork *forks;
	size_t count, cap;
};

/* Back to the last fork that has a choice left, and takes it. False when there is none. */
static bool step_back(struct lin_register *s, struct stack *stack)
{
	while (stack->count) {
		struct fork *f = &stack->forks[stack->count - 1];

		while (s->step_count > f->steps)
			lin_register_untake(s);
		if (f->choice == f->end) {
			stack->count--;
			continue;
		}
		s->choice_count = f->end;
		if (lin_register_apply(s, s->choices[f->choice++].item))
			return true;
	}
	return false;
}

static enum lin_outcome go(struct lin_register *s, struct stack *stack)
{
	for (;;) {
		size_t first = s->choice_count;
		enum lin_outcome o = lin_register_advance(s, stack->count ? LIN_REMEMBER_ALL : LIN_REMEMBER_FORKS);

		if (o == LIN_FORK) {
			if (!lin_grow(&stack->forks, &stack->cap, stack->count, sizeof *stack->forks))
				return LIN_NOMEM;
			stack->forks[stack->count++] = (struct fork){ s->step_count, first, s->choice_count };
		} else if (o != LIN_DEAD_END) {
			return o;
		}
		if (!step_back(s, stack))
			return LIN_DEAD_END;
	}
}

enum lin_outcome lin_register_deep(struct lin_register *s)
{
	struct stack stack = { 0 };
	enum lin_outcome o = go(s, &stack);

	free(stack.forks);
	return o;
}
