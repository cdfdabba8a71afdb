package main

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pipeEvery is how often a pipe is looked at.
const pipeEvery = 250 * time.Millisecond

// whileRead returns a context that ends when nobody reads any more what is written: `projector tail | head -1` would
// otherwise go on until something is decided, and the write fails. Once stop has returned, w is not looked at any more:
// it may be closed.
func whileRead(ctx context.Context, w io.Writer) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	f, is := w.(*os.File)
	if !is {
		return ctx, cancel
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		look := time.NewTicker(pipeEvery)
		defer look.Stop()
		for ctx.Err() == nil && !abandoned(f) {
			select {
			case <-look.C:
			case <-ctx.Done():
			}
		}
	}()
	return ctx, func() {
		cancel()
		<-ended
	}
}

// abandoned says whether a file is a pipe, a socket or a terminal that has lost its other end.
func abandoned(f *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(f.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
}
