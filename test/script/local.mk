# Transcripts, and the program that they drive: cores in memory that obey a text.
noinst_PROGRAMS += test/script/adapter
test_script_adapter_SOURCES = test/script/adapter.h test/script/adapter.c test/script/adapter_new.c \
	test/script/adapter_cmd.c test/script/adapter_node.c test/script/adapter_net.c test/script/adapter_show.c
test_script_adapter_LDADD = libraft.la libwire.la $(XXHASH_LIBS) $(LZ4_LIBS)
TESTS += test/script/run.py test/script/random_driver.py
# By the name that README.md gives it; among the sources that is a script, which starts this one.
all-local:
	$(AM_V_at)test -e test/script/raft-adapter || ln -s adapter test/script/raft-adapter
EXTRA_DIST += test/script/README.md test/script/raft-adapter test/script/run.py test/script/random_driver.py \
	test/script/catch_up.txt test/script/check_quorum.txt test/script/check_quorum_off.txt \
	test/script/disk_all_restart.txt test/script/disk_fail.txt test/script/disk_hang.txt \
	test/script/disk_hold.txt test/script/election.txt test/script/election_restriction.txt \
	test/script/election_split.txt test/script/election_vote_once.txt test/script/figure_7.txt \
	test/script/figure_8_committed.txt test/script/figure_8_overwritten.txt test/script/joint_change.txt \
	test/script/joint_leader_crash.txt test/script/joint_majorities.txt test/script/learner.txt \
	test/script/learner_demoted.txt test/script/lease.txt test/script/lease_void.txt test/script/lone_voter.txt \
	test/script/lost_disk.txt test/script/pipelining.txt test/script/prevote_cut_off.txt \
	test/script/prevote_off.txt test/script/probing.txt test/script/read_cut_off.txt test/script/read_index.txt \
	test/script/read_late_answer.txt test/script/read_new_leader.txt test/script/remove_leader.txt \
	test/script/removed_returns.txt test/script/replace_all.txt test/script/snapshot.txt \
	test/script/snapshot_lost.txt test/script/snapshot_replaces.txt test/script/transfer.txt \
	test/script/transfer_given_up.txt test/script/transfer_late_order.txt \
	test/script/vote_refused_under_leader.txt test/script/witness.txt test/script/witness_added.txt \
	test/script/witness_keeps.txt test/script/witness_keeps_restart.txt test/script/witness_replaced_data.txt
