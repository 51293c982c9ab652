package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/http2"
	"tailscale.com/control/controlhttp/controlhttpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

func (s *server) serveKey(w http.ResponseWriter, r *http.Request) {
	// Clients that get no legacy key ask again before every login, so it is sent although nothing uses it.
	pub := s.st.Noise.Public()
	json.NewEncoder(w).Encode(tailcfg.OverTLSPublicKeyResponse{LegacyPublicKey: pub, PublicKey: pub})
}

func (s *server) serveNoise(w http.ResponseWriter, r *http.Request) {
	conn, err := controlhttpserver.AcceptHTTP(r.Context(), w, r, s.st.Noise, nil)
	if err != nil {
		log.Printf("noise: %v", err)
		return
	}
	defer conn.Close()
	s.noise.Store(conn, nil)
	defer s.noise.Delete(conn)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /machine/register", func(w http.ResponseWriter, r *http.Request) { s.register(w, r, conn.Peer()) })
	mux.HandleFunc("POST /machine/map", func(w http.ResponseWriter, r *http.Request) { s.serveMap(w, r, conn.Peer()) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { // clients do without the rest
		log.Printf("noise: %s %s: not served", r.Method, r.URL.Path)
		http.NotFound(w, r)
	})
	new(http2.Server).ServeConn(conn, &http2.ServeConnOpts{Context: r.Context(), Handler: mux})
}

var owner = tailcfg.UserProfile{ID: 1, LoginName: "tagged-devices", DisplayName: "Tagged Devices"}

func (s *server) register(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	var req tailcfg.RegisterRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&req); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	if req.Followup != "" { // the client waits for a person to log in, and here is none
		<-r.Context().Done()
		return
	}
	s.mu.Lock()
	res := s.login(&req, machine)
	s.mu.Unlock()
	log.Printf("register %v: error=%q authURL=%v expired=%v", req.NodeKey.ShortString(), res.Error, res.AuthURL != "", res.NodeKeyExpired)
	json.NewEncoder(w).Encode(res)
}

// login decides what a registration gets.
func (s *server) login(req *tailcfg.RegisterRequest, machine key.MachinePublic) *tailcfg.RegisterResponse {
	ok := &tailcfg.RegisterResponse{MachineAuthorized: true,
		User:  tailcfg.User{ID: owner.ID, DisplayName: owner.DisplayName},
		Login: tailcfg.Login{ID: 1, LoginName: owner.LoginName, DisplayName: owner.DisplayName}}
	now := time.Now()
	d := s.byKey(req.NodeKey)
	if d != nil && d.Machine != machine {
		return &tailcfg.RegisterResponse{Error: "node key belongs to another machine"}
	}
	if !req.Expiry.IsZero() && req.Expiry.Before(now) { // tailscale logout
		if d != nil {
			if d.Expired = true; d.Ephemeral {
				s.remove(d)
			}
			s.changed()
		}
		ok.NodeKeyExpired = true
		return ok
	}
	if d != nil && !d.Expired { // state was kept: an auth key that comes along does not matter
		return ok
	}
	if req.Auth == nil || req.Auth.AuthKey == "" {
		if d != nil {
			return &tailcfg.RegisterResponse{NodeKeyExpired: true, MachineAuthorized: true}
		}
		return &tailcfg.RegisterResponse{MachineAuthorized: true, AuthURL: "http://" + *listen + "/login/" + randHex(6)}
	}
	i := slices.IndexFunc(s.st.Keys, func(k *authKey) bool { return k.Secret == req.Auth.AuthKey })
	if i < 0 {
		return &tailcfg.RegisterResponse{Error: "invalid auth key"}
	}
	k := s.st.Keys[i]
	if p := k.problem(); p != "" {
		return &tailcfg.RegisterResponse{Error: p}
	}
	k.Uses++
	if d == nil { // a machine that logs in again stays the device it was
		d = s.find(func(x *device) bool { return x.Machine == machine && (x.Key == req.OldNodeKey || x.Expired) })
	}
	if d == nil {
		s.st.NextID++
		n := s.st.NextID
		v4 := netip.AddrFrom4([4]byte{100, 64 + byte(n>>16), byte(n >> 8), byte(n)})
		v6 := netip.MustParseAddr(fmt.Sprintf("fd7a:115c:a1e0::%x:%x", n>>16, n&0xffff))
		d = &device{ID: tailcfg.NodeID(n), Stable: fmt.Sprintf("n%dCNTRL", n), Machine: machine, Created: now, Seen: now,
			Addrs: []netip.Prefix{netip.PrefixFrom(v4, 32), netip.PrefixFrom(v6, 128)}}
		s.st.Devices = append(s.st.Devices, d)
	}
	d.Key, d.Expired, d.Tags, d.AuthKeyID = req.NodeKey, false, k.Tags, k.ID
	d.Ephemeral = k.Ephemeral || req.Ephemeral
	s.learn(d, req.Hostinfo)
	s.changed()
	return ok
}

// learn takes over what the node tells about itself.
func (s *server) learn(d *device, hi *tailcfg.Hostinfo) {
	if hi == nil {
		return
	}
	if (hi.Hostname != d.Hostname && !d.Named) || d.Name == "" {
		d.Name = s.uniqueName(hi.Hostname, d)
	}
	d.Hostname, d.OS, d.Version, d.Services = hi.Hostname, hi.OS, hi.IPNVersion, hi.ServicesHash
	d.Info = &tailcfg.Hostinfo{OS: hi.OS, Hostname: hi.Hostname, Services: hi.Services}
	if hi.NetInfo != nil && hi.NetInfo.PreferredDERP != 0 {
		d.DERP = hi.NetInfo.PreferredDERP
	}
}
