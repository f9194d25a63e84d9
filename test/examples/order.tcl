#!/usr/bin/tclsh
# walraft in a Tcl application, with SQLite's own package.
#
# Usage: order.tcl MODULE DATABASE [SECONDS]
# Places one order in a database that is set up, and tries for so many seconds (30).
#
# "db errorcode" gives the primary code only: 5 locked, 8 this node does not lead, 10 any of walraft's others. Since one of those is that the
# outcome is not known, all of them are treated so. The text of walraft_error() tells them apart for people.
package require sqlite3

fconfigure stdout -buffering line

# Why it is worth another try; "": it is not.
proc why_again {db code} {
	switch $code {
		5 { return "locked" }
		8 {
			set leader [$db onecolumn {SELECT walraft_leader()}]
			return [expr {$leader eq "" ? "an election is under way" : "$leader leads"}]
		}
		10 { return [$db onecolumn {SELECT walraft_error()}] }
	}
}

# Runs a script in a transaction until it is committed. Each try looks first: an earlier one may have come through.
# ("db transaction" would do, but there is no errorcode after it.)
proc retry {db patience_s isDone write} {
	set deadline [expr {[clock milliseconds] + 1000 * $patience_s}]
	while 1 {
		try {
			$db eval {BEGIN IMMEDIATE}
			if {![uplevel 1 $isDone]} {
				uplevel 1 $write
			}
			$db eval {COMMIT}
			return
		} on error {message options} {
			set code [$db errorcode]
			catch {$db eval {ROLLBACK}} ;# nothing to roll back after most errors
			set why [why_again $db $code]
			if {$why eq ""} {
				return -options $options $message
			}
			puts "retry: $code $why"
			if {[clock milliseconds] >= $deadline} {
				return -code error -errorcode GAVE_UP $why
			}
		}
		after 100
	}
}

proc openDb {db path parameters} {
	set safe [string map {% %25 ? %3f # %23} $path]
	sqlite3 $db "file:$safe?vfs=walraft&$parameters" -uri 1 -create 0
	$db timeout 5000
}

proc main {module path {patience_s 30}} {
	sqlite3 loader :memory:
	loader enable_load_extension 1
	loader eval {SELECT load_extension($module)} ;# stays loaded for the whole process
	loader close

	openDb db $path walraft_timeout=2000
	set order tcl ;# made by the client, once for all tries

	retry db $patience_s {
		db exists {SELECT 1 FROM orders WHERE id = $order}
	} {
		db eval {INSERT INTO orders(id, item, pieces) VALUES ($order, 'pear', 2)}
		db eval {UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'}
	}
	puts "written: $order"

	set select {SELECT pieces || ' ' || item FROM orders WHERE id = $order}
	openDb stale $path walraft_read=stale ;# fast, and a few milliseconds behind
	puts "stale: [stale onecolumn $select]"
	puts "default: [db onecolumn $select]"
	stale close
	db close
}

try {
	main {*}$argv
} trap GAVE_UP why {
	puts stderr "gave up: $why"
	exit 1
}
