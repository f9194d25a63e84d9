<?php
/* walraft in a PHP application, with the class SQLite3.
 *
 * Usage: php -d sqlite3.extension_dir=/usr/local/lib order_sqlite3.php /usr/local/lib/walraft.so DATABASE [SECONDS]
 * Places one order in a database that is set up, and tries for so many seconds (30).
 *
 * The class opens no URIs: walraft is made the default VFS of the process instead. PHP loads extensions from one directory only, which
 * php.ini names (sqlite3.extension_dir). */

const NOT_LEADER = 22280;
/* After these the transaction may be tried again; nothing of it is there, but after UNKNOWN it may be. */
const AGAIN = [
	5 => 'locked',
	22282 => 'not committed',
	22538 => 'outcome unknown',
	22794 => 'leadership was lost',
	23050 => 'no majority answers',
];

class GaveUp extends Exception {}

/* Why it is worth another try; null: it is not. */
function why_again(SQLite3 $db, int $code): ?string
{
	if ($code !== NOT_LEADER) {
		return AGAIN[$code] ?? null;
	}
	$leader = $db->querySingle('SELECT walraft_leader()');
	return $leader === null ? 'an election is under way' : "$leader leads";
}

/* The class's exceptions carry no code, so that these do: that of the first error, not of the rollback. */
function transaction(SQLite3 $db, callable $work): void
{
	try {
		$db->exec('BEGIN IMMEDIATE');
		$work();
		$db->exec('COMMIT');
	} catch (Exception $e) {
		$code = $db->lastExtendedErrorCode();
		try {
			$db->exec('ROLLBACK');
		} catch (Exception) {
			// it did not begin, or SQLite has rolled it back already
		}
		throw new RuntimeException($e->getMessage(), $code, $e);
	}
}

/* Runs $write in a transaction until it is committed. Each try looks first: an earlier one may have come through. */
function retry(SQLite3 $db, float $patience_s, callable $is_done, callable $write): void
{
	$deadline = microtime(true) + $patience_s;
	for (;;) {
		try {
			transaction($db, fn() => $is_done() || $write());
			return;
		} catch (RuntimeException $e) {
			$why = why_again($db, $e->getCode());
			if ($why === null) {
				throw $e;
			}
			echo "retry: {$e->getCode()} $why\n";
			if (microtime(true) >= $deadline) {
				throw new GaveUp($why);
			}
		}
		usleep(100_000);
	}
}

function open_db(string $path): SQLite3
{
	$db = new SQLite3($path, SQLITE3_OPEN_READWRITE);
	$db->enableExceptions(true);
	$db->busyTimeout(5000);
	return $db;
}

function main(string $module, string $path, string $patience_s = '30'): void
{
	$loader = new SQLite3(':memory:');
	$loader->enableExceptions(true);
	$loader->loadExtension(basename($module)); // stays loaded for the whole process
	$loader->querySingle('SELECT walraft_default_vfs(1)');
	$loader->close();

	$db = open_db($path);
	$db->querySingle('PRAGMA walraft_timeout=2000');
	$order = 'php-sqlite3'; // made by the client, once for all tries

	retry(
		$db,
		(float)$patience_s,
		fn() => $db->querySingle("SELECT 1 FROM orders WHERE id = '$order'"),
		function () use ($db, $order) {
			$insert = $db->prepare("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)");
			$insert->bindValue(1, $order);
			$insert->execute();
			$db->exec("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'");
		}
	);
	echo "written: $order\n";

	$select = "SELECT pieces || ' ' || item FROM orders WHERE id = '$order'";
	$stale = open_db($path);
	$stale->querySingle("PRAGMA walraft_read='stale'"); // fast, and a few milliseconds behind
	echo 'stale: ', $stale->querySingle($select), "\n";
	echo 'default: ', $db->querySingle($select), "\n";
	$stale->close();
	$db->close();
}

try {
	main(...array_slice($argv, 1));
} catch (GaveUp $e) {
	fwrite(STDERR, 'gave up: ' . $e->getMessage() . "\n");
	exit(1);
}
