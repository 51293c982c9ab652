// The part of a kubelet that the tests need: it answers `kubectl exec`. The command runs as a process
// of this machine, with this program's environment, in place of a container's. It speaks what the
// real one does, by the same library; what an apiserver asks of it beside `exec` is not found.
//
//	exec-kubelet ADDRESS
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// Nobody waits longer for an answer in a test.
const limit = time.Minute

type here struct{}

func (here) ExecInContainer(
	ctx context.Context, _, _, _ string, command []string, in io.Reader, out, err io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	process := exec.CommandContext(ctx, command[0], command[1:]...)
	process.Stdin, process.Stdout, process.Stderr = in, out, err
	ended := process.Run()
	if exit, ok := ended.(*exec.ExitError); ok {
		return utilexec.CodeExitError{Err: ended, Code: exit.ExitCode()}
	}
	return ended
}

func answer(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	command := r.URL.Query()["command"]
	pod, container := r.PathValue("pod"), r.PathValue("container")
	remotecommand.ServeExec(w, r, here{}, pod, "", container, command, options, limit, limit,
		remotecommand.SupportedStreamingProtocols)
}

// The apiserver of the tests asks for no certificate of an authority.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	about := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "kubelet"},
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &about, &about, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: exec-kubelet ADDRESS")
		os.Exit(2)
	}
	own, err := certificate()
	if err != nil {
		log.Fatal(err)
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /exec/{namespace}/{pod}/{container}", answer)
	routes.HandleFunc("GET /exec/{namespace}/{pod}/{container}", answer)
	server := http.Server{
		Addr:    os.Args[1],
		Handler: routes,
		// Streams take a connection over, which HTTP/2 has no way for.
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"http/1.1"}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	log.Fatal(server.ListenAndServeTLS("", ""))
}
