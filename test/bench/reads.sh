#!/bin/bash
# Reads at their levels, and commits from a node that does not lead, against their bars, in one run; prints a table and exits with 1 when a bar is missed.
#
#   R1_lease, R16_lease      point reads on the leader by its lease, against plain_R1, plain_R16: the same program and file through stock SQLite
#   Rf1_lin, Rf16_lin        linearizable point reads on a follower, against etcd's on one
#   W1, Wf1                  single-row commits on the leader, and on a follower
#
# walraft and etcd: three nodes on loopback, here in turn, repetition by repetition. OUT=dir keeps the results; REPS (3), SECS (4) as in lib.sh.
. "$(dirname "$0")/lib.sh"
OUT=${OUT:-$(mktemp -d)}
mkdir -p "$OUT"
need etcd etcd-server
need etcdctl etcd-client
build etcd etcd.c
export ETCDCTL_API=3

start_etcd() {
	local base=$((30000 + RANDOM % 2000 * 10)) i cluster end=$((SECONDS + 30))
	local -a a up
	cluster=m1=http://127.0.0.1:$((base + 4)),m2=http://127.0.0.1:$((base + 5)),m3=http://127.0.0.1:$((base + 6))
	for i in 1 2 3; do
		a[i]=127.0.0.1:$((base + i))
		rm -rf "$T/e$i"
		etcd --name m$i --data-dir "$T/e$i" --listen-client-urls "http://${a[i]}" --advertise-client-urls "http://${a[i]}" \
			--listen-peer-urls "http://127.0.0.1:$((base + 3 + i))" --initial-advertise-peer-urls "http://127.0.0.1:$((base + 3 + i))" \
			--initial-cluster "$cluster" --initial-cluster-state new --log-level error >"$T/e$i.log" 2>&1 &
		PIDS[i]=$!
	done
	L=
	while [ $SECONDS -lt $end ]; do
		up=()
		L=
		for i in 1 2 3; do
			up[i]=$(etcdctl --endpoints="${a[i]}" endpoint status 2>/dev/null)
			[[ ${up[i]} == *', true,'* ]] && L=$i
		done
		[ -n "$L" ] && [ -n "${up[1]}" ] && [ -n "${up[2]}" ] && [ -n "${up[3]}" ] && break
		L=
	done
	[ -n "$L" ] || { cat "$T"/e?.log >&2; exit 1; }
	LEADER=${a[L]}
	FOLLOWER=${a[L % 3 + 1]}
}
stop_etcd() {
	local i
	for i in 1 2 3; do
		kill -9 "${PIDS[i]}" 2>/dev/null
		wait "${PIDS[i]}" 2>/dev/null
		PIDS[i]=
	done
}
for r in $(seq "$REPS"); do
	log "repetition $r of $REPS"
	REPS=1 REPS_F=0 ONLY=reads "$HERE/walraft.sh" | cut -d' ' -f1-4 | rec
	start_etcd
	"$T/etcd" "$LEADER" fill || exit 1
	for n in 1 16; do
		"$T/etcd" "$LEADER" read $n "$SECS" R${n}_lin | rec
		"$T/etcd" "$FOLLOWER" read $n "$SECS" Rf${n}_lin | rec
		"$T/etcd" "$FOLLOWER" stale $n "$SECS" Rf${n}_stale | rec
	done
	stop_etcd
done
finish | tee "$OUT/medians.txt"
echo
awk '
function bar(what, a, b, want, low,   got, met) {
	got = (a in m) && (b in m) && m[b] > 0 ? m[a] / m[b] : ""
	met = got == "" ? "not measured" : (low ? got <= want : got >= want) ? "met" : "MISSED"
	if (met != "met") bad = 1
	printf "| %s | %s | %s | %s | %s%s | %s |\n", what, a in m ? sprintf("%.0f", m[a]) : "-", b in m ? sprintf("%.0f", m[b]) : "-",
		got == "" ? "-" : sprintf("%.2f", got), low ? "<= " : ">= ", want, met
}
$2 ~ /_errors$/ && $3 > 0 { print "errors: " $0; bad = 1 }
NF >= 4 { m[$1 " " $2] = $3 }
END {
	print "| bar | walraft | other | ratio | wanted | |"
	print "|---|---|---|---|---|---|"
	bar("lease reads on the leader, of plain SQLite, 1/s", "walraft R1_lease_rate", "walraft plain_R1_rate", 0.9, 0)
	bar("the same, 16 threads", "walraft R16_lease_rate", "walraft plain_R16_rate", 0.9, 0)
	bar("linearizable reads on a follower, of etcd, 1/s", "walraft Rf1_lin_rate", "etcd Rf1_lin_rate", 2, 0)
	bar("the same, 16 clients", "walraft Rf16_lin_rate", "etcd Rf16_lin_rate", 2, 0)
	bar("a commit on a follower, of one on the leader, us", "walraft Wf1_p50", "walraft W1_p50", 2, 1)
	exit bad
}' "$OUT/medians.txt" | tee "$OUT/reads.md"
rc=${PIPESTATUS[0]}
echo "kept in $OUT" >&2
exit "$rc"
