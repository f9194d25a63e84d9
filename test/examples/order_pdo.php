<?php
/* walraft in a PHP application, with PDO.
 *
 * Usage: php -d sqlite3.extension_dir=/usr/local/lib order_pdo.php /usr/local/lib/walraft.so DATABASE [SECONDS]
 * Places one order in a database that is set up, and tries for so many seconds (30).
 *
 * PDO itself loads no extensions (before PHP 8.4): the class SQLite3 does it, once for the process. PHP loads them from one directory only,
 * which php.ini names (sqlite3.extension_dir). */

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
function why_again(PDO $db, int $code): ?string
{
	if ($code !== NOT_LEADER) {
		return AGAIN[$code] ?? null;
	}
	$leader = $db->query('SELECT walraft_leader()')->fetchColumn();
	return $leader === null ? 'an election is under way' : "$leader leads";
}

/* PDO's own beginTransaction() takes the write lock only at the first write, after which a look would be too late; and what PDO did not begin,
 * it does not end. */
function transaction(PDO $db, callable $work): void
{
	$db->exec('BEGIN IMMEDIATE');
	try {
		$work();
		$db->exec('COMMIT');
	} catch (Exception $e) {
		try {
			$db->exec('ROLLBACK');
		} catch (PDOException) {
			// SQLite has rolled it back already
		}
		throw $e;
	}
}

/* Runs $write in a transaction until it is committed. Each try looks first: an earlier one may have come through. */
function retry(PDO $db, float $patience_s, callable $is_done, callable $write): void
{
	$deadline = microtime(true) + $patience_s;
	for (;;) {
		try {
			transaction($db, fn() => $is_done() || $write());
			return;
		} catch (PDOException $e) {
			$code = $e->errorInfo[1];
			$why = why_again($db, $code);
			if ($why === null) {
				throw $e;
			}
			echo "retry: $code $why\n";
			if (microtime(true) >= $deadline) {
				throw new GaveUp($why);
			}
		}
		usleep(100_000);
	}
}

function open_db(string $path, string $parameters): PDO
{
	return new PDO("sqlite:file:" . strtr(rawurlencode($path), ['%2F' => '/']) . "?vfs=walraft&$parameters", null, null, [
		PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
		PDO::ATTR_TIMEOUT => 5, // seconds; the busy timeout
		PDO::SQLITE_ATTR_EXTENDED_RESULT_CODES => true,
	]);
}

function main(string $module, string $path, string $patience_s = '30'): void
{
	$loader = new SQLite3(':memory:');
	$loader->enableExceptions(true);
	$loader->loadExtension(basename($module)); // stays loaded for the whole process
	$loader->close();

	$db = open_db($path, 'walraft_timeout=2000');
	$order = 'php-pdo'; // made by the client, once for all tries

	$has = $db->prepare('SELECT count(*) FROM orders WHERE id = ?');
	retry(
		$db,
		(float)$patience_s,
		function () use ($has, $order) {
			$has->execute([$order]);
			return $has->fetchAll(PDO::FETCH_COLUMN)[0] > 0;
		},
		function () use ($db, $order) {
			$db->prepare("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)")->execute([$order]);
			$db->exec("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'");
		}
	);
	echo "written: $order\n";

	$stale = open_db($path, 'walraft_read=stale'); // fast, and a few milliseconds behind
	foreach (['stale' => $stale, 'default' => $db] as $level => $connection) {
		$select = $connection->prepare("SELECT pieces || ' ' || item FROM orders WHERE id = ?");
		$select->execute([$order]);
		echo "$level: ", $select->fetchColumn(), "\n";
	}
}

try {
	main(...array_slice($argv, 1));
} catch (GaveUp $e) {
	fwrite(STDERR, 'gave up: ' . $e->getMessage() . "\n");
	exit(1);
}
