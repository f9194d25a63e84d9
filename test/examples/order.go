// walraft in a Go application, with github.com/mattn/go-sqlite3.
//
// Usage: order MODULE DATABASE [SECONDS]
// Places one order in a database that is set up, and tries for so many seconds (30).
//
// Build it with -tags libsqlite3 for the system's SQLite, or without for the one in the package.
package main

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/mattn/go-sqlite3"
)

const notLeader = 22280

// After these the transaction may be tried again; nothing of it is there, but after UNKNOWN it may be.
var again = map[sqlite3.ErrNoExtended]string{
	5:     "locked",
	22282: "not committed",
	22538: "outcome unknown",
	22794: "leadership was lost",
	23050: "no majority answers",
}

// whyAgain tells why it is worth another try; "": it is not.
func whyAgain(db *sql.DB, code sqlite3.ErrNoExtended) (string, error) {
	var leader sql.NullString

	if code != notLeader {
		return again[code], nil
	}
	if err := db.QueryRow("SELECT walraft_leader()").Scan(&leader); err != nil {
		return "", err
	}
	if !leader.Valid {
		return "an election is under way", nil
	}
	return leader.String + " leads", nil
}

// transaction takes no context: one that ends would interrupt the COMMIT, and leave its outcome open.
func transaction(db *sql.DB, work func(*sql.Tx) error) error {
	tx, err := db.Begin() // BEGIN IMMEDIATE, by _txlock
	if err != nil {
		return err
	}
	if err := work(tx); err != nil {
		tx.Rollback()
		return err
	}
	return tx.Commit()
}

// retry runs write in a transaction until it is committed. Each try looks first: an earlier one may have come through.
func retry(db *sql.DB, patience time.Duration, isDone func(*sql.Tx) (bool, error), write func(*sql.Tx) error) error {
	deadline := time.Now().Add(patience)
	for {
		err := transaction(db, func(tx *sql.Tx) error {
			if done, err := isDone(tx); done || err != nil {
				return err
			}
			return write(tx)
		})
		var e sqlite3.Error
		if !errors.As(err, &e) {
			return err
		}
		why, err2 := whyAgain(db, e.ExtendedCode)
		if err2 != nil {
			return err2
		}
		if why == "" {
			return err
		}
		fmt.Printf("retry: %d %s\n", e.ExtendedCode, why)
		if !time.Now().Before(deadline) {
			return fmt.Errorf("gave up: %s", why)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// load loads the module, which stays loaded for the whole process.
func load(module string) error {
	sql.Register("walraft_loader", &sqlite3.SQLiteDriver{Extensions: []string{module}})
	loader, err := sql.Open("walraft_loader", ":memory:")
	if err != nil {
		return err
	}
	defer loader.Close()
	return loader.Ping()
}

func openDB(path, parameters string) (*sql.DB, error) {
	name := (&url.URL{Path: path}).EscapedPath()
	return sql.Open("sqlite3", "file:"+name+"?vfs=walraft&_busy_timeout=5000&"+parameters)
}

func run(module, path string, patience time.Duration) error {
	if err := load(module); err != nil {
		return err
	}
	db, err := openDB(path, "_txlock=immediate&walraft_timeout=2000")
	if err != nil {
		return err
	}
	defer db.Close()
	order := "go" // made by the client, once for all tries

	isDone := func(tx *sql.Tx) (done bool, err error) {
		err = tx.QueryRow("SELECT count(*) FROM orders WHERE id = ?", order).Scan(&done)
		return done, err
	}
	write := func(tx *sql.Tx) error {
		if _, err := tx.Exec("INSERT INTO orders(id, item, pieces) VALUES (?, 'pear', 2)", order); err != nil {
			return err
		}
		_, err := tx.Exec("UPDATE stock SET pieces = pieces - 2 WHERE item = 'pear'")
		return err
	}
	if err := retry(db, patience, isDone, write); err != nil {
		return err
	}
	fmt.Println("written:", order)

	stale, err := openDB(path, "walraft_read=stale") // fast, and a few milliseconds behind
	if err != nil {
		return err
	}
	defer stale.Close()
	for _, from := range []struct {
		level string
		db    *sql.DB
	}{{"stale", stale}, {"default", db}} {
		var text string
		if err := from.db.QueryRow("SELECT pieces || ' ' || item FROM orders WHERE id = ?", order).Scan(&text); err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", from.level, text)
	}
	return nil
}

func main() {
	patience := 30 * time.Second
	if len(os.Args) > 3 {
		seconds, _ := strconv.Atoi(os.Args[3])
		patience = time.Duration(seconds) * time.Second
	}
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: order MODULE DATABASE [SECONDS]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], patience); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
