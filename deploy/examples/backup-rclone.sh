#!/usr/bin/env bash
# Copies an object between two remotes of rclone, or deletes the copy.
#
#   backup-rclone.sh BUCKET KEY copy|delete
#
# An `exec` action of hookmirror, with on_failure = "bury": docs/actions.md. What it needs is in the environment
# of the worker:
#
#   SOURCE_REMOTE                      the remote that holds BUCKET, as in `rclone listremotes`, without the colon
#   TARGET_REMOTE, TARGET_BUCKET       where to; RCLONE_CONFIG says where the remotes are described
#
# Exits 0 when it is done, 75 when it is worth another try, 64 when it was called wrongly, 65 for a key that
# rclone would take for another: to rclone a key is a path. backup-aws.sh takes every key.
set -euo pipefail

readonly USAGE=64 REFUSED=65 AGAIN=75 NO_FILE=4

if [[ $# -ne 3 || -z $2 ]]; then
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

# Why rclone would read or write another key than this one; nothing when it would not.
changed() (
    LC_ALL=C # bytes
    case /$key/ in
        *//*) echo "an empty part of a path" ;;
        */./* | */../*) echo "a . or .. in a path" ;;
        *[[:cntrl:]]*) echo "a control character" ;;
        # What stands for another character in the names that rclone shows: U+201B, U+2400 to U+243F, U+FF0E, U+FF0F.
        *$'\xe2\x80\x9b'* | *$'\xe2\x90'* | *$'\xef\xbc\x8e'* | *$'\xef\xbc\x8f'*) echo "a sign of rclone's own" ;;
    esac
    [[ ${#key} -le 1024 ]] || echo "more than 1024 bytes"
    iconv -f UTF-8 -t UTF-8 <<<"$key" >/dev/null 2>&1 || echo "bytes that are no UTF-8"
)

why=$(changed)
if [[ -n $why ]]; then
    echo "rclone would take this key for another: $why" >&2
    exit "$REFUSED"
fi

# One try each: hookmirror tries again, with longer waits.
quiet=(--quiet --retries 1)

# From a list of one key, each line a key as it is: `copyto` takes an object that is gone for a folder, and copies
# what is in it. An object that is gone must be an error, and what is there is always sent.
copy() {
    rclone copy "${quiet[@]}" --ignore-times --error-on-no-transfer --no-traverse --files-from-raw - \
        "$SOURCE_REMOTE:$bucket" "$TARGET_REMOTE:$TARGET_BUCKET" <<<"$key"
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
