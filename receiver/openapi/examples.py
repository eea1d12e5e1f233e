"""A short example of each thing that senders send and are answered: pure.

The tests hold each body to what was recorded of its sender (tests/samples) and send it to a receiver.
"""

import json
from typing import Any

Example = tuple[str, Any]
"""A summary and a value."""

_ARN = "arn:aws:sns:eu-central-1:123456789012:photos-events"
_SNS = "https://sns.eu-central-1.amazonaws.com"
_TOKEN = "2336412f37fb687f5d51e6e241d7700ae02f7124"  # noqa: S105 - Amazon's example, cut short


def _records(name: str, bucket: str, entry: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Records": [{"eventName": name, "s3": {"bucket": {"name": bucket}, "object": entry}, **more}]}


def _taken(**counts: int) -> dict[str, int]:
    return dict.fromkeys(("queued", "ignored", "unrouted", "buried", "dropped"), 0) | counts


_AWS = _records(
    "ObjectCreated:Put",
    "photos",
    {
        "key": "summer+2024/caf%C3%A9.jpg",
        "size": 1024,
        "eTag": "d41d8cd98f00b204e9800998ecf8427e",
        "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
        "sequencer": "0055AED6DCD90281E5",
    },
    eventSource="aws:s3",
    awsRegion="eu-central-1",
    eventTime="2024-03-05T09:12:44.117Z",
)


def _envelope(kind: str, message: str, **more: str) -> dict[str, str]:
    return {
        "Type": kind,
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "TopicArn": _ARN,
        "Message": message,
        "Timestamp": "2024-03-05T09:12:44.912Z",
        "SignatureVersion": "2",
        "Signature": "RVhBTVBMRQ==",
        "SigningCertURL": f"{_SNS}/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem",
        **more,
    }


HOOKS: dict[str, Example] = {
    "mcs": (
        "MCS (VK Cloud): an object was written",
        _records(
            "s3:ObjectCreated:Put",
            "bucketA",
            {
                "key": "some-file-to-bucket",
                "size": 100,
                "eTag": "aed563ecafb4bcc5654c597a421547b2",
                "sequencer": 1577453615,
            },
            awsRegion="ru-msk",
            eventSource="aws:s3",
        ),
    ),
    "mcs_removed": (
        "MCS (VK Cloud): an object was removed",
        _records(
            "s3:ObjectRemoved:Delete", "bucketA", {"key": "some-file-to-bucket", "sequencer": 1577453620}
        ),
    ),
    "mcs_subscription": (
        "MCS (VK Cloud): the URL was registered at a bucket",
        {
            "Type": "SubscriptionConfirmation",
            "TopicArn": "mcs2883541269|bucketA|s3:ObjectCreated:Put",
            "Timestamp": "2019-12-26T19:29:12+03:00",
            "Token": "RPE5UuG94rGgBH6kHXN9FUPugFxj1hs2aUQc99btJp3E49tA",
            "SignatureVersion": 1,
        },
    ),
    "aws": ("AWS S3: an object was written (raw delivery)", _AWS),
    "aws_test": (
        "AWS S3: notifications were configured",
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"},
    ),
    "sns_subscription": (
        "Amazon SNS: the URL was subscribed to a topic",
        _envelope(
            "SubscriptionConfirmation",
            f"You have chosen to subscribe to the topic {_ARN}.",
            Token=_TOKEN,
            SubscribeURL=f"{_SNS}/?Action=ConfirmSubscription&TopicArn={_ARN}&Token={_TOKEN}",
        ),
    ),
    "sns": (
        "Amazon SNS: S3 records in an envelope",
        _envelope("Notification", json.dumps(_AWS), Subject="Amazon S3 Notification"),
    ),
    "minio": (
        "MinIO: an object was written",
        {"EventName": "s3:ObjectCreated:Put", "Key": "photos/summer/a b.jpg"}
        | _records(
            "s3:ObjectCreated:Put",
            "photos",
            {
                "key": "summer%2Fa+b.jpg",
                "size": 4096,
                "eTag": "5eb63bbbe01eeed093cb22bb8f5acdc3",
                "contentType": "image/jpeg",
            },
            eventSource="minio:s3",
        ),
    ),
    "ceph": (
        "Ceph RGW: an object was written",
        _records(
            "ObjectCreated:Put",
            "photos",
            {"key": "a+b%20c.txt", "size": "1024", "etag": "37b51d194a7513e45b56f6524f2d51f2"},
            eventSource="ceph:s3",
        ),
    ),
}

STACKS: dict[str, Example] = {
    "created": (
        "Alibaba Cloud ROS: a stack was created",
        {
            "Outputs": [
                {
                    "Description": "No description given",
                    "OutputKey": "Address",
                    "OutputValue": "http://192.0.2.7/",
                }
            ],
            "StackId": "80bd6b6c-e888-4573-ae3b-93d29144911d",
            "StackName": "test-web-hook",
            "Status": "CREATE_COMPLETE",
        },
    ),
}

HOOK_ANSWERS: dict[str, Example] = {
    "accepted": ("Records", _taken(queued=1)),
    "kept": ("A body that nobody understands", _taken(buried=1)),
    "confirmed": (
        "A subscription of MCS",
        {"signature": "ea3fce4bb15c6de4fec365d36bcebbc34ccddf54616d5ca12e1972f82b6d37af"},
    ),
    "subscribed": ("A subscription of Amazon SNS", {"subscription": _ARN}),
}

STACK_ANSWERS: dict[str, Example] = {
    "accepted": ("A route wants it", _taken(queued=1)),
    "ignored": ("No route wants this status", _taken(ignored=1)),
    "unrouted": ("No route wants a stack of this name", _taken(unrouted=1)),
}
