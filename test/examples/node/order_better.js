// walraft in a Node application, with the package better-sqlite3.
//
// Usage: node order_better.js MODULE DATABASE [SECONDS]
// Places one order in a database that is set up, and tries for so many seconds (30).
//
// The package opens no URIs: walraft is made the default VFS of the process instead.
"use strict";

const Database = require("better-sqlite3");
const { setTimeout: pause } = require("node:timers/promises");

// The package names the codes that it knows, and numbers the others.
const NOT_LEADER = "UNKNOWN_SQLITE_ERROR_22280";
// After these the transaction may be tried again; nothing of it is there, but after UNKNOWN it may be.
const AGAIN = {
	SQLITE_BUSY: "locked",
	UNKNOWN_SQLITE_ERROR_22282: "not committed",
	UNKNOWN_SQLITE_ERROR_22538: "outcome unknown",
	UNKNOWN_SQLITE_ERROR_22794: "leadership was lost",
	UNKNOWN_SQLITE_ERROR_23050: "no majority answers",
};

class GaveUp extends Error {}

function load(module) {
	const loader = new Database(":memory:");
	loader.loadExtension(module); // stays loaded for the whole process
	loader.prepare("SELECT walraft_default_vfs(1)").get();
	loader.close();
}

function openDb(path) {
	return new Database(path, { fileMustExist: true, timeout: 5000 });
}

// Why it is worth another try; null: it is not.
function whyAgain(db, code) {
	if (code !== NOT_LEADER) {
		return AGAIN[code] ?? null;
	}
	const leader = db.prepare("SELECT walraft_leader()").pluck().get();
	return leader === null ? "an election is under way" : `${leader} leads`;
}

// Runs write in a transaction until it is committed. Each try looks first: an earlier one may have come through.
async function retry(db, patienceS, isDone, write) {
	const deadline = Date.now() + 1000 * patienceS;
	const attempt = db.transaction(() => isDone() || write());
	for (;;) {
		try {
			attempt.immediate();
			return;
		} catch (e) {
			const why = whyAgain(db, e.code);
			if (why === null) {
				throw e;
			}
			console.log(`retry: ${e.code.replace(/\D+/, "") || e.code} ${why}`);
			if (Date.now() >= deadline) {
				throw new GaveUp(why);
			}
		}
		await pause(100);
	}
}

async function main(module, path, patienceS = "30") {
	load(module);
	const db = openDb(path);
	db.pragma("walraft_timeout=2000");
	const order = "node-better"; // made by the client, once for all tries

	await retry(
		db,
		Number(patienceS),
		() => db.prepare("SELECT 1 FROM orders WHERE id = ?").get(order),
		() => {
			db.prepare("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)").run(order);
			db.prepare("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'").run();
		},
	);
	console.log(`written: ${order}`);

	const select = "SELECT pieces || ' ' || item FROM orders WHERE id = ?";
	const stale = openDb(path);
	stale.pragma("walraft_read='stale'"); // fast, and a few milliseconds behind
	console.log(`stale: ${stale.prepare(select).pluck().get(order)}`);
	console.log(`default: ${db.prepare(select).pluck().get(order)}`);
	stale.close();
	db.close();
}

main(...process.argv.slice(2)).catch((e) => {
	console.error(e instanceof GaveUp ? `gave up: ${e.message}` : e);
	process.exitCode = 1;
});
