"""Groups of a daemon's parts, frozen once they are assembled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from msgspec import Struct

from claudemesh.daemon.address import BrokerAddress
from claudemesh.daemon.bus import Bus
from claudemesh.daemon.calls import WrongReplies
from claudemesh.daemon.files.side import FileSide
from claudemesh.daemon.files.store import FilesStore
from claudemesh.daemon.hooks.runs import HookRuns
from claudemesh.daemon.hooks.service import Hooks
from claudemesh.daemon.housekeeping import Housekeeping
from claudemesh.daemon.identity.acting import MemberActs
from claudemesh.daemon.identity.clones import CloneWatch
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.own import OwnMember
from claudemesh.daemon.identity.presence import Presence
from claudemesh.daemon.identity.rotation import KeyRotation
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.daemon.inbox.history import History
from claudemesh.daemon.inbox.rebuild import InboxRebuild
from claudemesh.daemon.inbox.receive import Receiver
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.inbox.unsealer import Unsealer
from claudemesh.daemon.link.link import Link
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.moving import Mover
from claudemesh.daemon.notices import Notices
from claudemesh.daemon.outbox.age import OutboxClocks
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.callers import WaitingCallers
from claudemesh.daemon.outbox.drain import Drain
from claudemesh.daemon.outbox.recovery import OutboxRecovery
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.submit import Submitter
from claudemesh.daemon.outbox.waiting_rows import WaitingRows
from claudemesh.daemon.receipts.replying import Replying
from claudemesh.daemon.receipts.telling import ReceiptTelling
from claudemesh.daemon.restore.readmission import Readmission
from claudemesh.daemon.restore.reconcile import Reconciler
from claudemesh.daemon.restore.restating import Restating
from claudemesh.daemon.restore.state import RestoreState
from claudemesh.daemon.restore.vouching import Vouching
from claudemesh.daemon.sessions.local_inbox import LocalInbox
from claudemesh.daemon.sessions.loops import LoopGuard
from claudemesh.daemon.sessions.publishing import SessionPublishing
from claudemesh.daemon.sessions.pushing import Pushing
from claudemesh.daemon.sessions.service import Sessions
from claudemesh.daemon.sessions.trust import SenderTrust
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.daemon.status import HealthReport
from claudemesh.daemon.storage_monitor import StorageMonitor
from claudemesh.daemon.topics.keys import TopicKeys
from claudemesh.daemon.topics.known import KnownTopics
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.daemon.tracing import DaemonTracing
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import Membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.console.admission import Admission
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.services import OnCrash, TaskOwner
from claudemesh.runtime.sidefiles import SideFiles


class Base(Struct, frozen=True, kw_only=True):
    """Common arguments of the parts. All retries share `backoff`, which a reload changes in place.

    `with_broker`: this process runs a broker too.
    """

    paths: DaemonPaths
    settings: DaemonSettings
    with_broker: bool
    membership: Membership
    address: BrokerAddress
    keyring: Keyring
    host_fingerprint: str
    clock: Clock
    conditions: Conditions
    files: SideFiles
    tasks: TaskOwner
    stack: AsyncExitStack
    backoff: Backoff
    bus: Bus
    metrics: DaemonMetrics
    # None without a collector of traces.
    tracing: DaemonTracing | None
    new_id: Callable[[], str]
    on_crash: OnCrash
    on_storage_broken: Callable[[StorageError], None]
    end: Callable[[ExitWith | None], None]
    reload: Callable[[], None]


class Stores(Struct, frozen=True, kw_only=True):
    """Directory and databases on disk, the clocks of their rows, and the monitor of the disk."""

    lived: LivedClock
    clocks: OutboxClocks
    directory: Directory
    outbox: OutboxStore
    inbox: InboxStore
    files: FilesStore
    monitor: StorageMonitor
    callers: WaitingCallers
    # Callers that wait for a state of a send's message.
    watchers: WaitingCallers
    notices: Notices


class BrokerSide(Struct, frozen=True, kw_only=True):
    """The link, and the local copies of the broker's lists."""

    link: Link
    replies: WrongReplies
    sync: DirectorySync
    presence: Presence
    clones: CloneWatch
    topics: KnownTopics
    mover: Mover
    own: OwnMember
    topic_keys: TopicKeys


class Restoring(Struct, frozen=True, kw_only=True):
    """Parts that put back what a restore of the broker took away: topics, members, this member itself."""

    state: RestoreState
    own_topics: OwnTopics
    vouching: Vouching
    restating: Restating
    readmission: Readmission
    rotation: KeyRotation


class Sending(Struct, frozen=True, kw_only=True):
    """The parts on the path of a send, from acceptance to the broker's result."""

    body_limit: BodyLimit
    hooks: Hooks
    hook_runs: HookRuns
    drain: Drain
    submitter: Submitter
    # Submits sends, and acknowledges the messages that they answer.
    replying: Replying
    loops: LoopGuard
    reconciler: Reconciler
    recovery: OutboxRecovery
    waiting: WaitingRows


class Receiving(Struct, frozen=True, kw_only=True):
    """The parts on the path of a message, from the link into the inbox."""

    receiver: Receiver
    local: LocalInbox
    unsealer: Unsealer
    history: History
    rebuild: InboxRebuild


class Parts(Struct, frozen=True, kw_only=True):
    """All parts of a daemon."""

    base: Base
    stores: Stores
    broker: BrokerSide
    restoring: Restoring
    sending: Sending
    receiving: Receiving
    files: FileSide
    sessions: Sessions
    session_news: SessionPublishing
    pushing: Pushing
    trust: SenderTrust
    receipts: ReceiptTelling
    housekeeping: Housekeeping
    config: LiveConfig
    health: HealthReport
    acts: MemberActs
    console: Admission
