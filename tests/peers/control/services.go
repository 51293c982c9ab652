package main

// Tailscale Services, as far as a test needs them: one is defined over the API, the policy approves its hosts by their tags, and
// the first of them that is online answers at its address. What a host serves is not asked for: one that offers anything is taken
// for a host of every service that it is approved for.

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"tailscale.com/tailcfg"
)

func (s *server) putService(_ http.ResponseWriter, r *http.Request) (any, error) {
	name := tailcfg.ServiceName(r.PathValue("name"))
	if name.Validate() != nil {
		return nil, fail(400, "invalid service name %q", name)
	}
	i := slices.IndexFunc(s.st.Services, func(x *service) bool { return x.Name == name })
	if i < 0 {
		i = len(s.st.Services)
		addr := netip.AddrFrom4([4]byte{100, 127, 0, byte(i + 1)})
		s.st.Services = append(s.st.Services, &service{Name: name, Addr: addr})
		s.changed()
	}
	x := s.st.Services[i]
	return map[string]any{"name": x.Name, "addrs": []string{x.Addr.String()}}, nil
}

// hosts tells whether d may answer for x.
func (s *server) hosts(d *device, x *service) bool {
	approved := s.st.Policy.AutoApprovers.Services[string(x.Name)]
	return d.Services != "" && slices.ContainsFunc(approved, func(t string) bool { return slices.Contains(d.Tags, t) }) &&
		strings.HasPrefix(d.Hostname, x.Name.WithoutPrefix()+"-")
}

// hosted lists the addresses at which d may be asked to answer.
func (s *server) hosted(d *device) (out []netip.Addr) {
	for _, x := range s.st.Services {
		if s.hosts(d, x) {
			out = append(out, x.Addr)
		}
	}
	return out
}

// answers lists the addresses at which d is the one that others reach.
func (s *server) answers(d *device) (out []netip.Prefix) {
	for _, x := range s.st.Services {
		if d == s.find(func(o *device) bool { return o.Online && s.hosts(o, x) }) {
			out = append(out, netip.PrefixFrom(x.Addr, 32))
		}
	}
	return out
}

// mapping is what d is told of the services that it is a host of.
func (s *server) mapping(d *device) []tailcfg.RawMessage {
	all := tailcfg.ServiceIPMappings{}
	for _, x := range s.st.Services {
		if s.hosts(d, x) {
			all[x.Name] = []netip.Addr{x.Addr}
		}
	}
	if len(all) == 0 {
		return nil
	}
	b, _ := json.Marshal(all)
	return []tailcfg.RawMessage{tailcfg.RawMessage(b)}
}
