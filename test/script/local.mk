# Transcripts, and the program that they drive: cores in memory that obey a text.
check_PROGRAMS += test/script/raft-adapter
test_script_raft_adapter_SOURCES = test/script/adapter.h test/script/adapter.c test/script/adapter_new.c \
	test/script/adapter_cmd.c test/script/adapter_node.c test/script/adapter_net.c test/script/adapter_show.c
test_script_raft_adapter_LDADD = libraft.la libwire.la $(XXHASH_LIBS) $(LZ4_LIBS)
TESTS += test/script/run.py
EXTRA_DIST += test/script/README.md test/script/run.py \
	test/script/check_quorum.txt test/script/check_quorum_off.txt test/script/election.txt \
	test/script/election_restriction.txt test/script/election_split.txt test/script/election_vote_once.txt \
	test/script/figure_7.txt test/script/figure_8_committed.txt test/script/figure_8_overwritten.txt \
	test/script/pipelining.txt test/script/prevote_cut_off.txt test/script/prevote_off.txt \
	test/script/probing.txt test/script/transfer.txt test/script/transfer_given_up.txt \
	test/script/transfer_late_order.txt test/script/vote_refused_under_leader.txt
