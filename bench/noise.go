package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// noise tells how much of the processors others used while the bench ran.
type noise struct {
	since time.Time
	busy  time.Duration // of all processors since the machine started
	own   time.Duration // of the bench and of its processes that ended
}

func listen() noise {
	return noise{since: time.Now(), busy: machineBusy(), own: ownTime(syscall.RUSAGE_SELF) + ownTime(syscall.RUSAGE_CHILDREN)}
}

// others returns the share of the processors that others, the kernel's own threads among them, used since.
func (n noise) others(cores int) float64 {
	now := listen()
	foreign := (now.busy - n.busy) - (now.own - n.own)
	return max(0, foreign.Seconds()) / (now.since.Sub(n.since).Seconds() * float64(cores))
}

// machineBusy reads the first line of /proc/stat: ticks of a hundredth of a second.
func machineBusy() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var user, nice, system, idle, wait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &softirq, &steal); err != nil {
		return 0
	}
	return time.Duration(user+nice+system+irq+softirq+steal) * 10 * time.Millisecond
}

func ownTime(who int) time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(who, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
