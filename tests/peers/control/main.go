// Command control is the tests' tailnet: real tailscaled nodes log in to it, it relays for them (DERP and STUN are built
// in), and it answers the part of Tailscale's API v2 that the operator uses. Everything goes over one port of plain http,
// lives in memory and may be mirrored to a file. It trusts whoever talks to it: never run it outside a test.
//
//	control -listen 10.97.0.1:8080 -suffix mesh.test -client-secret S -client-tags tag:operator
//
// The login URL of the nodes must be http:// with an IP literal and a port: with a host name tailscaled turns to port 443
// after the first lost connection and never comes back.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

var (
	listen       = flag.String("listen", "127.0.0.1:8080", "address of control, API and DERP (plain http)")
	stunAddr     = flag.String("stun", "", "STUN address; default: the host of -listen, port 3478; \"off\" for none")
	suffix       = flag.String("suffix", "mesh.test", "MagicDNS suffix")
	stateFile    = flag.String("state", "", "file that keeps server key, nodes, keys and policy across restarts")
	apiKey       = flag.String("api-key", "", "API token that is always valid")
	clientSecret = flag.String("client-secret", "", "OAuth client secret for /api/v2/oauth/token")
	clientTags   = flag.String("client-tags", "", "comma-separated tags of that OAuth client; empty: any tag may be assigned")
	tokenTTL     = flag.Duration("token-ttl", time.Hour, "life of an OAuth token")
	onDelete     = flag.String("on-delete", "silent", "what a deleted node sees: silent (no more news), expire (its key expired), drop (its poll ends)")
	offlineAfter = flag.Duration("offline-after", 5*time.Second, "how long after the end of its poll a node counts as offline")
)

// keepAlive is well under the 120 s after which clients give up on a silent poll.
const keepAlive = 50 * time.Second

// derpRegion is the one relay region there is.
const derpRegion = 900

// listener's connections end when the other end is gone without a word: its device is offline soon after.
var listener = net.ListenConfig{
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: gone / 2, Interval: gone / 4, Count: 2},
	Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(gone.Milliseconds()))
		})
		return errors.Join(failed, err)
	},
}

const (
	// gone is how long nothing is heard of the other end of a connection, which ends then.
	gone = 12 * time.Second
	// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h.
	tcpUserTimeout = 18
)

func main() {
	flag.Parse()
	host, port, err := net.SplitHostPort(*listen)
	if err != nil {
		log.Fatal(err)
	}
	s := &server{polls: map[tailcfg.NodeID]*poll{}, tokens: map[string]time.Time{}}
	if b, err := os.ReadFile(*stateFile); err == nil {
		if err := json.Unmarshal(b, &s.st); err != nil {
			log.Fatal(err)
		}
		for _, d := range s.st.Devices {
			d.Online = false
		}
	} else {
		s.st = state{Noise: key.NewMachine(), Policy: policy{Grants: []grant{{Src: []string{"*"}, Dst: []string{"*"}, IP: []string{"*"}}}}}
		s.st.PolicyID = randHex(16)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/key", s.serveKey)
	mux.HandleFunc("POST /ts2021", s.serveNoise)
	mux.HandleFunc("/generate_204", derpserver.ServeNoContent)
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	s.routes(mux)
	relay := derpserver.New(key.NewNode(), func(string, ...any) {})
	mux.Handle("/derp", derpserver.Handler(relay))
	mux.HandleFunc("/derp/", derpserver.ProbeHandler) // probes of the relay's latency
	if *stunAddr == "" {
		*stunAddr = net.JoinHostPort(host, "3478")
	}
	sport := -1
	if *stunAddr != "off" {
		st := stunserver.New(context.Background())
		if err := st.Listen(*stunAddr); err != nil {
			log.Fatal(err)
		}
		go st.Serve()
		sport = st.LocalAddr().(*net.UDPAddr).Port
	}
	dp, _ := strconv.Atoi(port)
	s.derp = &tailcfg.DERPMap{OmitDefaultRegions: true, Regions: map[int]*tailcfg.DERPRegion{derpRegion: {
		RegionID: derpRegion, RegionCode: "test", RegionName: "test", Nodes: []*tailcfg.DERPNode{{
			Name: "900a", RegionID: derpRegion, HostName: host, IPv4: host, IPv6: "none", STUNPort: sport, DERPPort: dp}}}}}
	ln, err := listener.Listen(context.Background(), "tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("control listening on http://%s", ln.Addr())
	go s.comeAndGo()
	log.Fatal(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		relay := strings.HasPrefix(r.URL.Path, "/derp") || r.URL.Path == "/generate_204"
		if s.away.Load() && !relay {
			http.Error(w, "away", 503)
			return
		}
		mux.ServeHTTP(w, r)
	})))
}

// comeAndGo takes control and API away at SIGUSR1, connections that are open included, until SIGUSR2. The relay stays: it is another
// machine's in a real tailnet.
func (s *server) comeAndGo() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	for x := range signals {
		s.away.Store(x == syscall.SIGUSR1)
		if s.away.Load() {
			s.noise.Range(func(conn, _ any) bool { conn.(io.Closer).Close(); return true })
		}
	}
}
