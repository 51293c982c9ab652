package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tailscale.com/tailcfg"
)

// matches tells whether a grant's list names d: by tag, by address or by "*".
func matches(list []string, d *device) bool {
	return slices.ContainsFunc(list, func(x string) bool {
		return x == "*" || slices.Contains(d.Tags, x) ||
			slices.ContainsFunc(d.Addrs, func(a netip.Prefix) bool { return a.Addr().String() == x })
	})
}

// visible: two nodes see each other when any grant joins them, whichever way round.
func (s *server) visible(a, b *device) bool {
	return slices.ContainsFunc(s.st.Policy.Grants, func(g grant) bool {
		return matches(g.Src, a) && matches(g.Dst, b) || matches(g.Src, b) && matches(g.Dst, a)
	})
}

// attributes lists what the policy gives d beside its addresses.
func (s *server) attributes(d *device) tailcfg.NodeCapMap {
	all := tailcfg.NodeCapMap{}
	for _, a := range s.st.Policy.NodeAttrs {
		if matches(a.Target, d) {
			for _, x := range a.Attr {
				all[x] = nil
			}
		}
	}
	return all
}

// parsePort reads what a grant lets through: "*", "443", "80-90", "tcp:6379", "udp:*" or "icmp:*".
func parsePort(x string) (proto []int, pr tailcfg.PortRange, err error) {
	if p, rest, ok := strings.Cut(x, ":"); ok {
		n, known := map[string]int{"icmp": 1, "tcp": 6, "udp": 17}[p]
		if !known {
			return nil, pr, fmt.Errorf("unknown protocol in %q", x)
		}
		proto, x = []int{n}, rest
	}
	if x == "*" {
		return proto, tailcfg.PortRangeAny, nil
	}
	lo, hi, ok := strings.Cut(x, "-")
	if !ok {
		hi = lo
	}
	first, e1 := strconv.ParseUint(lo, 10, 16)
	last, e2 := strconv.ParseUint(hi, 10, 16)
	return proto, tailcfg.PortRange{First: uint16(first), Last: uint16(last)}, errors.Join(e1, e2)
}

// rules lists what d lets in. The filter lies at the destination, so a source that joins or leaves changes it.
func (s *server) rules(d *device) []tailcfg.FilterRule {
	out := []tailcfg.FilterRule{} // never nil: an empty list blocks everything, an absent one changes nothing
	for _, g := range s.st.Policy.Grants {
		if !matches(g.Dst, d) {
			continue
		}
		var src []string
		for _, o := range s.st.Devices {
			if o != d && matches(g.Src, o) {
				for _, a := range o.Addrs {
					src = append(src, a.Addr().String())
				}
			}
		}
		if len(src) == 0 {
			continue
		}
		for _, x := range g.IP {
			proto, pr, _ := parsePort(x)
			r := tailcfg.FilterRule{SrcIPs: src, IPProto: proto}
			for _, a := range s.hosted(d) {
				r.DstPorts = append(r.DstPorts, tailcfg.NetPortRange{IP: a.String(), Ports: pr})
			}
			for _, a := range d.Addrs {
				r.DstPorts = append(r.DstPorts, tailcfg.NetPortRange{IP: a.Addr().String(), Ports: pr})
			}
			out = append(out, r)
		}
	}
	return out
}
