// A program of the conformance suite: calls as lines of JSON on stdin, answers on stdout, by the Go SDK.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"driver/claudemesh"
)

type given struct {
	To              string         `json:"to"`
	Message         string         `json:"message"`
	ClientMessageID string         `json:"client_message_id"`
	Priority        string         `json:"priority"`
	Meta            map[string]any `json:"meta"`
	ReplyToID       string         `json:"reply_to_id"`
	Receipt         string         `json:"receipt"`
	WaitMS          int64          `json:"wait_ms"`
	WaitFor         string         `json:"wait_for"`
	TimeoutMS       int64          `json:"timeout_ms"`
	Topic           string         `json:"topic"`
	Queue           string         `json:"queue"`
	Body            string         `json:"body"`
	ID              string         `json:"id"`
	Path            string         `json:"path"`
	Out             string         `json:"out"`
	With            string         `json:"with"`
	Direction       string         `json:"direction"`
	From            string         `json:"from"`
	Limit           int            `json:"limit"`
	Since           *int64         `json:"since"`
	Ack             bool           `json:"ack"`
	Unread          bool           `json:"unread"`
	Summary         *string        `json:"summary"`
	Text            string         `json:"text"`
	Count           int            `json:"count"`
	Of              int            `json:"of"`
}

type call struct {
	ID   int    `json:"id"`
	Call string `json:"call"`
	With given  `json:"with"`
}

type object = map[string]any

type driver struct {
	client  *claudemesh.Client
	mu      sync.Mutex
	out     *json.Encoder
	seen    map[string]claudemesh.Message
	running map[int]context.CancelFunc
}

func (d *driver) tell(id int, key string, value any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.out.Encode(object{"id": id, key: value})
}

func (d *driver) note(message claudemesh.Message) claudemesh.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[message.Text()] = message
	return message
}

func (d *driver) of(body string) claudemesh.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[body]
}

func (d *driver) make(ctx context.Context, id int, name string, g given) (any, error) {
	topic := d.client.Topic(g.Topic)
	if g.Queue != "" {
		topic = d.client.Queue(g.Queue)
	}
	none := claudemesh.SendOptions{}
	switch name {
	case "send":
		return d.client.Send(ctx, g.To, g.Message, claudemesh.SendOptions{
			ClientMessageID: g.ClientMessageID, Priority: g.Priority, Meta: g.Meta, ReplyTo: g.ReplyToID,
			Receipt: g.Receipt, Wait: time.Duration(g.WaitMS) * time.Millisecond,
		})
	case "send_many":
		for count := range g.Count {
			if _, err := d.client.Send(ctx, g.To, fmt.Sprintf("%s %d", g.Text, count), none); err != nil {
				return nil, err
			}
			d.tell(id, "progress", count+1)
		}
		return object{"sent": g.Count}, nil
	case "post":
		return topic.Post(ctx, g.Message, none)
	case "subscribe":
		return object{}, topic.Subscribe(ctx)
	case "unsubscribe":
		return object{}, topic.Unsubscribe(ctx)
	case "reply":
		return d.client.Reply(ctx, d.of(g.Body), g.Message, none)
	case "ack":
		return object{}, d.client.Ack(ctx, d.of(g.Body))
	case "whole":
		whole, err := d.client.Whole(ctx, d.of(g.Body))
		return d.note(whole), err
	case "request":
		options := claudemesh.SendOptions{ClientMessageID: g.ClientMessageID}
		return d.client.Request(ctx, g.To, g.Message, time.Duration(g.TimeoutMS)*time.Millisecond, options)
	case "outbox":
		return d.client.Outbox(ctx, g.ID, g.WaitFor, time.Duration(g.WaitMS)*time.Millisecond)
	case "share_file":
		return d.client.ShareFile(ctx, g.Path, g.To, claudemesh.ShareOptions{Message: g.Message})
	case "files":
		return d.client.Files(ctx, g.Direction)
	case "delete_file":
		return object{}, d.client.DeleteFile(ctx, g.ID)
	case "get_file":
		path, err := d.client.GetFile(ctx, g.ID, g.Out)
		return object{"path": path}, err
	case "peers":
		return d.client.Peers(ctx)
	case "health":
		return d.client.Health(ctx)
	case "version":
		return d.client.Version(ctx)
	case "profile":
		return d.client.Profile(ctx, claudemesh.ProfileChanges{Summary: g.Summary})
	case "history":
		return d.client.History(ctx, claudemesh.HistoryOptions{With: g.With, Limit: g.Limit})
	case "inbox":
		items, err := d.client.Inbox(ctx, claudemesh.InboxOptions{Unread: g.Unread})
		return object{"items": items, "end": true}, err
	case "events":
		events := d.client.Events(ctx, g.Since)
		for events.Next() {
			continue
		}
		return object{"end": true}, events.Err()
	case "messages":
		messages := d.client.Messages(ctx, claudemesh.MessagesOptions{
			Since: g.Since, Topic: g.Topic, From: g.From, Ack: g.Ack,
		})
		for messages.Next() {
			d.tell(id, "item", d.note(messages.Message()))
		}
		return object{"end": true}, messages.Err()
	}
	return nil, fmt.Errorf("no such call: %s", name)
}

func (d *driver) serve(ctx context.Context, asked call) {
	result, err := d.make(ctx, asked.ID, asked.Call, asked.With)
	var failure *claudemesh.Error
	switch {
	case err == nil:
		d.tell(asked.ID, "result", result)
	case errors.As(err, &failure):
		told := object{}
		for name, value := range failure.Body {
			told[name] = value
		}
		told["class"], told["code"], told["status"] = failure.Name(), failure.Code, failure.Status
		told["says"], told["retryable"] = failure.Message, failure.Retryable()
		told["client_message_id"] = failure.ClientMessageID
		d.tell(asked.ID, "error", told)
	case errors.Is(err, context.Canceled):
		d.tell(asked.ID, "result", object{"cancelled": true})
	default:
		panic(err)
	}
}

func main() {
	client, err := claudemesh.New(claudemesh.Options{})
	if err != nil {
		panic(err)
	}
	d := &driver{
		client: client, out: json.NewEncoder(os.Stdout),
		seen: map[string]claudemesh.Message{}, running: map[int]context.CancelFunc{},
	}
	var all sync.WaitGroup
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var asked call
		if err := json.Unmarshal(line, &asked); err != nil {
			panic(err)
		}
		switch asked.Call {
		case "cancel":
			d.running[asked.With.Of]()
		case "close":
			client.Close()
			d.tell(asked.ID, "result", object{})
		default:
			ctx, cancel := context.WithCancel(context.Background())
			d.running[asked.ID] = cancel
			all.Add(1)
			go func() {
				defer all.Done()
				d.serve(ctx, asked)
			}()
		}
	}
	if slices.Contains(os.Args, "--finish") {
		all.Wait()
	}
}
