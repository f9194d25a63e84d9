# The simulator: raft/ and the journal, unmodified, in a simulated world.
SIM_CHECKS = test/sim/check.h test/sim/check.c test/sim/check_i1_leader.c test/sim/check_i2_matching.c test/sim/check_i3_complete.c \
	test/sim/check_i4_machine.c test/sim/check_i5_survive.c test/sim/check_i7_reads.c test/sim/check_linear.c test/sim/check_i8_once.c \
	test/sim/check_i9_durable.c test/sim/check_i11_lease.c test/sim/check_i12_commit.c test/sim/check_i13_config.c test/sim/check_live.c \
	test/sim/check_quorums.c test/sim/check_forgetful.c test/sim/check_holes.c test/sim/check_witness.c test/sim/check_level.c
SIM_WORLD = test/sim/sim.h test/sim/rng.h test/sim/sim.c test/sim/run.h test/sim/run.c test/sim/net.c test/sim/node.c test/sim/store.c test/sim/install.c test/sim/holes.c test/sim/bundles.c \
	test/sim/counts.c test/sim/disk.h test/sim/disk_impl.h test/sim/disk.c test/sim/disk_power.c test/sim/machine.h test/sim/machine.c test/sim/client.c test/sim/admin.c test/sim/chaos.c \
	test/sim/memory.h test/sim/memory.c test/sim/mistakes.c $(SIM_CHECKS)
SIM_WRAP = -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup
SIM_LIBS = libraft.la liblin.la libwire.la $(XXHASH_LIBS) $(LZ4_LIBS)
check_PROGRAMS += test/sim/sim test/sim/test_sim
TESTS += test/sim/test_sim
test_sim_sim_SOURCES = test/sim/main.c $(SIM_WORLD)
test_sim_sim_LDFLAGS = $(SIM_WRAP)
test_sim_sim_LDADD = $(SIM_LIBS)
test_sim_test_sim_SOURCES = test/sim/test_sim.c $(SIM_WORLD)
test_sim_test_sim_LDFLAGS = $(SIM_WRAP)
test_sim_test_sim_LDADD = $(SIM_LIBS)
EXTRA_DIST += test/sim/README.md test/sim/seeds.txt test/sim/mutants.py test/sim/mutations.py

# make sim SEED=number TIME=simulated seconds; make sim-long WALL=seconds
.PHONY: sim sim-long
sim: test/sim/sim
	$(AM_V_at)test/sim/sim $(SEED:%=--seed %) $(TIME:%=--time %)

sim-long: test/sim/sim
	$(AM_V_at)wall=$(WALL); test/sim/sim --jobs 0 --wall $${wall:-600}

# Lines of raft/ that RUNS runs reach; in a build with --enable-coverage, of which earlier results are removed first.
.PHONY: sim-coverage
sim-coverage: test/sim/sim
	$(AM_V_at)find raft -name '*.gcda' -exec rm -f {} +
	$(AM_V_at)runs=$(RUNS); test/sim/sim --runs $${runs:-300} --time 100 | head -2
	$(AM_V_at)gcov -n -o raft/.libs raft/.libs/*.gcno | awk -F"[:% ]+" '/^File/ { ours = /raft\/[a-z_]*\.c/; name = $$2 } \
		/^Lines executed/ && ours { n += $$5; hit += $$3 * $$5 / 100; printf "%7.2f %% of %4d  %s\n", $$3, $$5, name; ours = 0 } \
		END { printf "%7.2f %% of %4d  together\n", 100 * hit / n, n }'

# Each of the bugs in mutations.py, put into a copy of the sources, is found: make mutants SEED=number WALL=seconds for a bug
MUTANT_FLAGS = --cc "$(CC)" --cflags "$(WALRAFT_CFLAGS) $(CFLAGS) $(LZ4_CFLAGS) $(XXHASH_CFLAGS)" --libs "$(XXHASH_LIBS) $(LZ4_LIBS) -lm $(SIM_WRAP)"
.PHONY: mutants
mutants:
	$(AM_V_at)PYTHONDONTWRITEBYTECODE=1 $(PYTHON3) $(srcdir)/test/sim/mutants.py $(srcdir) $(MUTANT_FLAGS) $(SEED:%=--seed %) $(WALL:%=--wall %) -- $(ONLY)
clean-local:
	rm -rf mutants
