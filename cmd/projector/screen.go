package main

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// screen shows one text after another: on a terminal in the place of the one before, elsewhere below it.
type screen struct {
	w      io.Writer
	redraw bool
	shown  bool
}

func (s *screen) show(text string) error {
	if s.redraw {
		text = s.redrawn(text)
	}
	_, err := io.WriteString(s.w, text)
	return err
}

// redrawn starts at the top, and wipes what is left of the text before: nothing flickers.
func (s *screen) redrawn(text string) string {
	const home, clearScreen, clearLine, clearBelow = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"
	start := home
	if !s.shown {
		start, s.shown = home+clearScreen, true
	}
	text = strings.TrimSuffix(s.cut(text), "\n")
	return start + strings.ReplaceAll(text, "\n", clearLine+"\n") + clearLine + clearBelow
}

// cut leaves out the lines at the end for which the terminal has no room: it would scroll.
func (s *screen) cut(text string) string {
	f, ok := s.w.(*os.File)
	if !ok {
		return text
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row < 2 || size.Col == 0 {
		return text
	}
	var kept strings.Builder
	room := int(size.Row) - 1 // the last line is for saying that some are left out
	for line := range strings.Lines(text) {
		if room -= 1 + (len(line)-2)/int(size.Col); room < 0 {
			return kept.String() + "...\n"
		}
		kept.WriteString(line)
	}
	return kept.String()
}
