package consumer_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	_ "github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"jobtally/consumer"
)

// childRole is what a process of this binary is that a test starts: a server, or a consumer that is killed.
const childRole = "CONSUMER_TEST_CHILD"

func TestMain(m *testing.M) {
	role := os.Getenv(childRole)
	if role == "" {
		for _, name := range []string{"API", "PROJECTOR", "OPERATOR", "CONSUMER"} { // for deploy/nats/jobtally.conf
			os.Setenv("NATS_"+name+"_PASSWORD", `"secret"`)
		}
		os.Exit(m.Run())
	}
	err := map[string]func(args []string) error{"server": serve, "durable": consumeDurable, "kept": consumeKept}[role](os.Args[1:])
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// child is a process that was started. Its lines come on a channel that is closed when it is gone.
type child struct {
	*exec.Cmd
	lines chan string
}

func startChild(t testing.TB, role string, args ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0], args...), lines: make(chan string, 1000)}
	c.Env, c.Stderr = append(os.Environ(), childRole+"="+role), os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.lines <- lines.Text()
		}
	}()
	return c
}

// kill ends the process at once and returns the lines that were not taken.
func (c *child) kill() (left []string) {
	c.Process.Kill()
	for line := range c.lines {
		left = append(left, line)
	}
	c.Wait()
	return left
}

// serve is a NATS server on a port and a directory.
func serve(args []string) error {
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: args[1], NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		return errors.New("not ready")
	}
	fmt.Println("ready")
	s.WaitForShutdown()
	return nil
}

// consumeDurable prints each position before it acks it.
func consumeDurable(args []string) error {
	nc, err := nats.Connect(args[0])
	if err != nil {
		return err
	}
	s, err := consumer.NewSubscriber(consumer.Config{Conn: nc, Durable: "d", AckWait: ackWait})
	if err != nil {
		return err
	}
	messages, err := s.Subscribe(context.Background(), "DECISIONS_0")
	if err != nil {
		return err
	}
	for msg := range messages {
		fmt.Println(msg.Metadata.Get(consumer.MetadataSequence))
		msg.Ack()
	}
	return s.Err()
}

// consumeKept takes each message into a table in one transaction with the checkpoint, and prints it then.
func consumeKept(args []string) error {
	db, err := sql.Open("sqlite3", args[1])
	if err != nil {
		return err
	}
	nc, err := nats.Connect(args[0])
	if err != nil {
		return err
	}
	s, err := consumer.NewSubscriber(consumer.Config{Conn: nc, Start: func(ctx context.Context, _ string) (consumer.Start, error) {
		var last uint64
		err := db.QueryRowContext(ctx, "SELECT position FROM checkpoint").Scan(&last)
		return consumer.After(last), err
	}})
	if err != nil {
		return err
	}
	messages, err := s.Subscribe(context.Background(), "DECISIONS_0")
	if err != nil {
		return err
	}
	for msg := range messages {
		position, err := consumer.PositionOf(msg)
		if err != nil {
			return err
		}
		if _, err := db.Exec("BEGIN; INSERT INTO taken (position) VALUES (?); UPDATE checkpoint SET position = ?; COMMIT",
			position.Sequence, position.Sequence); err != nil {
			return err
		}
		fmt.Println(position.Sequence)
		msg.Ack()
	}
	return s.Err()
}
