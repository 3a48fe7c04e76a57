// The Go SDK beside plain HTTP: `program send SOCKET TO COUNT`, `program stream SOCKET COUNT`.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"program/claudemesh"
)

var text = strings.Repeat("x", 1024)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func post(client *http.Client, to string) {
	body, err := json.Marshal(map[string]any{"to": to, "message": text, "client_message_id": claudemesh.NewID()})
	must(err)
	answer, err := client.Post("http://localhost/v1/send", "application/json", bytes.NewReader(body))
	must(err)
	var sent claudemesh.Sent
	must(json.NewDecoder(answer.Body).Decode(&sent))
	must(answer.Body.Close())
}

func median(times []time.Duration) float64 {
	slices.Sort(times)
	return times[len(times)/2].Seconds() * 1000
}

func main() {
	ctx, path := context.Background(), os.Args[2]
	client, err := claudemesh.New(claudemesh.Options{SocketPath: path})
	must(err)
	defer client.Close()
	count, err := strconv.Atoi(os.Args[len(os.Args)-1])
	must(err)
	if os.Args[1] == "send" {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		plain := &http.Client{Transport: &http.Transport{DialContext: dial}}
		var times [2][]time.Duration
		for round := range count + 1 {
			for place, call := range []func(){
				func() {
					_, err := client.Send(ctx, os.Args[3], text, claudemesh.SendOptions{})
					must(err)
				},
				func() { post(plain, os.Args[3]) },
			} {
				started := time.Now()
				call()
				if round > 0 {
					times[place] = append(times[place], time.Since(started))
				}
			}
		}
		fmt.Println(median(times[0]), median(times[1]))
		return
	}
	_, err = client.Health(ctx)
	must(err)
	started, last, since := time.Now(), int64(0), int64(0)
	messages := client.Messages(ctx, claudemesh.MessagesOptions{Since: &since})
	defer messages.Close()
	for range count {
		if !messages.Next() {
			panic(messages.Err())
		}
		if messages.Message().Seq <= last {
			panic("out of order")
		}
		last = messages.Message().Seq
	}
	fmt.Println(time.Since(started).Seconds())
}
