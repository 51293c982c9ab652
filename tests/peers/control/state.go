package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/dnsname"
)

type authKey struct {
	ID, Secret, Description      string
	Reusable, Ephemeral, Preauth bool
	Tags                         []string
	Created, Expires, Revoked    time.Time
	Uses                         int
}

// problem says why the key is of no use; "" when it can be used.
func (k *authKey) problem() string {
	switch {
	case !k.Revoked.IsZero():
		return "auth key revoked"
	case time.Now().After(k.Expires):
		return "auth key expired"
	case k.Uses > 0 && !k.Reusable:
		return "auth key already used"
	}
	return ""
}

type device struct {
	ID             tailcfg.NodeID
	Stable         string
	Machine        key.MachinePublic
	Key            key.NodePublic
	Disco          key.DiscoPublic
	Hostname, Name string // what the node asks for; its unique MagicDNS label
	Named          bool   // Name was set over the API: do not follow Hostname
	Addrs          []netip.Prefix
	Tags           []string
	Endpoints      []netip.AddrPort
	DERP           int
	Info           *tailcfg.Hostinfo // the few fields that peers get
	Cap            tailcfg.CapabilityVersion
	Version, OS    string
	Services       string // a hash of what it offers to host; empty when that is nothing
	Created, Seen  time.Time
	AuthKeyID      string
	Ephemeral      bool
	Expired        bool // logged out: needs a new auth key
	Online         bool
}

func (d *device) fqdn() string { return d.Name + "." + *suffix }

type grant struct {
	Src []string `json:"src"`
	Dst []string `json:"dst"`
	IP  []string `json:"ip"`
}

// nodeAttr gives attributes to the devices that are named.
type nodeAttr struct {
	Target []string                 `json:"target"`
	Attr   []tailcfg.NodeCapability `json:"attr"`
}
type policy struct {
	TagOwners     map[string][]string `json:"tagOwners,omitempty"`
	Grants        []grant             `json:"grants"`
	NodeAttrs     []nodeAttr          `json:"nodeAttrs,omitempty"`
	AutoApprovers struct {
		Services map[string][]string `json:"services,omitempty"`
	} `json:"autoApprovers,omitzero"`
}

// service has an address that one of its hosts answers at.
type service struct {
	Name tailcfg.ServiceName
	Addr netip.Addr
}

type state struct {
	Noise    key.MachinePrivate
	NextID   int64
	Devices  []*device
	Keys     []*authKey
	Services []*service
	Policy   policy
	PolicyID string // ETag
}

// poll is one streaming map request. sent and peers hold the JSON that the client already has, part by part.
type poll struct {
	dev    *device
	wake   chan struct{}
	cancel context.CancelFunc
	sent   map[string]string
	peers  map[tailcfg.NodeID]string
	gone   bool
}

type server struct {
	mu     sync.Mutex
	st     state
	polls  map[tailcfg.NodeID]*poll
	tokens map[string]time.Time
	derp   *tailcfg.DERPMap
	away   atomic.Bool
	noise  sync.Map // open connections of nodes
}

func randHex(n int) string { b := make([]byte, n); rand.Read(b); return hex.EncodeToString(b) }

// changed wakes every poll, which then works out what is new to it, and saves the state. The caller holds mu.
func (s *server) changed() {
	for _, p := range s.polls {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	if *stateFile != "" {
		b, _ := json.Marshal(&s.st)
		if err := os.WriteFile(*stateFile+".new", b, 0o600); err == nil {
			os.Rename(*stateFile+".new", *stateFile)
		}
	}
}

func (s *server) find(match func(*device) bool) *device {
	if i := slices.IndexFunc(s.st.Devices, match); i >= 0 {
		return s.st.Devices[i]
	}
	return nil
}
func (s *server) byKey(k key.NodePublic) *device {
	return s.find(func(d *device) bool { return d.Key == k && !k.IsZero() })
}

// uniqueName is want, or the first free of want-1, want-2, ...
func (s *server) uniqueName(want string, self *device) string {
	want = cmp.Or(dnsname.SanitizeHostname(want), "node")
	for i := 0; ; i++ {
		name := want
		if i > 0 {
			name = fmt.Sprintf("%s-%d", want, i)
		}
		if s.find(func(d *device) bool { return d != self && d.Name == name }) == nil {
			return name
		}
	}
}

func (s *server) remove(d *device) {
	s.st.Devices = slices.DeleteFunc(s.st.Devices, func(x *device) bool { return x == d })
	if p := s.polls[d.ID]; p != nil {
		p.gone = true
	}
	s.changed()
}
