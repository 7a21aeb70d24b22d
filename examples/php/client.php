<?php
// Agent turns over HTTP from PHP 8, without extensions beyond the standard ones.
//
//   php client.php wait   "Hello"     send, and wait for the reply in the same request
//   php client.php poll   "Hello"     send, and ask for the result until it is there
//   php client.php stream "Hello"     send, and print the text as the model writes it
//   php client.php verify SECRET "$X_CLASPER_SIGNATURE" < body     check a webhook's signature
//
// Reads AGENT_DAEMON_URL (http://127.0.0.1:8081) and AGENT_DAEMON_API_KEY.

declare(strict_types=1);

class Refused extends RuntimeException {}

/** Open a request: its status and a stream to read the body from, or null where nothing answers. */
function open(string $method, string $path, ?array $body = null, array $headers = []): ?array
{
    $base = getenv('AGENT_DAEMON_URL') ?: 'http://127.0.0.1:8081';
    $headers[] = 'X-Agent-Daemon-Key: ' . getenv('AGENT_DAEMON_API_KEY');
    $headers[] = 'Content-Type: application/json';
    // HTTP/1.0, as its answers are not chunked: PHP holds back chunked ones until 8 kB are there.
    $options = ['method' => $method, 'header' => $headers, 'protocol_version' => 1.0];
    $options += ['ignore_errors' => true, 'timeout' => 90];
    if ($body !== null) {
        $options['content'] = json_encode($body, JSON_THROW_ON_ERROR);
    }
    $stream = @fopen($base . $path, 'rb', false, stream_context_create(['http' => $options]));
    if ($stream === false) {
        return null;
    }
    $status = stream_get_meta_data($stream)['wrapper_data'][0]; // "HTTP/1.1 200 OK"
    return [(int) explode(' ', $status)[1], $stream];
}

/** One call; throws the shim's own error. */
function call(string $method, string $path, ?array $body = null): array
{
    [$status, $stream] = open($method, $path, $body) ?? throw new Refused('nothing answers there');
    $parsed = json_decode(stream_get_contents($stream), true, 64, JSON_THROW_ON_ERROR);
    if ($status >= 300) {
        throw new Refused("$status {$parsed['code']}: {$parsed['error']}");
    }
    return $parsed;
}

/** Enqueue a turn. Under its idempotency key it is one turn, however often this is called. */
function send(string $message, int $wait = 0, ?string $key = null): array
{
    return call('POST', "/api/agents/send?wait=$wait", [
        'user_id' => 'u1', // the tenant's user, by your own sign-in
        'agent_role' => 'writer',
        'message' => $message,
        'task_title' => 'Examples', // the Mission Control task that the reply is posted to
        'stream' => true,
        'idempotency_key' => $key ?? bin2hex(random_bytes(16)),
    ]);
}

/** Ask until the turn has ended: where neither streams nor webhooks are possible. */
function poll(string $jobId): array
{
    for ($pause = 0.2; ; $pause = min(2 * $pause, 5)) {
        $job = call('GET', "/api/jobs/$jobId");
        if (isset($job['result'])) {
            return $job['result'];
        }
        if (isset($job['error'])) {
            throw new Refused("{$job['error']['code']}: {$job['error']['error']}");
        }
        usleep((int) ($pause * 1e6));
    }
}

/** A turn's events up to `done`. A connection that breaks is made again, after the last event. */
function follow(string $jobId): Generator
{
    $last = '';
    for ($pause = 0.2; ; $pause = min(2 * $pause, 5)) {
        $headers = $last === '' ? [] : ["Last-Event-ID: $last"];
        [$status, $stream] = open('GET', "/api/jobs/$jobId/events", null, $headers) ?? [503, null];
        if ($status !== 200 && $status !== 503) { // 503: the shim or its Redis starts again
            throw new Refused("$status: " . stream_get_contents($stream));
        }
        foreach ($status === 200 ? events($stream) : [] as [$id, $event]) {
            $last = $id;
            $pause = 0.2;
            yield $event;
            if ($event['type'] === 'error') {
                throw new Refused($event['error']);
            }
            if ($event['type'] === 'done') {
                return;
            }
        }
        usleep((int) ($pause * 1e6));
    }
}

/** Server-sent events: lines "id: …" and "data: …", and a blank line after each event. */
function events($stream): Generator
{
    $id = $data = '';
    while (($line = fgets($stream)) !== false && str_ends_with($line, "\n")) {
        [$name, $value] = explode(': ', rtrim($line, "\r\n"), 2) + ['', ''];
        if ($name === 'id') {
            $id = $value;
        } elseif ($name === 'data') {
            $data = $value;
        } elseif ($name === '' && $data !== '') {
            yield [$id, json_decode($data, true, 64, JSON_THROW_ON_ERROR)];
            $data = '';
        }
    } // what is not whole comes again
}

/** Whether a webhook is from whoever knows the secret, and not an old one sent again. */
function verify(string $secret, string $body, string $header, int $tolerance = 300): bool
{
    $time = '';
    $given = [];
    foreach (explode(',', $header) as $part) {
        [$name, $value] = explode('=', trim($part), 2) + ['', ''];
        if ($name === 't') {
            $time = $value;
        } elseif ($name === 'v1') {
            $given[] = $value;
        }
    }
    if (!preg_match('/^\d{1,14}$/D', $time) || abs(time() - (int) $time) > $tolerance) {
        return false;
    }
    // Over the body as it came (php://input), before it is parsed.
    $expected = hash_hmac('sha256', "$time.$body", $secret);
    return array_filter($given, fn (string $one) => hash_equals($expected, $one)) !== [];
}

function main(array $arguments): int
{
    [$command, $first, $second] = array_slice($arguments, 1) + ['', '', ''];
    switch ($command) {
        case 'wait':
            echo send($first, wait: 60)['response'], "\n";
            return 0;
        case 'poll':
            echo poll(send($first)['job_id'])['response'], "\n";
            return 0;
        case 'stream':
            foreach (follow(send($first)['job_id']) as $event) {
                echo match ($event['type']) {
                    'chunk' => $event['data'],
                    'retry' => "\n[what came of this step is void]\n",
                    'done' => "\n",
                    default => '',
                };
            }
            return 0;
        case 'verify':
            $isGood = verify($first, stream_get_contents(STDIN), $second);
            echo $isGood ? "good\n" : "bad\n";
            return $isGood ? 0 : 1;
    }
    fwrite(STDERR, "usage: php client.php wait|poll|stream MESSAGE, or verify SECRET HEADER < body\n");
    return 2;
}

try {
    exit(main($argv));
} catch (Refused $problem) {
    fwrite(STDERR, $problem->getMessage() . "\n");
    exit(1);
}
