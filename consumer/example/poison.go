package main

import (
	"encoding/json"
	"os"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// queue is a poison queue in a file: a user who may only read decisions has no stream for one. A line is a message, and why
// it is there.
type queue struct {
	mu   sync.Mutex
	file *os.File
}

var _ message.Publisher = (*queue)(nil)

func openQueue(path string) (*queue, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &queue{file: file}, err
}

// Publish returns once the messages are on disk: they are acknowledged then, and come no more.
func (q *queue) Publish(_ string, messages ...*message.Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, msg := range messages {
		line, err := json.Marshal(map[string]any{"id": msg.UUID, "metadata": msg.Metadata, "data": string(msg.Payload)})
		if err != nil {
			return err
		}
		if _, err := q.file.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return q.file.Sync()
}

// Close closes the file.
func (q *queue) Close() error { return q.file.Close() }
