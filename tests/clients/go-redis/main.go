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
	"github.com/redis/go-redis/v9/logging"
	"golang.org/x/net/proxy"
)

func main() {
	ctx := context.Background()
	password := os.Getenv("PASSWORD")
	if address := os.Getenv("PROXY"); address != "" {
		logging.SetLogLevel(logging.LogLevelInfo)
		redis.SetLogger(notified{})
		write(ctx, redis.NewClient(&redis.Options{Addr: address, Username: "app", Password: password}))
	}
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

	write(ctx, client)
}

var begun = time.Now()

func say(what map[string]any) {
	what["at"] = time.Since(begun).Seconds() * 1000
	line, _ := json.Marshal(what)
	fmt.Println(string(line))
}

// What it says of itself when it is told of a change.
type notified struct{}

func (notified) Printf(_ context.Context, format string, arguments ...any) {
	text := fmt.Sprintf(format, arguments...)
	switch {
	case strings.Contains(text, "FAILING_OVER"):
		say(map[string]any{"told": "FailingOver"})
	case strings.Contains(text, "clearing relaxed timeout"):
		say(map[string]any{"told": "FailedOver"})
	default:
		fmt.Fprintln(os.Stderr, text)
	}
}

func write(ctx context.Context, client *redis.Client) {
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
