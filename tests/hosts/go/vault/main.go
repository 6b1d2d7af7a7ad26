// A real Vault core on loopback with its data in memory: for tests, not for anything else.
//
// It prints one line of JSON when it is ready, {"address", "control", "token"}, and ends when its stdin does. `control`
// is plain HTTP: it counts what the data listener is asked, delays it, or answers in its place. For a test's preparations
// it serves Vault too, uncounted and undisturbed.
//
//	any  /v1/...                     Vault
//	GET  /stats                      {"requests", "logins", "connections", "paths": {"GET /v1/...": N}}
//	POST /reset                      counts from zero
//	POST /latency?ms=20              each answer waits so long, side by side
//	POST /answer?code=503[&times=2]  answers as a sealed Vault does, always or so many times; code=0 ends it
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/totp"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

var (
	engines = map[string]logical.Factory{"kv": kv.Factory, "totp": totp.Factory, "transit": transit.Factory}
	logins  = map[string]logical.Factory{
		"approle":    approle.Factory,
		"jwt":        jwt.Factory,
		"kubernetes": kubernetes.Factory,
		"userpass":   userpass.Factory,
	}
	login = regexp.MustCompile(`^/v1/auth/.+/login(/|$)`)
)

// registry tells the core that its plugins are built in: without one, mounting panics.
type registry struct{}

func (registry) plugins(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeSecrets:
		return engines
	case consts.PluginTypeCredential:
		return logins
	default:
		return nil
	}
}

func (r registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, found := r.plugins(kind)[name]
	return func() (any, error) { return factory, nil }, found
}

func (r registry) Contains(name string, kind consts.PluginType) bool {
	_, found := r.plugins(kind)[name]
	return found
}

func (r registry) Keys(kind consts.PluginType) []string {
	return slices.Sorted(maps.Keys(r.plugins(kind)))
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	if r.Contains(name, kind) {
		return consts.Supported, true
	}
	return consts.Unknown, false
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool {
	return false
}

// start gives an unsealed core and its root token.
func start() (*vault.Core, string, error) {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, "", err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		BuiltinRegistry:    registry{},
		CredentialBackends: logins,
		DisableMlock:       true,
		LogicalBackends:    engines,
		Logger:             logger,
		Physical:           storage,
	})
	if err != nil {
		return nil, "", err
	}
	seal := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := core.Initialize(context.Background(), &vault.InitParams{BarrierConfig: seal})
	if err != nil {
		return nil, "", err
	}
	if unsealed, err := core.Unseal(made.SecretShares[0]); err != nil {
		return nil, "", err
	} else if !unsealed {
		return nil, "", errors.New("the core stays sealed")
	}
	return core, made.RootToken, nil
}

type counts struct {
	Requests    int            `json:"requests"`
	Logins      int            `json:"logins"`
	Connections int            `json:"connections"`
	Paths       map[string]int `json:"paths"`
}

// gate stands before Vault and is told by the control listener what to do.
type gate struct {
	vault http.Handler

	mutex   sync.Mutex
	counts  counts
	latency time.Duration
	code    int
	times   int // left to answer with the code; below zero: without end
}

func (g *gate) connected(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		g.mutex.Lock()
		defer g.mutex.Unlock()
		g.counts.Connections++
	}
}

// enter counts a request and tells how long it waits, and the code that it gets instead of Vault's answer, or 0.
func (g *gate) enter(request *http.Request) (time.Duration, int) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.counts.Requests++
	g.counts.Paths[request.Method+" "+request.URL.Path]++
	if login.MatchString(request.URL.Path) {
		g.counts.Logins++
	}
	if g.code == 0 || g.times == 0 {
		return g.latency, 0
	}
	g.times--
	return g.latency, g.code
}

func (g *gate) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	latency, code := g.enter(request)
	time.Sleep(latency)
	if code == 0 {
		g.vault.ServeHTTP(answer, request)
		return
	}
	texts := map[int]string{
		http.StatusServiceUnavailable: consts.ErrSealed.Error(),
		http.StatusTooManyRequests:    "rate limit quota exceeded",
	}
	told := []string{}
	if text, found := texts[code]; found {
		told = append(told, text)
	}
	answer.Header().Set("Content-Type", "application/json")
	answer.WriteHeader(code)
	json.NewEncoder(answer).Encode(map[string][]string{"errors": told})
}

func (g *gate) control() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", g.vault)
	mux.HandleFunc("GET /stats", func(answer http.ResponseWriter, _ *http.Request) {
		g.mutex.Lock()
		defer g.mutex.Unlock()
		json.NewEncoder(answer).Encode(g.counts)
	})
	change := func(path string, apply func(url.Values) error) {
		mux.HandleFunc("POST "+path, func(answer http.ResponseWriter, request *http.Request) {
			g.mutex.Lock()
			defer g.mutex.Unlock()
			if err := apply(request.URL.Query()); err != nil {
				http.Error(answer, err.Error(), http.StatusBadRequest)
			}
		})
	}
	change("/reset", func(url.Values) error {
		g.counts = counts{Paths: map[string]int{}}
		return nil
	})
	change("/latency", func(query url.Values) error {
		milliseconds, err := strconv.Atoi(query.Get("ms"))
		g.latency = time.Duration(milliseconds) * time.Millisecond
		return err
	})
	change("/answer", func(query url.Values) error {
		code, err := strconv.Atoi(query.Get("code"))
		if err != nil {
			return err
		}
		g.code, g.times = code, -1
		if query.Has("times") {
			g.times, err = strconv.Atoi(query.Get("times"))
		}
		return err
	})
	return mux
}

// listen serves on a free port of loopback and gives its address.
func listen(server *http.Server, encrypted *tls.Config) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	// What a broken client does to the listener is the client's test to tell.
	server.ErrorLog = log.New(io.Discard, "", 0)
	if encrypted == nil {
		go server.Serve(listener)
		return "http://" + listener.Addr().String(), nil
	}
	server.TLSConfig = encrypted
	go server.ServeTLS(listener, "", "")
	return "https://" + listener.Addr().String(), nil
}

func encryption(certificate, key, clientAuthority string) (*tls.Config, error) {
	if certificate == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	if clientAuthority != "" {
		text, err := os.ReadFile(clientAuthority)
		if err != nil {
			return nil, err
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("no certificate in %s", clientAuthority)
		}
	}
	return config, nil
}

func run() error {
	certificate := flag.String("cert", "", "serve TLS with this certificate")
	key := flag.String("key", "", "its key")
	clientAuthority := flag.String("client-ca", "", "demand a client certificate of this authority")
	flag.Parse()
	encrypted, err := encryption(*certificate, *key, *clientAuthority)
	if err != nil {
		return err
	}
	core, token, err := start()
	if err != nil {
		return err
	}
	gate := &gate{
		// It panics at a request where there is no listener's configuration.
		vault: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{Type: "tcp"},
		}),
		counts: counts{Paths: map[string]int{}},
	}
	address, err := listen(&http.Server{Handler: gate, ConnState: gate.connected}, encrypted)
	if err != nil {
		return err
	}
	control, err := listen(&http.Server{Handler: gate.control()}, nil)
	if err != nil {
		return err
	}
	ready := map[string]string{"address": address, "control": control, "token": token}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}
