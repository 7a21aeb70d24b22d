// Agent turns over HTTP from Go, with the standard library alone.
//
//	go run client.go wait   "Hello"     send, and wait for the reply in the same request
//	go run client.go poll   "Hello"     send, and ask for the result until it is there
//	go run client.go stream "Hello"     send, and print the text as the model writes it
//	go run client.go verify SECRET "$X_CLASPER_SIGNATURE" < body     check a webhook's signature
//
// Reads AGENT_DAEMON_URL (http://127.0.0.1:8081) and AGENT_DAEMON_API_KEY.
package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Event is one of a turn's: see "type" for which fields it has.
type Event struct {
	Type, Data, Tool, Phase, Error string
	Response                       string
}

// Job is a job's status, and its result or error once it has ended.
type Job struct {
	ID     string `json:"job_id"`
	Result *struct{ Response string }
	Error  *struct{ Code, Error string }
}

func base() string {
	if url := os.Getenv("AGENT_DAEMON_URL"); url != "" {
		return url
	}
	return "http://127.0.0.1:8081"
}

func request(method, path string, body any) (*http.Request, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	made, err := http.NewRequest(method, base()+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	made.Header.Set("X-Agent-Daemon-Key", os.Getenv("AGENT_DAEMON_API_KEY"))
	made.Header.Set("Content-Type", "application/json")
	return made, nil
}

// call makes one request; the error is the shim's own.
func call(method, path string, body, into any) error {
	made, err := request(method, path, body)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(made)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		var problem struct{ Error, Code string }
		json.NewDecoder(answer.Body).Decode(&problem)
		return fmt.Errorf("%d %s: %s", answer.StatusCode, problem.Code, problem.Error)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// send enqueues a turn. Under its idempotency key it is one turn, however often it is sent.
func send(message string, wait int, into any) error {
	key := make([]byte, 16)
	rand.Read(key)
	return call("POST", fmt.Sprintf("/api/agents/send?wait=%d", wait), map[string]any{
		"user_id":         "u1", // the tenant's user, by your own sign-in
		"agent_role":      "writer",
		"message":         message,
		"task_title":      "Examples", // the Mission Control task that the reply is posted to
		"stream":          true,
		"idempotency_key": hex.EncodeToString(key),
	}, into)
}

// poll asks until the turn has ended: where neither streams nor webhooks are possible.
func poll(id string) (string, error) {
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		var job Job
		if err := call("GET", "/api/jobs/"+id, nil, &job); err != nil {
			return "", err
		}
		if job.Result != nil {
			return job.Result.Response, nil
		}
		if job.Error != nil {
			return "", fmt.Errorf("%s: %s", job.Error.Code, job.Error.Error)
		}
		time.Sleep(pause)
	}
}

// follow gives a turn's events to take, up to "done". A connection that breaks is made again, after
// the last event that came.
func follow(id string, take func(Event)) error {
	last := ""
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		made, err := request("GET", "/api/jobs/"+id+"/events", nil)
		if err != nil {
			return err
		}
		if last != "" {
			made.Header.Set("Last-Event-ID", last)
		}
		answer, err := http.DefaultClient.Do(made)
		if err == nil && answer.StatusCode == http.StatusServiceUnavailable {
			answer.Body.Close() // the shim or its Redis starts again
		} else if err == nil && answer.StatusCode == http.StatusOK {
			ended, err := read(answer.Body, &last, func(event Event) {
				pause = 200 * time.Millisecond
				take(event)
			})
			if ended {
				return err
			}
		} else if err == nil {
			text, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			return fmt.Errorf("%d: %s", answer.StatusCode, text)
		}
		time.Sleep(pause)
	}
}

// read takes server-sent events: lines "id: …" and "data: …", and a blank line after each event.
func read(body io.ReadCloser, last *string, take func(Event)) (ended bool, err error) {
	defer body.Close()
	lines := bufio.NewReader(body) // a Scanner would stop at long lines
	id, data := "", ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return false, nil // what is not whole comes again
		}
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
		switch {
		case name == "id":
			id = value
		case name == "data":
			data = value
		case name == "" && data != "":
			var event Event
			if err := json.Unmarshal([]byte(data), &event); err != nil {
				return true, err
			}
			*last, data = id, ""
			take(event)
			if event.Type == "error" {
				return true, fmt.Errorf("the turn failed: %s", event.Error)
			}
			if event.Type == "done" {
				return true, nil
			}
		}
	}
}

// verify tells whether a webhook is from whoever knows the secret, and not an old one sent again.
func verify(secret string, body []byte, header string) bool {
	var stamp string
	var given [][]byte
	for _, part := range strings.Split(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if name == "t" {
			stamp = value
		} else if digest, err := hex.DecodeString(value); name == "v1" && err == nil {
			given = append(given, digest)
		}
	}
	signed, err := strconv.ParseInt(stamp, 10, 64)
	if age := time.Now().Unix() - signed; err != nil || age > 300 || age < -300 {
		return false
	}
	digest := hmac.New(sha256.New, []byte(secret))
	digest.Write([]byte(stamp + "."))
	digest.Write(body) // as it came, before it is parsed
	for _, one := range given {
		if hmac.Equal(one, digest.Sum(nil)) {
			return true
		}
	}
	return false
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}

func run(command string, arguments []string) error {
	var job Job
	switch command {
	case "wait":
		var result struct{ Response string }
		if err := send(arguments[0], 60, &result); err != nil {
			return err
		}
		fmt.Println(result.Response)
		return nil
	case "poll":
		if err := send(arguments[0], 0, &job); err != nil {
			return err
		}
		response, err := poll(job.ID)
		if err == nil {
			fmt.Println(response)
		}
		return err
	case "stream":
		if err := send(arguments[0], 0, &job); err != nil {
			return err
		}
		return follow(job.ID, func(event Event) {
			switch event.Type {
			case "chunk":
				fmt.Print(event.Data)
			case "tool":
				fmt.Fprintf(os.Stderr, "[%s: %s]\n", event.Tool, event.Phase)
			case "retry":
				fmt.Print("\n[what came of this step is void]\n")
			case "done":
				fmt.Println()
			}
		})
	case "verify":
		body, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		if !verify(arguments[0], body, arguments[1]) {
			return fmt.Errorf("bad")
		}
		fmt.Println("good")
		return nil
	}
	return fmt.Errorf("unknown command %q", command)
}

func main() {
	if len(os.Args) < 3 || os.Args[1] == "verify" && len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: client wait|poll|stream MESSAGE, or verify SECRET HEADER < body")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
