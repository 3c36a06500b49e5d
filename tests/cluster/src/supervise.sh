# Usage: FOLDER PROGRAM [ARGUMENT...], in a process group of its own, with a pipe on stdin that the starter holds.
#
# Becomes PROGRAM, and leaves a watcher behind. The kernel closes the pipe however the starter ends; the watcher then
# stops PROGRAM and, unless FOLDER is empty, removes FOLDER. A line in the pipe sends the watcher home.
#
# The watcher is in PROGRAM's group, so that the group's number, which is PROGRAM's pid, is not given to another
# process while the watcher may still use it. It is nobody's child, so that PROGRAM does not meet a child it never had.
folder=$1
shift
exec 3<&0
(
    (
        # A group that loses its parent while a member is stopped is sent HUP.
        trap '' HUP INT TERM
        PATH=$PATH:/usr/bin:/bin
        read -r _ <&3 && exit
        stop "$$"
        case $folder in
            */mistral-workflows-cluster-?*) rm -rf -- "$folder" ;;
        esac
    ) &
)
exec "$@" </dev/null 3<&-
