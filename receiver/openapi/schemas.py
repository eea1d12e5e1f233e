"""The shapes of what senders send and of what they are answered, as JSON Schema: pure.

Fields that are not named here are ignored, so no object that comes in is closed; the answers, which are ours,
are. What a schema of a body lets through is a hook, though maybe not of a bucket of ours.
"""

from typing import Any

from receiver.hook import MAX_RECORDS

Schema = dict[str, Any]


def reference(name: str) -> Schema:
    """Return a reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(needed: dict[str, Schema], maybe: dict[str, Schema] | None = None, *, about: str) -> Schema:
    return {
        "type": "object",
        "description": about,
        "required": list(needed),
        "properties": needed | (maybe or {}),
    }


def _answer(properties: dict[str, Schema], *, about: str) -> Schema:
    return _object(properties, about=about) | {"additionalProperties": False}


def _text(about: str = "", **more: Any) -> Schema:
    return {"type": "string", "minLength": 1} | ({"description": about} if about else {}) | more


def _count(about: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": about}


TOPIC = _text(
    "The topic's ARN.", pattern="^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]+$", maxLength=300
)

_S3_OBJECT = _object(
    {"key": _text("Raw or form-encoded: see `stores.*.key_encoding`.", maxLength=3072)},
    {
        "eTag": {"type": "string", "description": "Some senders write `etag`, some leave it out."},
        "size": {"type": ["integer", "string"], "description": "Bytes; some senders write it as a string."},
        "sequencer": {"type": ["integer", "string"], "description": "Not read: it cannot order two writes."},
        "versionId": {"type": "string", "description": "Not read."},
    },
    about="The object that something happened to.",
)

_ENVELOPE = {
    "MessageId": {"type": "string"},
    "TopicArn": TOPIC,
    "Message": {"type": "string"},
    "Timestamp": {"type": "string"},
    "SignatureVersion": {"enum": ["1", "2"], "description": "1 is SHA1, 2 is SHA256."},
    "Signature": {"type": "string", "minLength": 4, "description": "Base64."},
    "SigningCertURL": {
        "type": "string",
        "pattern": "^https://sns[.][a-z0-9-]+[.]amazonaws[.]com([.]cn)?(:443)?"
        "/SimpleNotificationService-[0-9a-fA-F]{1,128}[.]pem$",
        "description": "At the SNS host of the topic's own region.",
    },
}

SCHEMAS: dict[str, Schema] = {
    "S3Record": _object(
        {
            "s3": _object(
                {
                    "bucket": _object({"name": _text()}, about="The source bucket."),
                    "object": _S3_OBJECT,
                },
                about="What it is about.",
            ),
        },
        {"eventName": {"type": "string", "description": "A hint: whatever it is, the object is looked at."}},
        about="One event. One that names no key is kept as a dead letter, and the others go on. Only a"
        " TestEvent and `s3:Replication:*` change nothing, and are ignored.",
    ),
    "S3Records": _object(
        {
            "Records": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_RECORDS,
                "items": reference("S3Record"),
            }
        },
        about="Records of MCS (VK Cloud), AWS, MinIO or Ceph.",
    ),
    "S3TestEvent": _object(
        {"Event": {"enum": ["s3:TestEvent", "TestEvent"]}},
        {"Service": {"type": "string"}, "Bucket": {"type": "string"}},
        about="What AWS sends when notifications are configured. Taken, and ignored.",
    ),
    "McsSubscriptionConfirmation": _object(
        {
            "Type": {"const": "SubscriptionConfirmation"},
            "TopicArn": _text("Reads project|bucket|events.", pattern="^[^|]*[|][^|]*[|]"),
            "Timestamp": _text(),
            "Token": _text(),
        },
        {"Message": {"type": "string"}, "SignatureVersion": {"type": ["integer", "string"]}},
        about="What MCS sends when `receiver.public_url` is registered at a bucket.",
    ),
    "SnsSubscriptionConfirmation": _object(
        {"Type": {"enum": ["SubscriptionConfirmation", "UnsubscribeConfirmation"]}}
        | _ENVELOPE
        | {
            "Token": {"type": "string"},
            "SubscribeURL": {
                "type": "string",
                "format": "uri",
                "maxLength": 2048,
                "description": "Called when the topic is one of `receiver.sns_topics` and Amazon has signed.",
            },
        },
        about="What Amazon SNS sends when the URL is subscribed to a topic, and when it is not any more.",
    ),
    "SnsNotification": _object(
        {"Type": {"const": "Notification"}} | _ENVELOPE,
        {"Subject": {"type": ["string", "null"]}, "UnsubscribeURL": {"type": "string"}},
        about="A message of Amazon SNS. `Message` holds S3 records, or the test event, as JSON in a string.",
    ),
    "StackNotification": _object(
        {
            "StackId": _text(maxLength=256),
            "StackName": _text(maxLength=256),
            "Status": {"type": "string", "pattern": "^[A-Z_]{1,64}$", "examples": ["CREATE_COMPLETE"]},
        },
        {
            "Outputs": {
                "type": ["array", "null"],
                "maxItems": 1000,
                "items": _object(
                    {
                        "OutputKey": {"type": "string"},
                        "OutputValue": {"description": "Any JSON. It may be a secret, and is in no log."},
                    },
                    {"Description": {"type": ["string", "null"]}},
                    about="One output of the stack.",
                ),
            }
        },
        about="What Alibaba Cloud ROS sends when an operation on a stack is over.",
    ),
    "Accepted": _answer(
        {
            "queued": _count("Tasks that are durable: a record may make none, or one for each route."),
            "ignored": _count("Records whose key or status no route takes, or whose event changes nothing."),
            "unrouted": _count("Records of a bucket, or a stack, that no route of this URL names."),
            "buried": _count("What cannot be understood, kept whole as dead letters."),
            "dropped": _count("What cannot be understood and was only counted: this address sent too much."),
        },
        about="Every record is durable, or needs nothing.",
    ),
    "McsConfirmed": _answer(
        {"signature": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
        about="The subscription of MCS is confirmed.",
    ),
    "SnsSubscription": _answer({"subscription": TOPIC}, about="What SNS said of this subscription is done."),
    "Refusal": _answer(
        {"error": _text()}, about="A few constant words; the reason is in the receiver's log."
    ),
    "OpenApi": {"type": "object", "required": ["openapi"], "description": "An OpenAPI 3.1 document."},
    "Alive": _answer({"status": {"const": "alive"}}, about="The process runs."),
    "Ready": _object(
        {"status": {"const": "ready"}},
        {"queue": {"type": "string", "description": "Given when the spool takes what the queue cannot."}},
        about="Hooks can be taken.",
    )
    | {"additionalProperties": False},
    "Waiting": _answer(
        {"status": {"const": "waiting"}, "why": {"type": "string"}}, about="No hooks can be taken now."
    ),
}

HOOK_BODIES = (
    "S3Records",
    "S3TestEvent",
    "McsSubscriptionConfirmation",
    "SnsSubscriptionConfirmation",
    "SnsNotification",
)
"""What a hook may be."""
