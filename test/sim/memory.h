/* Memory that runs short, once, within a call of the code under test. The simulator is linked so that malloc and its kin come
 * here (local.mk: --wrap). */
#ifndef TEST_SIM_MEMORY_H
#define TEST_SIM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From here to memory_end the allocation with that number, counted from 1, fails; 0: none does. Do not nest. */
void memory_begin(uint64_t allocation);
/* How many are left until then; 0 also when it failed, which *ret_failed tells. */
uint64_t memory_end(bool *ret_failed);
/* As realloc, never fails; for the simulator's own needs in between. */
void *memory_sure(void *p, size_t n);

#endif
