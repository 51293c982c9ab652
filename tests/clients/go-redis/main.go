// Writes all the time, and says on a line what became of each write.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/net/proxy"
)

func main() {
	ctx := context.Background()
	password := os.Getenv("PASSWORD")
	var nodes []string
	for _, host := range strings.Fields(os.Getenv("NODES")) {
		nodes = append(nodes, net.JoinHostPort(host, "26379"))
	}
	socks, err := proxy.SOCKS5("tcp", os.Getenv("SOCKS5"), nil, proxy.Direct)
	if err != nil {
		panic(err)
	}
	tailnet := socks.(proxy.ContextDialer)

	// guide: begin
	// A node that is gone refuses nothing. A dial that takes all of DialTimeout (5 s) keeps go-redis with that node for good.
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return tailnet.DialContext(ctx, network, address) // &net.Dialer{}, or golang.org/x/net/proxy for SOCKS5
	}
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName:    "cache",
		SentinelAddrs: nodes, // "100.64.0.3:26379", ...
		Username:      "app",
		Password:      password,
		Dialer:        dial,
		DialerRetries: 1,
	})
	err = client.Set(ctx, "greeting", "hello", 0).Err()
	// guide: end
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}

	begun := time.Now()
	say := func(what map[string]any) {
		what["at"] = time.Since(begun).Seconds() * 1000
		line, _ := json.Marshal(what)
		fmt.Println(string(line))
	}
	for n := 1; ; n++ {
		if err := client.SAdd(ctx, os.Getenv("KEY"), n).Err(); err != nil {
			say(map[string]any{"error": kind(err), "message": err.Error()})
		} else {
			say(map[string]any{"acked": n})
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func kind(err error) string {
	var refused redis.Error
	var network net.Error
	switch {
	case errors.As(err, &refused):
		return strings.Fields(refused.Error())[0]
	case errors.As(err, &network) && network.Timeout():
		return "timeout"
	}
	return "connection"
}
