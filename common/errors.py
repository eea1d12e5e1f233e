"""Every way things go wrong here, as one closed tree.

    HookmirrorError
    ├── ConfigError           the operator must change something; the program does not start
    ├── BadRequest            the receiver answers 4xx with the class's `answer`
    │   ├── NoSuchPath        404
    │   ├── NotAllowed        403
    │   ├── TooMany           429
    │   ├── Slow              408
    │   ├── NotOurs           403
    │   ├── BadSignature      403
    │   └── TooLarge          413
    ├── TryAgain              the worker retries; `worker/blame.py` says whether it was an attempt
    │   ├── StoreAway         timeout, reset, 5xx, or an answer nobody knows
    │   │   └── NotSupported  the store does not do this: there is another way
    │   │       └── NotForThis    not with this object, it may with others
    │   ├── Corrupt           the bytes are not those that were promised
    │   ├── ActionFailed      a program, or whoever takes forwarded events, has not done it
    │   ├── UploadGone        the copy in parts that was under way is no more: begin it anew
    │   ├── Throttled         the store asks for patience
    │   ├── RouteDown         refused, as it may be for every object: credentials, a missing bucket
    │   ├── TargetMoved       the object to be replaced is another by now
    │   ├── SourceMoved       the object changed while it was read       (does not count, if it really did)
    │   ├── QueueAway         the broker cannot take a message now       (does not count)
    │   │   └── QueueLoses    it takes them, and would delete them by itself
    │   ├── SenderAway        who sent a hook does not answer what it makes us ask (does not count)
    │   └── KeyBusy           another delivery of this key is under way  (does not count)
    ├── Never                 the worker buries the task
    │   ├── Unreadable        the body is no task, the hook or the record nothing we know
    │   ├── UnknownRoute          the route of this name takes tasks of another kind
    │   ├── CameBack          it came back unsettled too often: it may be what kills its workers
    │   ├── Refused           the store will never take or give this object
    │   ├── ActionRefused     a program, or whoever takes forwarded events, will never do it
    │   ├── Foreign           the target's object is a copy from another bucket
    │   ├── NeverInStep       written again and again, and never found in step
    │   └── BrakeOn           too many deletes at once: held for a person to release
    └── LostDelivery          the delivery belongs to another worker now: no verdict at all

Foreign errors are translated into this tree in one place for each library, and what is not
known becomes `StoreAway`: unknown means try again, never done.
"""


class HookmirrorError(Exception):
    """The root; its message is a sentence that says what to do next."""

    @property
    def reason(self) -> str:
        """What people call it: in dead letters, in metrics."""
        return type(self).__name__


class ConfigError(HookmirrorError):
    """The configuration cannot be used; the message names the key and the line that mends it."""


class BadRequest(HookmirrorError):
    """The caller is not let in, or sent too much. It is never about content, which is taken whatever it is:
    a sender that repeats what was refused would do so for ever. `status` is the HTTP status to answer,
    `answer` all that a stranger is told; the message is for the log."""

    status = 400
    answer = "bad request"


class NoSuchPath(BadRequest):
    """A path or a method that is not served."""

    status = 404
    answer = "not found"


class NotAllowed(BadRequest):
    """The caller's address is not among those that may call."""

    status = 403
    answer = "not allowed"


class TooMany(BadRequest):
    """The caller's address has sent too many requests of late."""

    status = 429
    answer = "too many requests"


class Slow(BadRequest):
    """The body has not arrived in time."""

    status = 408
    answer = "too slow"


class NotOurs(BadRequest):
    """A subscription to a bucket or a topic that is not configured, or what such a topic delivers."""

    status = 403
    answer = "not ours"


class BadSignature(BadRequest):
    """A hook that is signed, and not by whom it names."""

    status = 403
    answer = "bad signature"


class TooLarge(BadRequest):
    """The body is larger than a hook can be."""

    status = 413
    answer = "too large"


class TryAgain(HookmirrorError):
    """It may work later. `retry_after` is the wait the other side asked for, in seconds, 0 for none.

    `counts` is False when it waits for something that is not the object's: then it is never an attempt, and
    `patience` is how many seconds it waits. Whether any other failure is one depends on what becomes of other
    objects. `unsure` says that what was asked for may still come about: nobody knows how the request ended.
    `code` is what a store itself calls it, where that is known; `ahead`, of a check, by how many seconds the
    store's clock is before ours.
    """

    counts = True
    patience = 1
    code = ""
    ahead: float | None = None

    def __init__(
        self, message: str, *, retry_after: float = 0.0, unsure: bool = False, counts: bool | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.unsure = unsure
        if counts is not None:
            self.counts = counts

    @property
    def reason(self) -> str:
        """The store's own word for it, if there is one."""
        return self.code or super().reason


class StoreAway(TryAgain):
    """The store did not answer, or answered with an error that says nothing about the object."""


class NotSupported(StoreAway):
    """The store does not know this kind of request, or refuses it whatever it is about."""


class NotForThis(NotSupported):
    """The store refuses this kind of request for this object; for others it may take it."""


class ActionFailed(TryAgain):
    """The program, or whoever takes forwarded events, has not done it this time."""


class UploadGone(TryAgain):
    """The target no longer knows the upload in parts: finished, aborted or expired. Begin a new one."""


class SourceMoved(TryAgain):
    """The source object changed between the look and the end of the read. It `counts` when the store says so
    and nothing shows it."""

    counts = False


class TargetMoved(TryAgain):
    """The target's object was replaced between the look and a write that was to replace only what was
    seen."""


class Corrupt(TryAgain):
    """Bytes arrived that do not match their length or checksum."""


class QueueAway(TryAgain):
    """The queue has not confirmed a message in time; nothing may be acknowledged upstream."""

    counts = False
    patience = 5


class QueueLoses(QueueAway):
    """The queue takes messages, and what somebody has set up there deletes them. No spool stands in for it:
    nothing fails that would lead there."""


class SenderAway(TryAgain):
    """A sender has to be asked something before its hook can be believed, and has given no good answer: it is
    to send the hook again."""

    counts = False
    patience = 5


class KeyBusy(TryAgain):
    """Another delivery works on the key, here or in another process; one at a time keeps zombies harmless."""

    counts = False


class Throttled(TryAgain):
    """The store refused for now because of its rate limits; or, and then it does not count, ours have no turn
    left."""

    patience = 5


class RouteDown(TryAgain):
    """Refused as it may be for every object alike: `worker/blame.py` finds out whose failure it is."""

    patience = 30


class Never(HookmirrorError):
    """No attempt can succeed; the task becomes a dead letter with this message as its reason."""


class Unreadable(Never):
    """Bytes that cannot be understood; they are kept whole."""


class UnknownRoute(Never):
    """The route of this name takes tasks of another kind now: a person says which one it is of."""


class CameBack(Never):
    """It came back unsettled so often that it may be what kills its workers."""


class Refused(Never):
    """The store will never take or give this object as it is.

    `own` is False when every object may be refused so, for what we send with it: then it is a dead letter
    only if others pass.
    """

    def __init__(self, message: str, *, own: bool = True) -> None:
        super().__init__(message)
        self.own = own


class ActionRefused(Never):
    """The program, or whoever takes forwarded events, will never do it."""


class Foreign(Never):
    """The object on the target is a copy from another bucket, which this route may not touch."""


class NeverInStep(Never):
    """The object was written as often as it may be, and the target never showed it."""


class BrakeOn(Never):
    """A route wants to delete more in a short time than its brake lets pass."""


class LostDelivery(HookmirrorError):
    """The delivery is no longer held: its lease ran out or its channel closed."""
