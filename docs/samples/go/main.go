// Match one text: main TEXT. The server's address is in SERVER.
// With SIMSEARCH_CA (a file), the connection uses TLS; SIMSEARCH_TOKEN is then sent as well.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // without it, healthCheckConfig has no effect
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	simsearch "example.org/simsearch/v1"
)

const deadline = 5 * time.Second

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: main TEXT")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		failed := status.Convert(err)
		fmt.Fprintf(os.Stderr, "%s %s: %s\n", failed.Code(), reasonOf(failed), failed.Message())
		os.Exit(1)
	}
}

func run(text string) error {
	connection, err := connect(os.Getenv("SERVER"))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	request := &simsearch.MatchRequest{
		Content: &simsearch.Content{Kind: &simsearch.Content_Text{Text: text}},
	}
	response, err := simsearch.NewMatchServiceClient(connection).Match(withMetadata(ctx), request)
	if err != nil {
		return err
	}
	result := response.GetResult()
	fmt.Printf("%s complete=%t\n", result.GetVerdict(), result.GetComplete())
	for _, hit := range result.GetHits() {
		fmt.Println(hit.GetBank(), hit.GetEntryKey(), hit.GetBand())
	}
	return nil
}

func connect(server string) (*grpc.ClientConn, error) {
	config, err := os.ReadFile(os.Getenv("SERVICE_CONFIG"))
	if err != nil {
		return nil, err
	}
	secure := grpc.WithInsecure()
	if ca := os.Getenv("SIMSEARCH_CA"); ca != "" {
		trusted, err := credentials.NewClientTLSFromFile(ca, "")
		if err != nil {
			return nil, err
		}
		secure = grpc.WithTransportCredentials(trusted)
	}
	return grpc.Dial(server, secure, grpc.WithDefaultServiceConfig(string(config)))
}

func withMetadata(ctx context.Context) context.Context {
	ctx = metadata.AppendToOutgoingContext(ctx, "simsearch-priority", "interactive")
	// A token is never sent in clear text.
	if token := os.Getenv("SIMSEARCH_TOKEN"); token != "" && os.Getenv("SIMSEARCH_CA") != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return ctx
}

// The reason of a failed call, as docs/errors.md lists it; "-" for a failure of the network.
func reasonOf(failed *status.Status) string {
	for _, detail := range failed.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "simsearch" {
			return info.GetReason()
		}
	}
	return "-"
}
