#!/usr/bin/python3
"""Every program of test/examples whose language Debian has; see examples.py for what is done with it."""
import os
import subprocess

import harness
from examples import Language, example, run_all
from harness import Test

t = Test(__file__)
GO_ENV = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOPROXY": "off", "CGO_ENABLED": "1",
          "GOCACHE": t.tmp("go-cache"), "HOME": t.dir}
GO = ["/usr/bin/env"] + ["%s=%s" % kv for kv in GO_ENV.items()] + ["/usr/bin/go"]
PHP = ["/usr/bin/php", "-d", "sqlite3.extension_dir=" + os.path.dirname(harness.MODULE)]
BUILT_C = os.path.join(harness.BUILD, "test/examples/order")
BUILT_GO = os.path.join(t.dir, "order_go")

LANGUAGES = [
	Language("C", "c", [BUILT_C], ["/usr/bin/test", "-x", BUILT_C]),
	Language("Python sqlite3", "python-sqlite3", [harness.PYTHON, example("order_sqlite3.py")],
	         [harness.PYTHON, "-c", "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)"]),
	Language("Python SQLAlchemy", "python-sqlalchemy", [harness.PYTHON, example("order_sqlalchemy.py")],
	         [harness.PYTHON, "-c", "import sqlalchemy"]),
	Language("PHP PDO", "php-pdo", PHP + [example("order_pdo.php")],
	         PHP + ["-r", "exit(extension_loaded('pdo_sqlite') && extension_loaded('sqlite3') ? 0 : 1);"]),
	Language("PHP SQLite3", "php-sqlite3", PHP + [example("order_sqlite3.php")],
	         PHP + ["-r", "exit(extension_loaded('sqlite3') ? 0 : 1);"]),
	Language("Ruby", "ruby", ["/usr/bin/ruby", example("order.rb")], ["/usr/bin/ruby", "-e", "require 'sqlite3'"]),
	Language("Perl", "perl", ["/usr/bin/perl", example("order.pl")], ["/usr/bin/perl", "-MDBD::SQLite=1.68", "-e", "1"]),
	Language("Tcl", "tcl", ["/usr/bin/tclsh", example("order.tcl")],
	         ["/bin/sh", "-c", "echo 'package require sqlite3' >%s/probe && /usr/bin/tclsh %s/probe" % (t.dir, t.dir)], 10),
	Language("Go", "go", [BUILT_GO], GO + ["list", "-find", "-tags", "libsqlite3", "github.com/mattn/go-sqlite3"]),
]


def build_go():
	"""Starts the compiler; it runs while others are tested. None: there is none."""
	lang = next(l for l in LANGUAGES if l.name == "Go")
	if harness.SANITIZER or lang.missing():
		return None
	return subprocess.Popen(GO + ["build", "-tags", "libsqlite3", "-o", BUILT_GO, example("order.go")], stdin=subprocess.DEVNULL,
	                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=harness.die_with_parent)


@t.case(", ".join(lang.name for lang in LANGUAGES))
def examples():
	chosen = [lang for lang in LANGUAGES if t.args.case in lang.name] or LANGUAGES
	compiler = build_go() if any(lang.name == "Go" for lang in chosen) else None

	def prepare(lang):
		if harness.SANITIZER and lang.name not in ("C", "Python sqlite3"):
			return "not beside a sanitizer's runtime"
		why = lang.missing()
		if lang.name == "Go" and not why:
			out, _ = compiler.communicate(timeout=120)
			t.need(compiler.returncode == 0, "Go: it is compiled", out)
		return why

	run_all(t, chosen, prepare)


t.run()
