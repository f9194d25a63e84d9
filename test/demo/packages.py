"""A real database of this machine's Debian packages: all available and installed ones, their fields and dependencies."""
import os
import re
import sqlite3
import subprocess

SCHEMA = """
CREATE TABLE package(
	id INTEGER PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, architecture TEXT, section TEXT, priority TEXT,
	source TEXT, maintainer TEXT, homepage TEXT, installed_kib INTEGER, size INTEGER, summary TEXT,
	installed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE dependency(
	id INTEGER PRIMARY KEY, package INTEGER NOT NULL REFERENCES package(id), kind TEXT NOT NULL, name TEXT NOT NULL,
	relation TEXT);
CREATE VIRTUAL TABLE search USING fts5(name, summary);
"""
INDEXES = """
CREATE INDEX package_name ON package(name);
CREATE INDEX dependency_name ON dependency(name);
CREATE INDEX dependency_package ON dependency(package);
"""
KINDS = ("Depends", "Pre-Depends", "Recommends", "Suggests", "Conflicts", "Breaks", "Replaces", "Provides")
_DEP = re.compile(r"\s*([^\s(:\[]+)(?::\S+)?\s*(?:\(([^)]*)\))?")


def paragraphs(lines):
	"""Debian control paragraphs as dicts; of a continued field only the first line."""
	p = {}
	for line in lines:
		if line == "\n":
			if p:
				yield p
			p = {}
		elif line[0] not in " \t":
			key, _, value = line.partition(":")
			p[key] = value.strip()
	if p:
		yield p


def sources():
	"""(where from, whether all in it are installed, iterator of paragraphs), the fullest that this machine has."""
	def available():
		try:
			p = subprocess.Popen(["apt-cache", "dumpavail"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
			                     errors="replace")
		except FileNotFoundError:
			return
		yield from paragraphs(p.stdout)
		p.wait()

	def status():
		if os.path.exists("/var/lib/dpkg/status"):
			with open("/var/lib/dpkg/status", errors="replace") as f:
				yield from paragraphs(f)
	return available(), (p for p in status() if " installed" in p.get("Status", ""))


def build(path):
	"""Makes the database; returns counts."""
	con = sqlite3.connect(path, isolation_level=None)
	con.executescript("PRAGMA journal_mode=off; PRAGMA synchronous=off;" + SCHEMA + "BEGIN;")
	available, installed = sources()
	seen, n = {}, 0
	deps = []

	def put(p, is_installed):
		nonlocal n
		key = (p.get("Package"), p.get("Version"), p.get("Architecture"))
		if not key[0] or not key[1]:
			return
		if key in seen:
			if is_installed:
				con.execute("UPDATE package SET installed = 1 WHERE id = ?", (seen[key],))
			return
		n += 1
		seen[key] = n
		summary = p.get("Description", p.get("Description-en", ""))
		con.execute("INSERT INTO package VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)", (
			n, *key, p.get("Section"), p.get("Priority"), p.get("Source"), p.get("Maintainer"), p.get("Homepage"),
			p.get("Installed-Size"), p.get("Size"), summary, is_installed))
		con.execute("INSERT INTO search(rowid, name, summary) VALUES(?,?,?)", (n, key[0], summary))
		for kind in KINDS:
			for alternatives in p.get(kind, "").split(","):
				for one in alternatives.split("|"):
					m = _DEP.match(one)
					if m:
						deps.append((n, kind, m[1], m[2]))
		if len(deps) > 20000:
			con.executemany("INSERT INTO dependency(package, kind, name, relation) VALUES(?,?,?,?)", deps)
			deps.clear()

	for p in available:
		put(p, 0)
	for p in installed:
		put(p, 1)
	con.executemany("INSERT INTO dependency(package, kind, name, relation) VALUES(?,?,?,?)", deps)
	con.execute("COMMIT")
	con.executescript(INDEXES)
	counts = {t: con.execute("SELECT count(*) FROM " + t).fetchone()[0] for t in ("package", "dependency", "search")}
	counts["installed"] = con.execute("SELECT sum(installed) FROM package").fetchone()[0]
	con.close()
	return counts
