#!/usr/bin/ruby
# walraft in a Ruby application, with the gem sqlite3.
#
# Usage: order.rb MODULE DATABASE [SECONDS]
# Places one order in a database that is set up, and tries for so many seconds (30).
require "erb"
require "sqlite3"

$stdout.sync = true

NOT_LEADER = 22280
# After these the transaction may be tried again; nothing of it is there, but after UNKNOWN it may be.
AGAIN = {
  5 => "locked",
  22282 => "not committed",
  22538 => "outcome unknown",
  22794 => "leadership was lost",
  23050 => "no majority answers",
}

class GaveUp < StandardError; end

# Why it is worth another try; nil: it is not.
def why_again(db, code)
  return AGAIN[code] unless code == NOT_LEADER
  leader = db.get_first_value("SELECT walraft_leader()")
  leader ? "#{leader} leads" : "an election is under way"
end

# As the gem's own, which hides the first error when SQLite has rolled back already.
def transaction(db)
  db.execute("BEGIN IMMEDIATE")
  yield
  db.execute("COMMIT")
ensure
  db.execute("ROLLBACK") if db.transaction_active?
end

# Runs the block in a transaction until it is committed. Each try looks first: an earlier one may have come through.
def retry_write(db, patience_s, is_done)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + patience_s
  begin
    transaction(db) { yield unless is_done.call }
  rescue SQLite3::Exception => e
    why = why_again(db, e.code) or raise
    puts "retry: #{e.code} #{why}"
    raise GaveUp, why if Process.clock_gettime(Process::CLOCK_MONOTONIC) >= deadline
    sleep 0.1
    retry
  end
end

def open_db(path, parameters)
  name = "file:#{path.split("/", -1).map { |part| ERB::Util.url_encode(part) }.join("/")}?vfs=walraft&#{parameters}"
  db = SQLite3::Database.new(name, flags: SQLite3::Constants::Open::READWRITE | SQLite3::Constants::Open::URI)
  db.busy_timeout = 5000
  db.extended_result_codes = true
  db
end

def main(so, path, patience_s = "30")
  loader = SQLite3::Database.new(":memory:")
  loader.enable_load_extension(true)
  loader.load_extension(so) # stays loaded for the whole process
  loader.close

  db = open_db(path, "walraft_timeout=2000")
  order = "ruby" # made by the client, once for all tries

  is_done = -> { db.get_first_value("SELECT 1 FROM orders WHERE id = ?", [order]) }
  retry_write(db, patience_s.to_f, is_done) do
    db.execute("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)", [order])
    db.execute("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'")
  end
  puts "written: #{order}"

  select = "SELECT pieces || ' ' || item FROM orders WHERE id = ?"
  stale = open_db(path, "walraft_read=stale") # fast, and a few milliseconds behind
  puts "stale: #{stale.get_first_value(select, [order])}"
  puts "default: #{db.get_first_value(select, [order])}"
  stale.close
  db.close
end

begin
  main(*ARGV)
rescue GaveUp => e
  abort "gave up: #{e.message}"
end
