"""The rows of the bench, in the order of a round. The aims are those of the specification."""

from __future__ import annotations

from functools import partial

from benchmarks import (
    accept,
    against,
    cli,
    client,
    directory,
    files,
    firstpost,
    growth,
    hooks,
    idle,
    path,
    peers,
    postgres,
    reading,
    scaling,
    sdks,
    send,
    sessions,
    waiting,
)
from benchmarks.row import Row
from benchmarks.size import size

# Another broker, its durability, and the aims with 256 and with 1 in flight.
_PEERS: tuple[tuple[str, str, tuple[float | None, float | None]], ...] = (
    ("redis", "Redis stream + NX in Lua, appendfsync always", (0.8, 0.7)),
    ("rabbitmq durable", "RabbitMQ, durable classic queue, confirms", (1.3, 1.0)),
    ("rabbitmq quorum", "RabbitMQ, quorum queue of one node, confirms", (1.3, 1.0)),
    ("nats", "NATS JetStream: acknowledged BEFORE it is on disk", (None, None)),
)

ROWS = (
    Row(
        "send, 64 callers",
        "requests/s",
        "the same, storing nothing",
        ">=",
        0.75,
        send.many,
        alone=send.many_alone,
    ),
    Row(
        "send, one caller", "ms", "one commit + an empty request", "<=", 1.35, send.one, alone=send.one_alone
    ),
    Row(
        "send, 10,000 waiting",
        "ms",
        "the same with none waiting",
        "<=",
        1.3,
        waiting.few,
        alone=waiting.few_alone,
    ),
    Row(
        "accept",
        "messages/s",
        "the rows in a script, 128 a commit",
        ">=",
        0.6,
        accept.rate,
        alone=client.accepted,
    ),
    Row(
        "postgres accept",
        "messages/s",
        "the accept function, 128 a call",
        ">=",
        0.7,
        postgres.rate,
        alone=client.accepted_on_postgres,
    ),
    Row("postgres accept, two brokers", "messages/s", "one of them alone", ">=", 1.0, postgres.two_brokers),
    Row("topic of 100, postgres", "deliveries/s", "ten times one-to-one", ">=", 1.0, postgres.topic),
    Row("end to end, idle", "ms", "three commits + the hops", "<=", 1.8, path.idle, alone=path.idle_alone),
    Row(
        "end to end, loaded",
        "messages/s",
        "accept by the same broker",
        ">=",
        0.4,
        path.loaded,
        alone=path.loaded_alone,
    ),
    Row(
        "end to end, loaded, beside accept of e423227",
        "messages/s",
        "accept by the broker of e423227",
        ">=",
        0.4,
        against.loaded,
        against.missing,
    ),
    Row(
        "end to end, loaded, processor time",
        "us a message",
        "the same of e423227; both daemons and the broker",
        "<=",
        0.65,
        against.processor,
        against.missing,
        path.processor,
    ),
    Row(
        "posts to a topic",
        "messages/s",
        "as many direct messages",
        ">=",
        0.9,
        path.posted,
        alone=path.posted_alone,
    ),
    Row(
        "messages to an older key",
        "messages/s",
        "the same without a rotation",
        ">=",
        0.8,
        path.to_an_older_key,
    ),
    Row(
        "events, 32 readers",
        "messages/s",
        "32 times one reader",
        ">=",
        0.7,
        reading.fan_out,
        alone=reading.many_readers,
    ),
    Row("inbox page of 500", "ms", "the same out of 1,000 rows", "<=", 1.3, reading.page),
    Row(
        "a hook per message",
        "runs/s",
        "the program by subprocess, 8 at a time",
        ">=",
        0.7,
        hooks.rate,
        alone=hooks.rate_alone,
    ),
    Row(
        "file of 256 MiB",
        "MiB/s",
        "cp + sha256 + secretstream, one process",
        ">=",
        0.5,
        files.rate,
        alone=files.rate_alone,
    ),
    Row("file of 256 MiB, memory", "MiB", "16 MiB", "<=", 1.0, files.memory, alone=files.memory_alone),
    Row(
        "file of 256 MiB, sends meanwhile",
        "ms",
        "the same without it",
        "<=",
        2.0,
        files.latency,
        alone=files.latency_alone,
    ),
    Row("a receipt for each message", "messages/s", "the same without", ">=", 0.85, sessions.receipted),
    Row("a local send by MCP", "ms", "5 ms", "<=", 1.0, sessions.local),
    Row("an idle session is woken", "ms", "a plain send + 50 ms", "<=", 1.0, sessions.woken),
    Row("a hook tool, 100,000 messages", "ms", "10 ms", "<=", 1.0, sessions.hook_tool),
    Row("claudemesh mcp, first answer", "ms", "150 ms", "<=", 1.0, sessions.first_answer),
    Row("claudemesh mcp, memory", "MB", "25 MB", "<=", 1.0, sessions.memory),
    Row("ten sessions and their daemon", "MB", "250 MB", "<=", 1.0, sessions.ten),
    Row("claudemesh send", "ms", "python3 -c pass", "<=", 1.4, cli.warm, alone=cli.warm_alone),
    Row("a command as a member", "ms", "1.5 s", "<=", 1.0, cli.job),
    Row(
        "first start", "ms", "python3 -m zipfile -e of its files", "<=", 2.0, cli.first, alone=cli.first_alone
    ),
    *(
        Row(
            f"beside {peer}, {store}, {in_flight} in flight",
            "messages/s",
            ceiling,
            ">=",
            aim,
            partial(peers.beside, peer, in_flight, store),
            partial(peers.missing, peer),
        )
        for peer, ceiling, aims in _PEERS
        for store in ("embedded", "postgres")
        for in_flight, aim in zip((256, 1), aims, strict=True)
    ),
    *(
        Row(
            f"sdk send, {language}",
            "ms",
            "the same by HTTP in the language",
            "<=",
            1.3,
            partial(sdks.send, language),
            partial(sdks.missing, language),
        )
        for language in ("python", "javascript", "go")
    ),
    *(
        Row(
            f"sdk sends of 32 callers, python, beside {raw}",
            "requests/s",
            f"raw HTTP of {raw} callers",
            ">=",
            None,
            partial(sdks.callers, raw),
        )
        for raw in (32, 64)
    ),
    *(
        Row(
            f"sdk stream of 10,000, {language}",
            "messages/s",
            "curl -N",
            ">=",
            0.8,
            partial(sdks.stream, language),
            partial(sdks.missing, language, "curl"),
        )
        for language in ("python", "javascript", "go")
    ),
    Row("20,000 members, nothing new", "ms", "a call that asks for nothing", "<=", 1.5, directory.question),
    Row("20,000 members, one changed", "ms", "its bytes appended and synced", "<=", 2.0, directory.change),
    Row("10,000 members", "messages/s", "accept with few", ">=", 0.77, scaling.members),
    *(
        Row(
            f"{count:,} subscribers",
            "deliveries/s",
            "posts to one",
            ">=",
            1.0,
            partial(scaling.subscribers, count),
        )
        for count in (100, 10_000)
    ),
    Row("bodies of 100 KiB", "MiB/s", "bodies of 1 KiB", ">=", 1.0, scaling.bodies),
    Row(
        "history of 10,000",
        "messages/s",
        "accept without it",
        ">=",
        0.77,
        partial(scaling.history, size(10_000, 200)),
    ),
    Row("idle daemon, memory", "MB", "40 MB", "<=", 1.0, idle.memory, alone=idle.memory_alone),
    Row("idle daemon, CPU", "% of a core", "0.1 %", "<=", 1.0, idle.cpu, alone=idle.cpu_alone),
    Row("idle connection, broker", "KB", "25 KB", "<=", 1.0, idle.connection, alone=idle.connection_alone),
)


# They take long to prepare, and the last one some gigabytes.
LARGE = (
    Row("2,000 members come back", "s", "30 s", "<=", 1.0, growth.back),
    Row("2,000 members, broker's memory", "MB", "250 MB", "<=", 1.0, growth.memory),
    Row("2,000 members, 100 a minute come and go", "% of a core", "1 %", "<=", 1.0, directory.churn),
    Row("a post to 2,000 members", "s", "1 s", "<=", 1.0, growth.post),
    Row("first post to 2,000 subscribers", "s", "2 s", "<=", 1.0, firstpost.first),
    Row("send, 1,000,000 waiting", "ms", "the same with none waiting", "<=", 1.3, waiting.many),
    Row(
        "history of 1,000,000",
        "messages/s",
        "accept without it",
        ">=",
        0.77,
        partial(scaling.history, size(1_000_000, 400)),
    ),
    Row("ten million messages, postgres", "messages/s", "the same without them", ">=", 0.77, postgres.grown),
)
