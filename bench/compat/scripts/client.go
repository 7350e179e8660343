// Go's net/http: client-go URL PROXY|direct AUTHORITY
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
)

func main() {
	address, proxy := os.Args[1], os.Args[2]
	pem, _ := os.ReadFile(os.Args[3])
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, two := range []bool{false, true} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: two}
		if !two {
			transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		}
		if proxy != "direct" {
			via, _ := url.Parse(proxy)
			transport.Proxy = http.ProxyURL(via)
		}
		client := &http.Client{Transport: transport}
		ask := func(method, path string, body []byte, length int64) string {
			request, _ := http.NewRequest(method, address+path, bytes.NewReader(body))
			request.ContentLength = length
			if body == nil {
				request.Body = http.NoBody
			}
			answer, err := client.Do(request)
			if err != nil {
				return "error " + err.Error()
			}
			defer answer.Body.Close()
			octets, err := io.ReadAll(answer.Body)
			return fmt.Sprintf("%s %d %x %v", answer.Proto, answer.StatusCode, sha256.Sum256(octets), err)
		}
		for _, path := range []string{"/page.html", "/text", "/large", "/none", "/moved", "/nothing", "/gzip"} {
			fmt.Println(two, path, ask("GET", path, nil, 0))
		}
		fmt.Println(two, "HEAD", ask("HEAD", "/text", nil, 0))
		fmt.Println(two, "POST", ask("POST", "/echo", bytes.Repeat([]byte("a"), 700000), 700000))
		fmt.Println(two, "chunked", ask("POST", "/echo", bytes.Repeat([]byte("a"), 70000), -1))
		var all sync.WaitGroup
		results := make([]string, 20)
		for number := range results {
			all.Add(1)
			go func() {
				defer all.Done()
				results[number] = ask("GET", fmt.Sprintf("/text?%d", number), nil, 0)
			}()
		}
		all.Wait()
		fmt.Println(two, results)
	}
}
