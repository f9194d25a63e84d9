#!/bin/bash
# walraft: three node processes on loopback, each the bench program with the extension; the load runs in the node it
# measures. F: kill -9 of the leader under load to the next successful write, two survivors trying all the time.
# plain_R1, plain_R16: the same program, point reads of the same file through stock SQLite without the extension.
# ONLY=reads: what reads.sh wants, and nothing else.
. "$(dirname "$0")/lib.sh"
BUILD=${WALRAFT_BUILD:-$HERE/../../build}
BUILD=$(cd "$BUILD" 2>/dev/null && pwd)
MODULE=$BUILD/.libs/walraft.so
CMD=$BUILD/.libs/walraft
[ -x "$CMD" ] || CMD=$BUILD/walraft
REPS_F=${REPS_F:-3}
need "$MODULE" "nothing: build walraft, or set WALRAFT_BUILD"
need /usr/include/sqlite3.h libsqlite3-dev
build walraft walraft.c -lsqlite3 -lpthread
BASE=$((12000 + RANDOM % 18000))

# Starts node $1: its input is fd ${IN[$1]}, its output fd ${OUT[$1]}.
start_node() {
	local i=$1
	mkfifo "$T/n$i/in" "$T/n$i/out"
	(cd "$T/n$i" && exec "$T/walraft" "$T/n$i/app.db" "$MODULE") <"$T/n$i/in" >"$T/n$i/out" 2>>"$T/n$i/log" &
	PIDS[$i]=$!
	exec {IN[$i]}>"$T/n$i/in" {OUT[$i]}<"$T/n$i/out"
	rm "$T/n$i/in" "$T/n$i/out"
	answer "$i" >/dev/null
}
# Prints the answer of node $1, up to its END.
answer() {
	local line
	while IFS= read -r -t 200 line <&"${OUT[$1]}"; do
		[ "$line" = END ] && return 0
		echo "$line"
	done
	echo "node $1 gave no answer" >&2
	cat "$T"/n*/log >&2
	exit 1
}
ask() { # node request
	echo "$2" >&"${IN[$1]}"
	answer "$1"
}
field() { # node key: a number or a string of its status
	"$CMD" status "$T/n$1/app.db" --json | grep -o "\"$2\":[^,}]*" | head -1 | cut -d: -f2- | tr -d '" '
}
die() {
	echo "bench: $*" >&2
	cat "$T"/n*/log >&2
	exit 1
}
per_tx() { # figure amount count unit; nothing when the count is 0
	awk -v f="$1" -v a="$2" -v n="$3" -v u="$4" 'BEGIN { if (n > 0) printf "walraft %s %.1f %s\n", f, a / n, u }' | rec
}
# Waits until some node leads and is ready; L is its number.
find_leader() {
	local i end=$((SECONDS + 20))
	while [ $SECONDS -lt $end ]; do
		for i in "$@"; do
			if [ "$(field "$i" role 2>/dev/null)" = leader ] && [ "$(field "$i" ready 2>/dev/null)" = true ]; then
				L=$i
				return 0
			fi
		done
	done
	die "no leader in 20 s"
}
start_cluster() {
	local i
	rm -rf "$T"/n?
	mkdir "$T/n1" "$T/n2" "$T/n3"
	/usr/bin/sqlite3 -init /dev/null "$T/n1/app.db" "PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
		CREATE TABLE failover(id INTEGER PRIMARY KEY, node TEXT);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1000) INSERT INTO t(v) SELECT printf('%0100d',i) FROM n" \
		>/dev/null || die "no database"
	"$CMD" init "$T/n1/app.db" --listen "tcp://127.0.0.1:$((BASE + 1))" 2>>"$T/n1/log" >/dev/null || die "init"
	start_node 1
	for i in 2 3; do
		"$CMD" join "$T/n$i/app.db" --listen "tcp://127.0.0.1:$((BASE + i))" --peer "tcp://127.0.0.1:$((BASE + 1))" \
			>/dev/null 2>>"$T/n$i/log" || die "join of node $i"
		start_node $i
	done
	find_leader 1 2 3
	F=$((L % 3 + 1))
}
stop_cluster() {
	local i
	for i in 1 2 3; do
		exec {IN[$i]}>&- {OUT[$i]}<&-
		kill -9 "${PIDS[$i]}" 2>/dev/null
		wait "${PIDS[$i]}" 2>/dev/null
		PIDS[$i]=
	done
}

# Plain and replicated reads of one file in turn, close to each other in time.
plain_reads() {
	printf 'r %d %s R%d -\n' "$1" "$SECS" "$1" | "$T/walraft" "$T/n$L/app.db" | grep -v END | sed "s/^plain R/walraft plain_R/" | rec
}
reads() {
	local n
	ask $L "w 1 $SECS W1" | rec
	ask $F "w 1 $SECS Wf1" | rec
	for n in 1 16; do
		plain_reads $n
		ask $L "r $n $SECS R${n}_lease lease" | rec
		ask $F "r $n $SECS Rf${n}_lin linearizable" | rec
	done
}

for r in $(seq "$REPS"); do
	log "rep $r"
	noise
	start_cluster
	if [ "${ONLY:-}" = reads ]; then
		reads
		stop_cluster
		continue
	fi
	j0=$(field $L journal_bytes_appended); c0=$(field $L commit); b0=$(wr_bytes "${PIDS[$L]}")
	ask $L "w 1 $SECS W1" | rec
	j1=$(field $L journal_bytes_appended); c1=$(field $L commit); b1=$(wr_bytes "${PIDS[$L]}")
	per_tx W1_journal $((j1 - j0)) $((c1 - c0)) B/tx
	per_tx W1_disk $((b1 - b0)) $((c1 - c0)) B/tx
	echo "walraft RSS_after_W1 $(rss_kb "${PIDS[$L]}") kB" | rec
	s0=$(field $L journal_syncs); c0=$(field $L commit)
	ask $L "w 16 $SECS W16" | rec
	s1=$(field $L journal_syncs); c1=$(field $L commit)
	per_tx W16_tx_per_sync $((c1 - c0)) $((s1 - s0)) tx/sync
	ask $L "w 64 $SECS W64" | rec
	echo "walraft RSS $(rss_kb "${PIDS[$L]}") kB" | rec
	echo "walraft RSS_follower $(rss_kb "${PIDS[$F]}") kB" | rec
	for n in 1 16; do
		plain_reads $n
		ask $L "r $n $SECS R${n}_stale stale" | rec
		ask $F "r $n $SECS Rf${n}_stale stale" | rec
		ask $L "r $n $SECS R$n linearizable" | rec
	done
	ask $F "r 1 $SECS Rf1_lin linearizable" | rec
	stop_cluster
done
for r in $(seq "$REPS_F"); do
	start_cluster
	ask $L load
	others=()
	for i in 1 2 3; do [ $i = $L ] || others+=($i); done
	c0=$(field $L commit)
	until [ "$(field $L commit)" -gt $((c0 + 200)) ]; do :; done
	echo "poll 0" >&"${IN[${others[1]}]}"
	echo "poll ${PIDS[$L]}" >&"${IN[${others[0]}]}"
	(answer "${others[0]}"; answer "${others[1]}") | awk '
		$1 == "killed" { k = $2 }
		$1 == "at" && (!a || $2 < a) { a = $2 }
		END { if (k && a) printf "walraft F %.1f ms\n", a - k; else print "no failover" > "/dev/stderr" }' | rec
	stop_cluster
done
finish
