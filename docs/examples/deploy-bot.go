// A bot that has a version built and tells the team: deploy-bot VERSION MEMBER LOG
//
// It asks the workers of the queue builds (worker.py is one), posts the answer to the topic releases with a mention of
// the member, shares the log with them, and then answers the question "status".
//
// Each send has an id of its own, so the bot may be ended and started again at any time: nothing is sent twice.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"deploybot/claudemesh"
)

// deploy has a worker build the version, and returns its answer.
func deploy(ctx context.Context, client *claudemesh.Client, version string) (string, error) {
	options := claudemesh.SendOptions{ClientMessageID: "build-" + version, Meta: map[string]any{"version": version}}
	answer, err := client.Request(ctx, client.Queue("builds").Address, version, 10*time.Minute, options)
	if err != nil {
		return "", err
	}
	return answer.Text(), client.Ack(ctx, answer)
}

// announce tells the team, and shares the log with the member.
func announce(ctx context.Context, client *claudemesh.Client, version, answer, member, log string) error {
	releases := client.Topic("releases")
	if err := releases.Subscribe(ctx); err != nil {
		return err
	}
	sent, err := releases.Post(ctx, version+": "+answer, claudemesh.SendOptions{
		ClientMessageID: "live-" + version, Mentions: []string{member}, Receipt: "delivered",
	})
	if err != nil {
		return err
	}
	_, err = client.ShareFile(ctx, log, member, claudemesh.ShareOptions{
		Message: "The log of " + version, ClientMessageID: "log-" + version,
	})
	if err != nil {
		return err
	}
	progress, err := client.Outbox(ctx, sent.ClientMessageID, "delivered", 30*time.Second)
	if err != nil {
		return err
	}
	fmt.Printf("%s is announced: %s\n", version, progress.Detail)
	return nil
}

// follow answers each question once, over restarts of the daemon and of this program.
func follow(ctx context.Context, client *claudemesh.Client, version string) error {
	messages := client.Messages(ctx, claudemesh.MessagesOptions{Ack: true})
	defer messages.Close()
	for messages.Next() {
		message := messages.Message()
		if message.Kind != "dm" || message.Text() != "status" {
			continue
		}
		options := claudemesh.SendOptions{ClientMessageID: "status-" + message.ID}
		if _, err := client.Reply(ctx, message, version+" is live", options); err != nil {
			return err
		}
	}
	return messages.Err()
}

func run(ctx context.Context, version, member, log string) error {
	client, err := claudemesh.New(claudemesh.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := deploy(ctx, client, version)
	if err != nil {
		return err
	}
	if err := announce(ctx, client, version, answer, member, log); err != nil {
		return err
	}
	return follow(ctx, client, version)
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: deploy-bot VERSION MEMBER LOG")
		os.Exit(64)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1], os.Args[2], os.Args[3])
	var failure *claudemesh.Error
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return
	case errors.Is(err, claudemesh.ErrNoReply):
		fmt.Fprintln(os.Stderr, "No worker has answered.", err)
	case errors.As(err, &failure) && failure.Retryable():
		fmt.Fprintln(os.Stderr, err, "Try again later.")
	default:
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}
