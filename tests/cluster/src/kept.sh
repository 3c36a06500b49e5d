# identity PID: when the process started, which tells it from a later one with its number.
identity() {
    if [ -r "/proc/$1/stat" ]; then
        # The 22nd field of the line, whose second, the program's name, may contain anything.
        sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 20
    else
        ps -o lstart= -p "$1" 2>/dev/null
    fi
}
# stop_same PID IDENTITY: stops a process if it is still the one that was meant.
stop_same() {
    if [ -n "$2" ] && [ "$(identity "$1")" = "$2" ]; then
        stop "$1"
    else
        echo "process $1 has ended before, and is left alone if its number is in use again"
    fi
}
