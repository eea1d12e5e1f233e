#!/usr/bin/env bash
# Copies an object from one S3 cloud to another with the AWS command line, or deletes the copy.
#
#   backup-aws.sh BUCKET KEY copy|delete
#
# An `exec` action of hookmirror: docs/actions.md. What it needs is in the environment of the worker:
#
#   SOURCE_PROFILE, SOURCE_ENDPOINT    who reads, and where
#   TARGET_PROFILE, TARGET_BUCKET      who writes, and where to; TARGET_ENDPOINT for another cloud than AWS
#
# Exits 0 when it is done, 75 when it is worth another try, 64 when it was called wrongly.
set -euo pipefail

readonly USAGE=64 AGAIN=75

if [[ $# -ne 3 ]]; then
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

source_aws() { aws --profile "$SOURCE_PROFILE" --endpoint-url "$SOURCE_ENDPOINT" "$@"; }
target_aws() { aws --profile "$TARGET_PROFILE" ${TARGET_ENDPOINT:+--endpoint-url "$TARGET_ENDPOINT"} "$@"; }

# Through a file of its own, removed however this ends: a pipe from one `aws` to the other would upload a
# download that broke off as if it were whole.
copy() {
    local folder
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf -- '$folder'" EXIT
    trap 'exit 143' TERM
    source_aws s3 cp --only-show-errors "s3://$bucket/$key" "$folder/object" || exit "$AGAIN"
    target_aws s3 cp --only-show-errors "$folder/object" "s3://$TARGET_BUCKET/$key" || exit "$AGAIN"
}

case $action in
    copy) copy ;;
    delete) target_aws s3 rm --only-show-errors "s3://$TARGET_BUCKET/$key" || exit "$AGAIN" ;;
    *)
        echo "copy or delete, not: $action" >&2
        exit "$USAGE"
        ;;
esac
