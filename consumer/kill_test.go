package consumer_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"
)

const (
	kills    = 6
	ofKilled = 600 // messages that are consumed meanwhile
)

// killing runs a consumer and kills it at a random message, again and again, until one has them all. It returns what they printed.
func killing(t *testing.T, role string, args ...string) (printed []string) {
	t.Helper()
	for i := 0; ; i++ {
		c := startChild(t, role, args...)
		for n := rand.IntN(ofKilled / kills); i == kills || n > 0; n-- {
			select {
			case line, ok := <-c.lines:
				if !ok {
					t.Fatal("the consumer ended by itself")
				}
				printed = append(printed, line)
			case <-time.After(patience):
				c.kill()
				t.Fatalf("nothing comes after %v", printed[max(0, len(printed)-3):])
			}
			if printed[len(printed)-1] == fmt.Sprint(ofKilled) {
				c.kill()
				return printed
			}
		}
		printed = append(printed, c.kill()...)
	}
}

// A durable consumer that is killed goes on with the message that it had: in order, nothing lost, and of each death at most one
// message comes twice.
func TestOrderSurvivesKill9(t *testing.T) {
	s := startServer(t)
	makeDecisions(t, connect(t, s), 1).capture(0, "anna", ofKilled)
	last, twice := 0, 0
	for _, line := range killing(t, "durable", s.ClientURL()) {
		switch line {
		case fmt.Sprint(last + 1):
			last++
		case fmt.Sprint(last):
			twice++
		default:
			t.Fatalf("%s comes after %d", line, last)
		}
	}
	if last != ofKilled || twice > kills {
		t.Errorf("%d of %d messages came, %d of them twice", last, ofKilled, twice)
	}
}

// Who writes the checkpoint in one transaction with what it makes of a message, makes it once.
func TestEffectsOfAConsumerThatIsKilledAreExactlyOnce(t *testing.T) {
	s := startServer(t)
	makeDecisions(t, connect(t, s), 1).capture(0, "anna", ofKilled)
	path := filepath.Join(t.TempDir(), "taken.db")
	db, err := sql.Open("sqlite3", path+"?_journal_mode=WAL")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE taken (n INTEGER PRIMARY KEY, position INTEGER); CREATE TABLE checkpoint (position INTEGER);
		INSERT INTO checkpoint VALUES (0)`); err != nil {
		t.Fatal(err)
	}
	killing(t, "kept", s.ClientURL(), path)
	var all, inOrder int
	if err := db.QueryRow("SELECT count(*), sum(n = position) FROM taken").Scan(&all, &inOrder); err != nil {
		t.Fatal(err)
	}
	if all != ofKilled || inOrder != ofKilled {
		t.Errorf("%d messages were taken in, %d in their place, of %d", all, inOrder, ofKilled)
	}
}
