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

# Not `aws s3`, to which a key is a path. To `s3api` it is a key, but for these: what they name would be read, and taken
# for the key.
case $key in
    file://* | fileb://* | http://* | https://*) refuse "aws would read the key from what it names" ;;
esac

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
    source_aws get-object "--bucket=$bucket" "--key=$key" "$folder/object" || exit "$AGAIN"
    [[ $(stat -c %s "$folder/object") -le $MOST ]] || refuse "more than 5 GiB do not go in one request"
    target_aws put-object "--bucket=$TARGET_BUCKET" "--key=$key" --body "$folder/object" || exit "$AGAIN"
}

case $action in
    copy) copy ;;
    delete) target_aws delete-object "--bucket=$TARGET_BUCKET" "--key=$key" || exit "$AGAIN" ;;
    *)
        echo "copy or delete, not: $action" >&2
        exit "$USAGE"
        ;;
esac
