#!/usr/bin/env bash
# Copies an object between two remotes of rclone, or deletes the copy.
#
#   backup-rclone.sh BUCKET KEY copy|delete
#
# An `exec` action of hookmirror: docs/actions.md. What it needs is in the environment of the worker:
#
#   SOURCE_REMOTE                      the remote that holds BUCKET, as in `rclone listremotes`, without the colon
#   TARGET_REMOTE, TARGET_BUCKET       where to; RCLONE_CONFIG says where the remotes are described
#
# Exits 0 when it is done, 75 when it is worth another try, 64 when it was called wrongly.
set -euo pipefail

readonly USAGE=64 AGAIN=75 NO_FILE=4

if [[ $# -ne 3 ]]; then
    echo "usage: ${0##*/} BUCKET KEY copy|delete" >&2
    exit "$USAGE"
fi
bucket=$1 key=$2 action=$3
for name in SOURCE_REMOTE TARGET_REMOTE TARGET_BUCKET; do
    if [[ -z ${!name:-} ]]; then
        echo "$name is not set" >&2
        exit "$USAGE"
    fi
done

# One try each: hookmirror tries again, with longer waits.
quiet=(--quiet --retries 1)

# rclone takes an object that is gone for an empty folder, and is content: unless nothing sent is an error, and
# what is there is always sent.
copy() {
    rclone copyto "${quiet[@]}" --ignore-times --error-on-no-transfer \
        "$SOURCE_REMOTE:$bucket/$key" "$TARGET_REMOTE:$TARGET_BUCKET/$key"
}

delete() {
    local code=0
    rclone deletefile "${quiet[@]}" "$TARGET_REMOTE:$TARGET_BUCKET/$key" || code=$?
    [[ $code -eq 0 || $code -eq $NO_FILE ]] # what is not there is deleted
}

case $action in
    copy) copy || exit "$AGAIN" ;;
    delete) delete || exit "$AGAIN" ;;
    *)
        echo "copy or delete, not: $action" >&2
        exit "$USAGE"
        ;;
esac
