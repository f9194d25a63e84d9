// walraft in a Node application, with the package sqlite3.
//
// Usage: node order_sqlite3.js MODULE DATABASE [SECONDS]
// Places one order in a database that is set up, and tries for so many seconds (30).
//
// Errors carry the primary code only: 5 locked, 8 this node does not lead, 10 any of walraft's others. Since one of those is that the
// outcome is not known, all of them are treated so. The text of walraft_error() tells them apart for people.
"use strict";

const sqlite3 = require("sqlite3");
const { promisify } = require("node:util");
const { setTimeout: pause } = require("node:timers/promises");

class GaveUp extends Error {}

// A connection whose calls give promises.
async function openDb(name) {
	const db = await new Promise((done, failed) => {
		const opened = new sqlite3.Database(name, sqlite3.OPEN_READWRITE | sqlite3.OPEN_URI, (e) => (e ? failed(e) : done(opened)));
	});
	db.configure("busyTimeout", 5000);
	const c = {};
	for (const call of ["run", "get", "loadExtension", "close"]) {
		c[call] = promisify(db[call]).bind(db);
	}
	return c;
}

async function load(module) {
	const loader = await openDb(":memory:");
	await loader.loadExtension(module); // stays loaded for the whole process
	await loader.close();
}

// Why it is worth another try; null: it is not.
async function whyAgain(db, code) {
	switch (code) {
	case sqlite3.BUSY:
		return "locked";
	case sqlite3.READONLY: {
		const { leader } = await db.get("SELECT walraft_leader() AS leader");
		return leader === null ? "an election is under way" : `${leader} leads`;
	}
	case sqlite3.IOERR:
		return (await db.get("SELECT walraft_error() AS text")).text;
	default:
		return null;
	}
}

// The connection is the transaction's alone until it ends: other work of the program needs another one.
async function transaction(db, work) {
	try {
		await db.run("BEGIN IMMEDIATE");
		await work();
		await db.run("COMMIT");
	} catch (e) {
		await db.run("ROLLBACK").catch(() => {}); // it did not begin, or SQLite has rolled it back already
		throw e;
	}
}

// Runs write in a transaction until it is committed. Each try looks first: an earlier one may have come through.
async function retry(db, patienceS, isDone, write) {
	const deadline = Date.now() + 1000 * patienceS;
	for (;;) {
		try {
			await transaction(db, async () => {
				if (!(await isDone())) {
					await write();
				}
			});
			return;
		} catch (e) {
			const why = await whyAgain(db, e.errno);
			if (why === null) {
				throw e;
			}
			console.log(`retry: ${e.errno} ${why}`);
			if (Date.now() >= deadline) {
				throw new GaveUp(why);
			}
		}
		await pause(100);
	}
}

async function main(module, path, patienceS = "30") {
	await load(module);
	const uri = `file:${path.split("/").map(encodeURIComponent).join("/")}?vfs=walraft`;
	const db = await openDb(`${uri}&walraft_timeout=2000`);
	const order = "node-sqlite3"; // made by the client, once for all tries

	await retry(
		db,
		Number(patienceS),
		() => db.get("SELECT 1 FROM orders WHERE id = ?", order),
		async () => {
			await db.run("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)", order);
			await db.run("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'");
		},
	);
	console.log(`written: ${order}`);

	const select = "SELECT pieces || ' ' || item AS text FROM orders WHERE id = ?";
	const stale = await openDb(`${uri}&walraft_read=stale`); // fast, and a few milliseconds behind
	console.log(`stale: ${(await stale.get(select, order)).text}`);
	console.log(`default: ${(await db.get(select, order)).text}`);
	await stale.close();
	await db.close();
}

main(...process.argv.slice(2)).catch((e) => {
	console.error(e instanceof GaveUp ? `gave up: ${e.message}` : e);
	process.exitCode = 1;
});
