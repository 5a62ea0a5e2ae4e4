// Providers of the Secrets Store CSI driver, for the bench. `provider` reads Vault's KV, since nobody serves a real one as a
// Go module: it does what such a provider must and no more, one login for each pod, and one read for each mount. `at-once`
// is the fake of the driver's own module: fixed values, without a store. `registrar` tells kubelet of the driver, as the
// project's own registrar would.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"sigs.k8s.io/secrets-store-csi-driver/provider/fake"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 5 && os.Args[1] == "registrar":
		err = register(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 3 && os.Args[1] == "provider":
		err = provide(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "at-once":
		err = atOnce(os.Args[2])
	default:
		err = fmt.Errorf("usage: registrar SOCKET DRIVER ENDPOINT | provider SOCKET | at-once SOCKET")
	}
	log.Fatal(err)
}

func serve(socket string, offer func(*grpc.Server)) error {
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	offer(server)
	return server.Serve(listener)
}

type registrar struct{ driver, endpoint string }

func register(socket, driver, endpoint string) error {
	return serve(socket, func(server *grpc.Server) {
		registration.RegisterRegistrationServer(server, &registrar{driver, endpoint})
	})
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: r.driver, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (r *registrar) NotifyRegistrationStatus(
	_ context.Context, status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatalf("kubelet refused the driver: %s", status.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func atOnce(socket string) error {
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	server, err := fake.NewMocKCSIProviderServer(socket)
	if err != nil {
		return err
	}
	server.SetObjects(map[string]string{"username": "1", "password": "1"})
	server.SetFiles([]*v1alpha1.File{
		{Path: "username", Mode: 0o644, Contents: []byte("bench")},
		{Path: "password", Mode: 0o644, Contents: []byte("bench-password")},
	})
	if err := server.Start(); err != nil {
		return err
	}
	select {}
}

type login struct {
	token string
	ends  time.Time
}

type provider struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	client http.Client
	lock   sync.Mutex
	logins map[string]login
}

func provide(socket string) error {
	authorities := x509.NewCertPool()
	pem, err := os.ReadFile(os.Getenv("VAULT_CACERT"))
	if err != nil || !authorities.AppendCertsFromPEM(pem) {
		return fmt.Errorf("VAULT_CACERT: no authority in it: %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities}, MaxIdleConnsPerHost: 4}
	client := http.Client{Transport: transport, Timeout: 30 * time.Second}
	return serve(socket, func(server *grpc.Server) {
		v1alpha1.RegisterCSIDriverProviderServer(server, &provider{client: client, logins: map[string]login{}})
	})
}

func (p *provider) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "bench", RuntimeVersion: "1.0.0"}, nil
}

func (p *provider) Mount(ctx context.Context, request *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	var of map[string]string
	if err := json.Unmarshal([]byte(request.Attributes), &of); err != nil {
		return nil, err
	}
	mode, err := strconv.Atoi(request.Permission)
	if err != nil {
		return nil, err
	}
	token, err := p.token(ctx, of)
	if err != nil {
		return nil, err
	}
	var read struct {
		Data struct {
			Data     map[string]string
			Metadata struct{ Version int }
		}
	}
	if err := p.ask(ctx, http.MethodGet, of["vaultAddress"]+"/v1/"+of["path"], token, nil, &read); err != nil {
		return nil, err
	}
	answer := &v1alpha1.MountResponse{}
	for name, value := range read.Data.Data {
		answer.Files = append(answer.Files, &v1alpha1.File{Path: name, Mode: int32(mode), Contents: []byte(value)})
		version := &v1alpha1.ObjectVersion{Id: name, Version: strconv.Itoa(read.Data.Metadata.Version)}
		answer.ObjectVersion = append(answer.ObjectVersion, version)
	}
	return answer, nil
}

// token is of the pod's own login, which is kept until shortly before its end.
func (p *provider) token(ctx context.Context, of map[string]string) (string, error) {
	pod := of["csi.storage.k8s.io/pod.uid"]
	p.lock.Lock()
	kept := p.logins[pod]
	p.lock.Unlock()
	if time.Until(kept.ends) > time.Minute {
		return kept.token, nil
	}
	var tokens map[string]struct{ Token string }
	if err := json.Unmarshal([]byte(of["csi.storage.k8s.io/serviceAccount.tokens"]), &tokens); err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]string{"role": of["roleName"], "jwt": tokens[of["audience"]].Token})
	if err != nil {
		return "", err
	}
	var made struct {
		Auth struct {
			Token   string `json:"client_token"`
			Seconds int    `json:"lease_duration"`
		}
	}
	err = p.ask(ctx, http.MethodPost, of["vaultAddress"]+"/v1/auth/kubernetes/login", "", bytes.NewReader(body), &made)
	if err != nil {
		return "", err
	}
	ends := time.Now().Add(time.Duration(made.Auth.Seconds) * time.Second)
	p.lock.Lock()
	p.logins[pod] = login{made.Auth.Token, ends}
	p.lock.Unlock()
	return made.Auth.Token, nil
}

func (p *provider) ask(ctx context.Context, method, url, token string, body io.Reader, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("X-Vault-Token", token)
	}
	answer, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}
