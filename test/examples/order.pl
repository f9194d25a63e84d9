#!/usr/bin/perl
# walraft in a Perl application, with DBD::SQLite.
#
# Usage: order.pl MODULE DATABASE [SECONDS]
# Places one order in a database that is set up, and tries for so many seconds (30). DBD::SQLite 1.68 or later.
use strict;
use warnings;
use DBI;
use Time::HiRes qw(sleep time);

$| = 1;

use constant NOT_LEADER => 22280;
# After these the transaction may be tried again; nothing of it is there, but after UNKNOWN it may be.
my %again = (
	5     => 'locked',
	22282 => 'not committed',
	22538 => 'outcome unknown',
	22794 => 'leadership was lost',
	23050 => 'no majority answers',
);

# Why it is worth another try; undef: it is not.
sub why_again {
	my ($dbh, $code) = @_;
	return $again{$code} if $code != NOT_LEADER;
	my ($leader) = $dbh->selectrow_array('SELECT walraft_leader()');
	return defined $leader ? "$leader leads" : 'an election is under way';
}

# Runs $write in a transaction until it is committed. Each try looks first: an earlier one may have come through.
sub retry {
	my ($dbh, $patience_s, $is_done, $write) = @_;
	my $deadline = time + $patience_s;
	while (1) {
		return if eval {
			$dbh->begin_work;    # BEGIN IMMEDIATE, before the first statement
			$write->() unless $is_done->();
			$dbh->commit;
			1;
		};
		my ($error, $code) = ($@, $dbh->err // 0);
		$dbh->rollback unless $dbh->{AutoCommit};
		my $why = why_again($dbh, $code) // die $error;
		print "retry: $code $why\n";
		die "gave up: $why\n" if time >= $deadline;
		sleep 0.1;
	}
}

sub open_db {
	my ($path, $parameters) = @_;
	$path =~ s{([^\w./-])}{sprintf '%%%02X', ord $1}ge;
	my $dbh = DBI->connect("dbi:SQLite:uri=file:$path?vfs=walraft&$parameters", '', '',
		{ RaiseError => 1, PrintError => 0, sqlite_extended_result_codes => 1 });
	$dbh->sqlite_busy_timeout(5000);
	return $dbh;
}

my ($module, $path, $patience_s) = @ARGV;
my $loader = DBI->connect('dbi:SQLite:dbname=:memory:', '', '', { RaiseError => 1, PrintError => 0 });
$loader->sqlite_enable_load_extension(1);
$loader->sqlite_load_extension($module);    # stays loaded for the whole process
$loader->disconnect;

my $dbh = open_db($path, 'walraft_timeout=2000');
my $order = 'perl';                          # made by the client, once for all tries

retry(
	$dbh,
	$patience_s // 30,
	sub { $dbh->selectrow_array('SELECT 1 FROM orders WHERE id = ?', undef, $order) },
	sub {
		$dbh->do("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)", undef, $order);
		$dbh->do("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'");
	});
print "written: $order\n";

my $select = "SELECT pieces || ' ' || item FROM orders WHERE id = ?";
my $stale = open_db($path, 'walraft_read=stale');    # fast, and a few milliseconds behind
print 'stale: ', $stale->selectrow_array($select, undef, $order), "\n";
print 'default: ', $dbh->selectrow_array($select, undef, $order), "\n";
$stale->disconnect;
$dbh->disconnect;
