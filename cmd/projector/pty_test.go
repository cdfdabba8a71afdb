package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// newTerminal opens a terminal of a width. seen closes it and returns what was written to it.
func newTerminal(t *testing.T, columns uint16) (_ *os.File, seen func() string) {
	t.Helper()
	master, screen := pty(t, 24, columns)
	text := make(chan string)
	go func() {
		var b strings.Builder
		for r := bufio.NewReader(master); ; {
			c, err := r.ReadByte() // fails once the other end is closed
			if err != nil {
				text <- b.String()
				return
			}
			b.WriteByte(c)
		}
	}()
	return screen, func() string {
		screen.Close()
		return <-text
	}
}

// pty returns the two sides of a terminal of so many lines and columns.
func pty(t *testing.T, lines, columns uint16) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns})
	}
	if err == nil {
		terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}
