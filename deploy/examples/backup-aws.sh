#!/usr/bin/env bash
# Copies an object from one S3 cloud to another with the AWS command line, or deletes the copy.
#
#   backup-aws.sh BUCKET KEY copy|delete
#
# An `exec` action of hookmirror, with on_failure = "bury": docs/actions.md. What it needs is in the environment
# of the worker:
#
#   SOURCE_PROFILE, SOURCE_ENDPOINT    who reads, and where
#   TARGET_PROFILE, TARGET_BUCKET      who writes, and where to; TARGET_ENDPOINT for another cloud than AWS
#
# It copies the bytes, of objects of up to 5 GiB. Exits 0 when it is done, 75 when it is worth another try, 64
# when it was called wrongly, 65 for what cannot be copied so.
set -euo pipefail

readonly USAGE=64 REFUSED=65 AGAIN=75 MOST=$((5 * 2 ** 30))

if [[ $# -ne 3 || -z $2 ]]; then
    echo "usage: ${0##*/} BUCKET KEY copy|delete" >&2
    exit "$USAGE"
fi
bucket=$1 key=$2 action=$3
for name in SOURCE_PROFILE SOURCE_ENDPOINT TARGET_PROFILE TARGET_BUCKET; do
    if [[ -z ${!name:-} ]]; then
        echo "$name is not set" >&2
        exit "$USAGE"
    fi
done

refuse() {
    echo "$1" >&2
    exit "$REFUSED"
}

(LC_ALL=C && [[ ${#key} -le 1024 ]]) || refuse "a key has at most 1024 bytes"
iconv -f UTF-8 -t UTF-8 <<<"$key" >/dev/null 2>&1 || refuse "a key is UTF-8, and this is not"

# `aws s3` takes a key for a path, and `--key` a key like file:///etc/passwd for the name of a file with the key in it:
# in JSON a key is a key.
json() (
    LC_ALL=C # bytes
    text=
    for ((at = 0; at < ${#1}; at++)); do
        char=${1:at:1}
        case $char in
            [\"\\]) char="\\$char" ;;
            [[:cntrl:]]) printf -v char '\\u%04x' "'$char" ;;
        esac
        text+=$char
    done
    printf '"%s"' "$text"
)

# Where a key is: in what bucket.
object() { printf '{"Bucket": %s, "Key": %s}' "$(json "$1")" "$(json "$key")"; }

source_aws() {
    aws --profile "$SOURCE_PROFILE" --endpoint-url "$SOURCE_ENDPOINT" s3api "$@" >/dev/null
}
target_aws() {
    aws --profile "$TARGET_PROFILE" ${TARGET_ENDPOINT:+--endpoint-url "$TARGET_ENDPOINT"} s3api "$@" >/dev/null
}

# Through a file of its own, removed however this ends: a pipe from one `aws` to the other would upload a
# download that broke off as if it were whole.
copy() {
    local folder
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf -- '$folder'" EXIT
    trap 'exit 143' TERM
    source_aws get-object --cli-input-json "$(object "$bucket")" "$folder/object" || exit "$AGAIN"
    [[ $(stat -c %s "$folder/object") -le $MOST ]] || refuse "more than 5 GiB do not go in one request"
    target_aws put-object --cli-input-json "$(object "$TARGET_BUCKET")" --body "$folder/object" || exit "$AGAIN"
}

case $action in
    copy) copy ;;
    delete) target_aws delete-object --cli-input-json "$(object "$TARGET_BUCKET")" || exit "$AGAIN" ;;
    *)
        echo "copy or delete, not: $action" >&2
        exit "$USAGE"
        ;;
esac
