package consumer_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/consumer"
)

const (
	kills    = 6
	ofKilled = 600 // messages that are consumed meanwhile

	// ackWait is so long that who lives gives a sign of life in it on a machine that is busy with something else, too.
	ackWait = 3 * time.Second
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
	t.Parallel()
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

// killableServer is a NATS server in a process of its own, on a port that stays its.
type killableServer struct {
	t         *testing.T
	port, dir string
	*child
}

func startKillable(t *testing.T) *killableServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &killableServer{t: t, port: fmt.Sprint(l.Addr().(*net.TCPAddr).Port), dir: t.TempDir()}
	l.Close()
	s.start()
	t.Cleanup(func() { s.kill() })
	return s
}

func (s *killableServer) start() {
	s.t.Helper()
	s.child = startChild(s.t, "server", s.port, s.dir)
	select {
	case <-s.lines:
	case <-time.After(patience):
		s.t.Fatal("the server does not start")
	}
}

// A server that is killed and started again goes on: nothing is lost, and the order holds. It writes down what was acknowledged to a
// durable consumer a little later, and so goes back by that; the checkpoint of the caller goes back by nothing.
// (watermill's own test of this, TestReconnect, has a race in itself that the detector finds. Without it, it passes.)
func TestAServerThatIsKilledInterrupts(t *testing.T) {
	const times, each = 4, 50
	bothWays(t, func(t *testing.T, durable string) {
		s := startKillable(t)
		nc, err := nats.Connect("nats://127.0.0.1:"+s.port, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		d := makeDecisions(t, nc, 1)
		d.capture(0, "anna", times*each)
		messages := subscribe(t, newSubscriber(t, consumer.Config{Conn: nc, Durable: durable, AckWait: ackWait}), "DECISIONS_0")
		last, backs := uint64(0), 0
		for i := range times {
			for n := 0; n < each || i == times-1 && last < times*each; n++ {
				msg := take(t, messages)
				p, _ := consumer.PositionOf(msg)
				if p.Sequence != last+1 {
					if backs++; durable == "" || backs > i || p.Sequence > last {
						t.Fatalf("%d comes after %d", p.Sequence, last)
					}
				}
				last = p.Sequence
				msg.Ack()
			}
			s.kill()
			s.start()
		}
	})
}
