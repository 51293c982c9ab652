package main

// API v2, as far as the operator uses it: tokens, auth keys, devices, and a policy that knows grants only.

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailscale/hujson"
)

type apiError struct {
	code int
	msg  string
}

func (e *apiError) Error() string { return e.msg }

func fail(code int, format string, a ...any) error { return &apiError{code, fmt.Sprintf(format, a...)} }

func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if e, ok := err.(*apiError); ok {
		w.WriteHeader(e.code)
		v = map[string]string{"message": e.msg}
	}
	if v != nil {
		json.NewEncoder(w).Encode(v)
	}
}

// routes adds the API to mux; its handlers run with mu held.
func (s *server) routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/v2/oauth/token", s.token)
	add := func(pattern string, h func(w http.ResponseWriter, r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			defer s.mu.Unlock()
			user, _, _ := r.BasicAuth()
			bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			ok := *apiKey != "" && (user == *apiKey || bearer == *apiKey)
			if !ok && time.Now().After(s.tokens[bearer]) {
				reply(w, nil, fail(401, "API token invalid"))
				return
			}
			v, err := h(w, r)
			reply(w, v, err)
		})
	}
	add("POST /api/v2/tailnet/{t}/keys", s.mintKey)
	add("GET /api/v2/tailnet/{t}/keys", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		list := []any{}
		for _, k := range s.st.Keys {
			if k.problem() == "" {
				list = append(list, k.json(false))
			}
		}
		return map[string]any{"keys": list}, nil
	})
	add("GET /api/v2/tailnet/{t}/keys/{id}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		k, err := s.authKey(r)
		if err != nil {
			return nil, err
		}
		return k.json(false), nil
	})
	add("DELETE /api/v2/tailnet/{t}/keys/{id}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		k, err := s.authKey(r)
		if err != nil || !k.Revoked.IsZero() {
			return nil, fail(404, "not found")
		}
		k.Revoked = time.Now().UTC()
		s.changed()
		return struct{}{}, nil
	})
	add("GET /api/v2/tailnet/{t}/devices", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		list := []any{}
		for _, d := range s.st.Devices {
			q := r.URL.Query()
			if (q.Has("hostname") && q.Get("hostname") != d.Hostname) || (q.Has("tags") && !slices.Contains(d.Tags, q.Get("tags"))) {
				continue
			}
			list = append(list, s.deviceJSON(d))
		}
		return map[string]any{"devices": list}, nil
	})
	add("GET /api/v2/device/{id}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		d, err := s.device(r)
		if err != nil {
			return nil, err
		}
		return s.deviceJSON(d), nil
	})
	add("DELETE /api/v2/device/{id}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		d, err := s.device(r)
		if err != nil {
			return nil, err
		}
		s.remove(d)
		return nil, nil
	})
	add("POST /api/v2/device/{id}/{what}", s.setDevice)
	add("GET /api/v2/tailnet/{t}/acl", func(w http.ResponseWriter, r *http.Request) (any, error) {
		w.Header().Set("ETag", `"`+s.st.PolicyID+`"`)
		return s.st.Policy, nil
	})
	add("POST /api/v2/tailnet/{t}/acl", s.setPolicy)
	add("PUT /api/v2/tailnet/{t}/vip-services/{name}", s.putService)
}

func (s *server) token(w http.ResponseWriter, r *http.Request) {
	_, secret, basic := r.BasicAuth()
	if !basic {
		secret = r.FormValue("client_secret")
	}
	if *clientSecret == "" || secret != *clientSecret {
		reply(w, nil, fail(401, "API token invalid"))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := "tskey-test-" + randHex(16)
	s.tokens[t] = time.Now().Add(*tokenTTL)
	reply(w, map[string]any{"access_token": t, "token_type": "Bearer", "expires_in": int(tokenTTL.Seconds()),
		"scope": "auth_keys devices:core policy_file"}, nil)
}

// allowed: a client may hand out its own tags and those that tagOwners gives to one of its own.
func (s *server) allowed(tags []string) error {
	own := strings.Split(*clientTags, ",")
	for _, t := range tags {
		owners, declared := s.st.Policy.TagOwners[t]
		owned := slices.ContainsFunc(owners, func(o string) bool { return slices.Contains(own, o) })
		if *clientTags != "" && !slices.Contains(own, t) && !(declared && owned) || !strings.HasPrefix(t, "tag:") {
			return fail(400, "requested tags [%s] are invalid or not permitted", t)
		}
	}
	return nil
}

func body(r *http.Request, v any) error {
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(v); err != nil {
		return fail(400, "invalid request body: %v", err)
	}
	return nil
}

type capabilities struct {
	Devices struct {
		Create struct {
			Reusable      bool     `json:"reusable"`
			Ephemeral     bool     `json:"ephemeral"`
			Preauthorized bool     `json:"preauthorized"`
			Tags          []string `json:"tags"`
		} `json:"create"`
	} `json:"devices"`
}

func (s *server) mintKey(_ http.ResponseWriter, r *http.Request) (any, error) {
	var q struct {
		Capabilities  capabilities
		ExpirySeconds int64
		Description   string
	}
	if err := body(r, &q); err != nil {
		return nil, err
	}
	c := q.Capabilities.Devices.Create
	if len(c.Tags) == 0 && *clientTags != "" {
		return nil, fail(400, "tags are required for keys created by an OAuth client")
	}
	if err := s.allowed(c.Tags); err != nil {
		return nil, err
	}
	if q.ExpirySeconds < 0 || q.ExpirySeconds > 7776000 || len(q.Description) > 50 {
		return nil, fail(400, "invalid expirySeconds or description")
	}
	if q.ExpirySeconds == 0 {
		q.ExpirySeconds = 7776000
	}
	now := time.Now().UTC()
	k := &authKey{ID: "k" + randHex(5) + "CNTRL", Description: q.Description, Reusable: c.Reusable, Ephemeral: c.Ephemeral, Preauth: c.Preauthorized,
		Tags: c.Tags, Created: now, Expires: now.Add(time.Duration(q.ExpirySeconds) * time.Second)}
	k.Secret = "tskey-auth-" + k.ID + "-" + randHex(16)
	s.st.Keys = append(s.st.Keys, k)
	s.changed()
	return k.json(true), nil
}

func (s *server) authKey(r *http.Request) (*authKey, error) {
	i := slices.IndexFunc(s.st.Keys, func(k *authKey) bool { return k.ID == r.PathValue("id") })
	if i < 0 {
		return nil, fail(404, "not found")
	}
	return s.st.Keys[i], nil
}

func (k *authKey) json(secret bool) map[string]any {
	var c capabilities
	n := &c.Devices.Create
	n.Reusable, n.Ephemeral, n.Preauthorized, n.Tags = k.Reusable, k.Ephemeral, k.Preauth, k.Tags
	m := map[string]any{"id": k.ID, "keyType": "auth", "created": k.Created, "expires": k.Expires, "capabilities": c,
		"expirySeconds": int(k.Expires.Sub(k.Created).Seconds()), "description": k.Description}
	if secret {
		m["key"] = k.Secret
	}
	if k.problem() != "" {
		m["invalid"] = true
	}
	if !k.Revoked.IsZero() {
		m["revoked"] = k.Revoked
	}
	return m
}

func (s *server) device(r *http.Request) (*device, error) {
	id := r.PathValue("id")
	if d := s.find(func(d *device) bool { return d.Stable == id || strconv.FormatInt(int64(d.ID), 10) == id }); d != nil {
		return d, nil
	}
	return nil, fail(404, "no such device")
}

func (s *server) deviceJSON(d *device) map[string]any {
	m := map[string]any{"id": strconv.FormatInt(int64(d.ID), 10), "nodeId": d.Stable, "name": d.fqdn(), "hostname": d.Hostname,
		"addresses": addresses(d.Addrs), "user": owner.LoginName, "os": d.OS, "clientVersion": d.Version, "updateAvailable": false,
		"created": d.Created.UTC().Format(time.RFC3339), "connectedToControl": s.polls[d.ID] != nil, "expires": "0001-01-01T00:00:00Z",
		"keyExpiryDisabled": true, "authorized": true, "isExternal": false, "isEphemeral": d.Ephemeral, "multipleConnections": false,
		"blocksIncomingConnections": false, "machineKey": d.Machine.String(), "nodeKey": d.Key.String(), "tailnetLockKey": "", "tailnetLockError": ""}
	if len(d.Tags) > 0 {
		m["tags"] = d.Tags
	}
	if s.polls[d.ID] == nil {
		m["lastSeen"] = d.Seen.UTC().Format(time.RFC3339)
	}
	return m
}

func addresses(ps []netip.Prefix) (out []string) {
	for _, p := range ps {
		out = append(out, p.Addr().String())
	}
	return out
}

func (s *server) setDevice(_ http.ResponseWriter, r *http.Request) (any, error) {
	d, err := s.device(r)
	if err != nil {
		return nil, err
	}
	var q struct {
		Name string
		Tags []string
	}
	if err := body(r, &q); err != nil {
		return nil, err
	}
	switch r.PathValue("what") {
	case "name": // a label or the FQDN; "" goes back to the name the node asked for
		name := strings.TrimSuffix(strings.TrimSuffix(q.Name, "."), "."+*suffix)
		if d.Named = name != ""; !d.Named {
			d.Name = s.uniqueName(d.Hostname, d)
		} else if s.uniqueName(name, d) != name {
			return nil, fail(400, "name %q is invalid or in use", name)
		} else {
			d.Name = name
		}
	case "tags":
		if err := s.allowed(q.Tags); err != nil {
			return nil, err
		}
		d.Tags = q.Tags
	case "authorized", "key": // always authorized, never expires
	default:
		return nil, fail(404, "not found")
	}
	s.changed()
	return nil, nil
}

func (s *server) setPolicy(w http.ResponseWriter, r *http.Request) (any, error) {
	if m := r.Header.Get("If-Match"); m != "" && strings.Trim(m, `"`) != s.st.PolicyID {
		return nil, fail(412, "precondition failed, invalid old hash")
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil {
		raw, err = hujson.Standardize(raw)
	}
	var p policy
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		return nil, fail(400, "invalid policy: %v", err)
	}
	for _, g := range p.Grants {
		for _, x := range g.IP {
			if _, _, err := parsePort(x); err != nil {
				return nil, fail(400, "invalid policy: %v", err)
			}
		}
		for _, x := range append(slices.Clone(g.Src), g.Dst...) {
			if _, ok := p.TagOwners[x]; strings.HasPrefix(x, "tag:") && !ok {
				return nil, fail(400, "tag not found: %q", x)
			}
		}
	}
	sum := sha256.Sum256(raw)
	s.st.Policy, s.st.PolicyID = p, hex.EncodeToString(sum[:])
	s.changed()
	w.Header().Set("ETag", `"`+s.st.PolicyID+`"`)
	return p, nil
}
