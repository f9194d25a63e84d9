#!/usr/bin/python3
"""PRAGMAs on a replicated database: the same as on a plain one, or an error that says why not; the database stays what it is either way.

Each case runs its statements on both, writes a row, and compares what they answered, the two nodes, and the content."""
import hosts
from harness import Test

t = Test(__file__, deadline_s=200)
pairs = hosts.Pairs(t)
ADD = "INSERT INTO seed VALUES(1)"

pairs.sql("journal_mode asked", ["PRAGMA journal_mode", "PRAGMA main.journal_mode", "PRAGMA journal_mode=wal", "PRAGMA journal_mode='WAL'", "PRAGMA temp.journal_mode"])
MODES = ["PRAGMA journal_mode=" + m for m in ("delete", "truncate", "persist", "memory", "off")]
pairs.sql("journal_mode set", [*MODES, "PRAGMA main.journal_mode='delete'", "PRAGMA journal_mode=nonsense", "PRAGMA journal_mode", "PRAGMA temp.journal_mode=memory",
                                 "PRAGMA journal_mode=wal"],
          differ=dict({s: "error 1: .*stays in WAL mode.*refused" for s in [*MODES, "PRAGMA main.journal_mode='delete'", "PRAGMA journal_mode=nonsense"]}, **{"PRAGMA journal_mode": "^wal$"}))
pairs.sql("journal_mode in a transaction", ["BEGIN", ADD, "PRAGMA journal_mode=delete", ADD, "COMMIT", "SELECT count(*) FROM seed"],
          differ={"PRAGMA journal_mode=delete": "error 1: .*stays in WAL mode"})
pairs.sql("locking_mode", ["PRAGMA locking_mode", "PRAGMA locking_mode=normal", "PRAGMA locking_mode=exclusive", ADD, "PRAGMA main.locking_mode=exclusive", "PRAGMA locking_mode=normal", ADD, "PRAGMA main.locking_mode=normal"],
          differ={s: "error 1: .*shared with its node.*refused" for s in ("PRAGMA locking_mode=exclusive", "PRAGMA main.locking_mode=exclusive")})
pairs.sql("synchronous", [s for v in ("off", "normal", "full", "extra", "0", "nonsense", "2") for s in ("PRAGMA synchronous=" + v, "PRAGMA synchronous", ADD)])
pairs.sql("fullfsync", ["PRAGMA fullfsync=1", "PRAGMA checkpoint_fullfsync=1", ADD, "PRAGMA fullfsync", "PRAGMA fullfsync=0"])
pairs.sql("page_size", ["PRAGMA page_size", "PRAGMA page_size=512", "VACUUM", "PRAGMA page_size", "PRAGMA page_size=4096"])
pairs.sql("encoding", ["PRAGMA encoding", "PRAGMA encoding='UTF-16'", "PRAGMA encoding", "SELECT hex(CAST('a' AS BLOB))"])
pairs.sql("auto_vacuum", ["PRAGMA auto_vacuum", "PRAGMA auto_vacuum=1", "PRAGMA auto_vacuum", "VACUUM", "PRAGMA auto_vacuum", "PRAGMA auto_vacuum=0", "VACUUM", "PRAGMA auto_vacuum"])
pairs.sql("secure_delete", ["PRAGMA secure_delete", "PRAGMA secure_delete=on", "CREATE TABLE sd(a)", "INSERT INTO sd VALUES(zeroblob(20000))", "DELETE FROM sd", "PRAGMA secure_delete=fast",
                            "PRAGMA secure_delete=off", "DROP TABLE sd"])
pairs.sql("cache_size", ["PRAGMA cache_size", "PRAGMA cache_size=3", "PRAGMA cache_spill", "PRAGMA cache_spill=1", "CREATE TABLE cs(a)", "BEGIN",
                         "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO cs SELECT zeroblob(3000) FROM n", "COMMIT", "SELECT count(*), sum(length(a)) FROM cs",
                         "PRAGMA cache_size=-2000", "PRAGMA default_cache_size=100", "PRAGMA default_cache_size", "PRAGMA default_cache_size=0", "DROP TABLE cs"])
pairs.sql("cell_size_check", ["PRAGMA cell_size_check=1", ADD, "SELECT count(*) FROM seed", "PRAGMA cell_size_check", "PRAGMA cell_size_check=0"])
pairs.sql("user_version", ["PRAGMA user_version=42", "PRAGMA user_version", "BEGIN", "PRAGMA user_version=43", "ROLLBACK", "PRAGMA user_version", "PRAGMA application_id=7", "PRAGMA application_id"])
pairs.sql("schema_version", ["CREATE TABLE sv(a)", "PRAGMA schema_version > 0", "DROP TABLE sv"])
pairs.sql("writable_schema", ["CREATE TABLE ws(a)", "PRAGMA writable_schema=1", "UPDATE sqlite_schema SET sql = 'CREATE TABLE ws(a, b)' WHERE name = 'ws'", "PRAGMA writable_schema=reset",
                              "INSERT INTO ws VALUES(1, 2)", "SELECT a, b FROM ws", "DROP TABLE ws"])
pairs.sql("temp_store", ["PRAGMA temp_store", "PRAGMA temp_store=memory", "CREATE TEMP TABLE ts(a)", "INSERT INTO ts VALUES(zeroblob(10000))", "PRAGMA temp_store=file", "CREATE TEMP TABLE ts(a)",
                         "INSERT INTO ts VALUES(zeroblob(10000))", "SELECT count(*) FROM ts", "DROP TABLE ts", "PRAGMA temp_store=default"])
pairs.sql("query_only", ["PRAGMA query_only=1", ADD, "PRAGMA query_only=0", ADD])
pairs.sql("read_uncommitted", ["PRAGMA read_uncommitted", "PRAGMA read_uncommitted=1", "SELECT count(*) FROM seed", "PRAGMA read_uncommitted=0"])
pairs.sql("max_page_count", ["PRAGMA max_page_count=60", "CREATE TABLE mp(a)", "INSERT INTO mp VALUES(zeroblob(1000000))", "INSERT INTO mp VALUES(1)", "SELECT count(*) FROM mp", "DROP TABLE mp",
                             "PRAGMA max_page_count=1073741823"])
pairs.sql("journal_size_limit", ["PRAGMA journal_size_limit", "PRAGMA journal_size_limit=1000", ADD, "PRAGMA journal_size_limit", "PRAGMA journal_size_limit=-1"])
pairs.sql("busy_timeout", ["PRAGMA busy_timeout", "PRAGMA busy_timeout=77", "PRAGMA busy_timeout", "PRAGMA busy_timeout=5000"])
pairs.sql("wal_autocheckpoint", ["PRAGMA wal_autocheckpoint", "PRAGMA wal_autocheckpoint=5", *["INSERT INTO seed VALUES(%d)" % i for i in range(20)], "PRAGMA wal_autocheckpoint=0", ADD,
                                 "PRAGMA wal_autocheckpoint=1000"])
pairs.sql("foreign_keys", ["PRAGMA foreign_keys=1", "CREATE TABLE fk(a PRIMARY KEY)", "CREATE TABLE fk2(a REFERENCES fk)", "INSERT INTO fk2 VALUES(1)", "PRAGMA defer_foreign_keys=1", "BEGIN",
                           "PRAGMA defer_foreign_keys=1", "INSERT INTO fk2 VALUES(1)", "COMMIT", "INSERT INTO fk VALUES(1)", "COMMIT", "PRAGMA foreign_key_check", "PRAGMA foreign_keys=0",
                           "DROP TABLE fk2", "DROP TABLE fk"])
pairs.sql("checks", ["PRAGMA integrity_check", "PRAGMA quick_check", "PRAGMA page_count > 0", "PRAGMA freelist_count", "PRAGMA optimize", "ANALYZE", "REINDEX", "PRAGMA shrink_memory",
                     "PRAGMA incremental_vacuum"])
pairs.sql("other pragmas", ["PRAGMA recursive_triggers=1", "PRAGMA recursive_triggers=0", "PRAGMA reverse_unordered_selects=1", "SELECT count(*) FROM seed", "PRAGMA reverse_unordered_selects=0",
                            "PRAGMA threads=2", "PRAGMA threads=0", "PRAGMA trusted_schema=0", "PRAGMA trusted_schema=1", "PRAGMA automatic_index=0", "PRAGMA automatic_index=1",
                            "PRAGMA case_sensitive_like=1", "PRAGMA case_sensitive_like=0", "PRAGMA ignore_check_constraints=1", "PRAGMA ignore_check_constraints=0", "PRAGMA legacy_alter_table=1",
                            "PRAGMA legacy_alter_table=0", "PRAGMA data_store_directory", "PRAGMA nonsense=1", "PRAGMA nonsense", "PRAGMA table_info(seed)", "SELECT count(*) FROM pragma_pragma_list"])

hosts.run(t, pairs)
