#!/bin/bash
# Plain SQLite, PostgreSQL and walraft in turn, repetition by repetition, so that a noisy hour hits all alike; then a table
# with the bars. OUT=dir keeps the results; REPS (3), SECS (4) as in lib.sh. Exits with 1 when a bar is missed.
cd "$(dirname "$0")" || exit 1
REPS=${REPS:-3}
OUT=${OUT:-$(mktemp -d)}
mkdir -p "$OUT"
: >"$OUT/raw.txt"
missing=0
for r in $(seq "$REPS"); do
	for peer in sqlite postgres walraft; do
		echo "== repetition $r of $REPS: $peer" >&2
		if REPS=1 REPS_F=${REPS_F:-1} "./$peer.sh" >"$OUT/$peer.$r.txt" 2>"$OUT/$peer.$r.log"; then
			cut -d' ' -f1-4 "$OUT/$peer.$r.txt" >>"$OUT/raw.txt"
		else
			echo "failed, see $OUT/$peer.$r.log" >&2
			tail -5 "$OUT/$peer.$r.log" >&2
			missing=1
		fi
	done
done
./median.sh "$OUT/raw.txt" | tee "$OUT/medians.txt"
echo
awk -v missing=$missing '
function bar(what, got, want, low) {
	met = got == "" ? "not measured" : (low ? got <= want : got >= want) ? "met" : "MISSED"
	if (met != "met") bad = 1
	printf "| %s | %s | %s%s | %s |\n", what, got == "" ? "-" : sprintf("%.2f", got), low ? "<= " : ">= ", want, met
}
function v(key) { return !(key in m) ? "-" : m[key] >= 100 ? sprintf("%.0f", m[key]) : sprintf("%.1f", m[key]) }
function ratio(a, b) { return (a in m) && (b in m) && m[b] > 0 ? m[a] / m[b] : "" }
function row(name, p, cols,   i, n, c, s) {
	n = split(cols, c, " ")
	s = "| " name
	for (i = 1; i <= n; i++) s = s " | " v(p " " c[i])
	print s " |"
}
NF >= 4 { m[$1 " " $2] = $3 }
END {
	print "| medians | W1 tx/s | p50 us | p99 us | W16 | W64 | R1 /s | R16 /s | follower, stale x1 | x16 | failover ms | RSS kB |"
	print "|---|---|---|---|---|---|---|---|---|---|---|---|"
	row("walraft, default reads", "walraft", "W1_rate W1_p50 W1_p99 W16_rate W64_rate R1_rate R16_rate Rf1_stale_rate Rf16_stale_rate F RSS")
	row("walraft, stale reads on the leader", "walraft", "- - - - - R1_stale_rate R16_stale_rate - - - -")
	row("PostgreSQL 15, ANY 1 of 2 standbys", "postgres", "W1_rate W1_p50 W1_p99 W16_rate W64_rate R1_rate R16_rate Rf1_stale_rate Rf16_stale_rate - RSS")
	row("plain SQLite, FULL, one process", "sqlite-full", "W1_rate W1_p50 W1_p99 W16_rate - R1_rate R16_rate - - - -")
	row("plain SQLite on the replicated file", "walraft", "- - - - - plain_R1_rate plain_R16_rate - - - -")
	print ""
	print "| bar | measured | wanted | |"
	print "|---|---|---|---|"
	bar("W1, of PostgreSQL", ratio("walraft W1_rate", "postgres W1_rate"), 0.8, 0)
	bar("journal bytes per single-row insert", "walraft W1_journal" in m ? m["walraft W1_journal"] : "", 700, 1)
	bar("failover, ms", "walraft F" in m ? m["walraft F"] : "", 1000, 1)
	bar("stale reads at the leader, of plain SQLite", ratio("walraft R1_stale_rate", "walraft plain_R1_rate"), 0.9, 0)
	bar("the same, 16 threads", ratio("walraft R16_stale_rate", "walraft plain_R16_rate"), 0.9, 0)
	bar("stale reads at a follower, of plain SQLite", ratio("walraft Rf1_stale_rate", "walraft plain_R1_rate"), 0.9, 0)
	exit bad || missing
}' "$OUT/medians.txt" | tee "$OUT/table.md"
rc=${PIPESTATUS[0]}
echo "kept in $OUT" >&2
exit "$rc"
