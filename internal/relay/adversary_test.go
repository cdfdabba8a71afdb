package relay

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"jobtally/internal/webhook"
)

// TestAnswersThatNeverEnd has an endpoint that takes over its connection, or goes on for ever in other ways.
func TestAnswersThatNeverEnd(t *testing.T) {
	for name, answer := range map[string]string{
		"switches protocols": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"no protocol":        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"half a header":      "HTTP/1.1 200 OK\r\nA: ",
		"half a body":        "HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nx",
		"half a chunk":       "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx",
		"many hints":         strings.Repeat("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
			defer listener.Close()
			closed := make(chan bool, 1)
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 64<<10)); err != nil {
					return
				}
				conn.Write([]byte(answer))
				conn.SetReadDeadline(time.Now().Add(deadline))
				for err == nil {
					_, err = conn.Read(make([]byte, 64<<10))
				}
				timeout, is := err.(net.Error)
				closed <- !is || !timeout.Timeout()
			}()
			h := newHouse(t)
			cfg := h.config()
			cfg.timeout = 200 * time.Millisecond
			r := open(t, cfg)
			e := create(t, r, "demo", "http://"+listener.Addr().String())
			began := time.Now()
			d := must[webhook.Delivery](t)(r.Test(within(t), "demo", e.ID))
			if took := time.Since(began); took > deadline/2 || d.Outcome != webhook.Failed {
				t.Errorf("after %s: %+v", took, d)
			}
			if !<-closed {
				t.Error("its connection is left open")
			}
		})
	}
}

// TestAnswersOfHTTP2ThatNeverEnd has an endpoint of HTTP/2 answer nothing, and a body without end.
func TestAnswersOfHTTP2ThatNeverEnd(t *testing.T) {
	asked := make(chan string, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Proto
		if r.URL.Path == "/body" {
			w.WriteHeader(http.StatusInternalServerError)
			for r.Context().Err() == nil {
				w.Write(make([]byte, 1<<10))
			}
		}
		<-r.Context().Done()
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	h := newHouse(t)
	cfg := h.config()
	cfg.timeout, cfg.RootCAs = 10*time.Second, x509.NewCertPool() // in which the question has to arrive
	cfg.RootCAs.AddCert(server.Certificate())
	r := open(t, cfg)
	for path, want := range map[string]string{"/body": "it answered 500 Internal Server Error", "/nothing": "it did not answer within 10s"} {
		e := create(t, r, "demo", server.URL+path)
		if d := must[webhook.Delivery](t)(r.Test(within(t), "demo", e.ID)); d.Error != want {
			t.Errorf("%s: %+v", path, d)
		}
		if proto := <-asked; proto != "HTTP/2.0" {
			t.Errorf("%s was asked by %s", path, proto)
		}
	}
}
