/* Randomness of the simulator: all of it follows from the seed. */
#ifndef TEST_SIM_RNG_H
#define TEST_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng { uint64_t state; };

static inline uint64_t rng_next(struct rng *r)
{
	/* splitmix64 */
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* 0 .. below - 1; 0 when below is 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t below)
{
	return below ? rng_next(r) % below : 0;
}

static inline uint32_t rng_below32(struct rng *r, uint32_t below)
{
	return (uint32_t)rng_below(r, below);
}

static inline bool rng_chance(struct rng *r, uint32_t per_mille)
{
	return rng_below(r, 1000) < per_mille;
}

static inline uint64_t rng_mix(uint64_t a, uint64_t b)
{
	uint64_t z = (a ^ (b + 0x9e3779b97f4a7c15u + (a << 6) + (a >> 2))) * 0xff51afd7ed558ccdu;

	return z ^ (z >> 32);
}

#endif
