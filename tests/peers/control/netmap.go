package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/opt"
	"tailscale.com/util/zstdframe"
)

// node describes d to itself (self) or to its peers.
func (s *server) node(d *device, self bool) *tailcfg.Node {
	n := &tailcfg.Node{ID: d.ID, StableID: tailcfg.StableNodeID(d.Stable), Name: d.fqdn() + ".", User: owner.ID,
		Key: d.Key, Machine: d.Machine, DiscoKey: d.Disco, Addresses: d.Addrs, AllowedIPs: d.Addrs, Endpoints: d.Endpoints,
		HomeDERP: d.DERP, Hostinfo: d.Info.View(), Created: d.Created, Cap: d.Cap, Tags: d.Tags, MachineAuthorized: true}
	if n.HomeDERP == 0 { // a re-registered node reports its home some 20 s late, and peers lose their first dial until then
		n.HomeDERP = derpRegion
	}
	if d.Expired {
		n.KeyExpiry, n.Expired = time.Unix(123, 0), !self
	}
	if self {
		n.CapMap = s.attributes(d)
		if m := s.mapping(d); m != nil {
			n.CapMap[tailcfg.NodeAttrServiceHost] = m
		}
	} else {
		n.AllowedIPs = append(slices.Clone(d.Addrs), s.answers(d)...)
		online := d.Online
		if n.Online = &online; !online {
			seen := d.Seen // copied, because the message is encoded after the lock is released
			n.LastSeen = &seen
		}
	}
	return n
}

// next gathers what p's client has not been sent yet; nil when there is nothing new. The caller holds mu.
func (s *server) next(p *poll) *tailcfg.MapResponse {
	if p.gone {
		if *onDelete != "expire" || p.sent["gone"] != "" {
			return nil
		}
		p.sent["gone"] = "told"
		n := s.node(p.dev, true)
		n.KeyExpiry = time.Unix(123, 0)
		res := &tailcfg.MapResponse{Node: n}
		for id := range p.peers {
			res.PeersRemoved = append(res.PeersRemoved, id)
		}
		return res
	}
	now := time.Now()
	res, dirty := &tailcfg.MapResponse{ControlTime: &now}, false
	news := func(what string, v any) bool {
		b, _ := json.Marshal(v)
		if p.sent[what] == string(b) {
			return false
		}
		p.sent[what], dirty = string(b), true
		return true
	}
	first := len(p.sent) == 0
	if n := s.node(p.dev, true); news("self", n) {
		res.Node = n
	}
	if f := s.rules(p.dev); news("filter", f) {
		res.PacketFilters = map[string][]tailcfg.FilterRule{"base": f}
	}
	seen := map[tailcfg.NodeID]bool{}
	for _, d := range s.st.Devices { // kept in order of ID, as clients expect
		if d == p.dev || d.Name == "" || !s.visible(p.dev, d) {
			continue
		}
		n := s.node(d, false)
		b, _ := json.Marshal(n)
		if seen[d.ID] = true; p.peers[d.ID] == string(b) {
			continue
		}
		p.peers[d.ID], dirty = string(b), true
		if first {
			res.Peers = append(res.Peers, n)
		} else {
			res.PeersChanged = append(res.PeersChanged, n)
		}
	}
	for id := range p.peers {
		if !seen[id] {
			delete(p.peers, id)
			res.PeersRemoved, dirty = append(res.PeersRemoved, id), true
		}
	}
	slices.Sort(res.PeersRemoved)
	if first {
		res.DERPMap = s.derp
		res.DNSConfig = &tailcfg.DNSConfig{Proxied: true, Domains: []string{*suffix}}
		res.Domain, res.CollectServices = *suffix, opt.NewBool(false)
		res.UserProfiles = []tailcfg.UserProfile{owner}
		res.Debug = &tailcfg.Debug{DisableLogTail: true}
	}
	if !dirty {
		return nil
	}
	return res
}

func (s *server) serveMap(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	var req tailcfg.MapRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&req); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	s.mu.Lock()
	d := s.byKey(req.NodeKey)
	if d == nil || d.Machine != machine {
		s.mu.Unlock()
		http.Error(w, "node not found", 404)
		return
	}
	if !req.ReadOnly && !req.Stream { // only this kind of request carries news; a streaming one merely listens
		d.Endpoints, d.Disco, d.Cap = req.Endpoints, req.DiscoKey, req.Version
		s.learn(d, req.Hostinfo)
		s.changed()
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p := &poll{dev: d, wake: make(chan struct{}, 1), cancel: cancel, sent: map[string]string{}, peers: map[tailcfg.NodeID]string{}}
	if req.Stream {
		if old := s.polls[d.ID]; old != nil {
			old.cancel()
		}
		s.polls[d.ID] = p
		if d.Cap = req.Version; !d.Online {
			d.Online = true
			s.changed()
		}
		defer s.endPoll(p)
	}
	s.mu.Unlock()
	w.WriteHeader(200)
	if req.OmitPeers && !req.Stream {
		return // nobody reads a body here
	}
	write := func(v any) error { // a frame: length as 32 bits little endian, then one zstd frame of JSON
		b, _ := json.Marshal(v)
		if req.Compress == "zstd" {
			b = zstdframe.AppendEncode(nil, b, zstdframe.FastestCompression)
		}
		if _, err := w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for {
		s.mu.Lock()
		res, gone := s.next(p), p.gone
		s.mu.Unlock()
		if res != nil {
			if write(res) != nil {
				return
			}
		}
		if !req.Stream || gone && *onDelete == "drop" {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-alive.C:
			if write(map[string]bool{"KeepAlive": true}) != nil {
				return
			}
		}
	}
}

func (s *server) endPoll(p *poll) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.dev.Seen = time.Now().UTC()
	if s.polls[p.dev.ID] != p {
		return
	}
	delete(s.polls, p.dev.ID)
	time.AfterFunc(*offlineAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.polls[p.dev.ID] == nil && p.dev.Online {
			p.dev.Online = false
			s.changed()
		}
	})
}
