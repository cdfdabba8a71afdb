package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
)

// aside does what is not to be measured, and labels it in a profile: `go tool pprof -tagignore side=bench` leaves out
// what the bench did in the process of the service.
func aside(ctx context.Context, do func()) {
	pprof.Do(ctx, pprof.Labels("side", "bench"), func(context.Context) { do() })
}

func (s *suite) newProfile(name string) *profile {
	return &profile{path: filepath.Join(s.profiles, "cpu-"+name+".pprof")}
}

// profiled runs a load. In process it writes a CPU profile of the time after the warm-up.
func (s *suite) profiled(ctx context.Context, name string, l *load) (r loaded, err error) {
	if !s.inProcess {
		return l.run(ctx)
	}
	p := s.newProfile(name)
	l.started = p.start
	r, err = l.run(ctx)
	return r, errors.Join(err, p.stop())
}

// profile is a CPU profile in a file, from its start on.
type profile struct {
	path string

	mu   sync.Mutex // guards the fields below: it is started by a timer
	file *os.File
	err  error
}

func (p *profile) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file, p.err = os.Create(p.path); p.err == nil {
		p.err = pprof.StartCPUProfile(p.file)
	}
}

func (p *profile) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return p.err
	}
	pprof.StopCPUProfile()
	return errors.Join(p.err, p.file.Close())
}
