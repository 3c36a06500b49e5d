# stop PID: asks a process group to end and, after five seconds, makes its leader.
stop() {
    kill -s TERM -- "-$1" 2>/dev/null
    waited=0
    while kill -0 "$1" 2>/dev/null && [ "$waited" -lt 5 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -s KILL "$1" 2>/dev/null
}
