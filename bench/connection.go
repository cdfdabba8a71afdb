package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// connection is one keep-alive connection to an HTTP server. It does the least that a client can: it shares the
// machine with what it measures.
type connection struct {
	conn net.Conn
	in   *bufio.Reader
	body []byte
	etag string // of the last answer that had one
}

// dial connects to a server on loopback. The connection is of no use after the deadline.
func dial(addr string, deadline time.Time) (*connection, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &connection{conn: conn, in: bufio.NewReader(conn)}, nil
}

func (c *connection) close() error { return c.conn.Close() }

// exchange sends a request and reads the answer to it. The body is valid until the next exchange.
func (c *connection) exchange(request []byte) (status int, body []byte, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	const before = len("HTTP/1.1 ")
	if len(line) < before+3 {
		return 0, nil, fmt.Errorf("no status line: %q", line)
	}
	if status, err = strconv.Atoi(string(line[before : before+3])); err != nil {
		return 0, nil, err
	}
	length, err := c.header()
	if err != nil {
		return status, nil, err
	}
	if status == 304 {
		return status, nil, nil
	}
	body, err = c.read(length)
	return status, body, err
}

// header reads to the end of the header, and returns the length of the body, or -1 when it is not said.
func (c *connection) header() (length int, err error) {
	for length = -1; ; {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= len("\r\n") {
			return length, nil
		}
		if value, ok := cutName(line, "Content-Length: "); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		} else if value, ok := cutName(line, "Etag: "); ok && c.etag != string(value) {
			c.etag = string(value)
		}
	}
}

// cutName returns the value of a header line if it has that name, written as Go's servers write it.
func cutName(line []byte, name string) (value []byte, ok bool) {
	if len(line) < len(name) || string(line[:len(name)]) != name {
		return nil, false
	}
	return bytes.TrimRight(line[len(name):], "\r\n"), true
}

func (c *connection) read(length int) ([]byte, error) {
	if length < 0 {
		return nil, errors.New("the answer has no Content-Length")
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	for read := 0; read < length; {
		n, err := c.in.Read(c.body[read:])
		if err != nil {
			return nil, err
		}
		read += n
	}
	return c.body, nil
}
