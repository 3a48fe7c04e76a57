"""Assembly of the parts that share and fetch files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from claudemesh.daemon import startup
from claudemesh.daemon.files.blob_server import BlobServer, OpenConnections
from claudemesh.daemon.files.fetching import Fetching, FetchParts
from claudemesh.daemon.files.listing import FileLists
from claudemesh.daemon.files.sharing import Sharing
from claudemesh.daemon.files.side import FileSide
from claudemesh.daemon.files.spool import Spool, SpoolLimits
from claudemesh.daemon.files.texts import LongTexts, WholeTexts
from claudemesh.daemon.files.threads import Threads
from claudemesh.daemon.files.uploads import UploadParts, Uploads
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.parts import Base, BrokerSide, Restoring, Sending, Stores
from claudemesh.runtime.yielding import give_way

# An upload and some downloads at a time; each holds a few chunks of 1 MiB. A broker that does not answer
# holds its threads, so encryption and the other work on files have threads of their own.
_TRANSFERS = 4
_LOCAL = 2


def file_side(
    base: Base,
    stores: Stores,
    broker: BrokerSide,
    sending: Sending,
    restoring: Restoring,
    config: LiveConfig,
) -> FileSide:
    """Return the parts, with the parts of the daemon that they need."""
    spool, call, connections = Spool(base.paths.spool), broker.link.call, OpenConnections()
    threads = Threads(
        ThreadPoolExecutor(_TRANSFERS, "transfers", give_way), ThreadPoolExecutor(_LOCAL, "files", give_way)
    )

    def server() -> BlobServer:
        return BlobServer(base.address.url, base.address.ca_file, connections)

    def limits() -> SpoolLimits:
        take_room = stores.monitor.disk.take_room_for_file
        return SpoolLimits(side.blob_bytes, config.settings.spool_bytes, take_room)

    uploads = Uploads(
        UploadParts(
            store=stores.files,
            spool=spool,
            outbox=stores.outbox,
            callers=stores.callers,
            submit=sending.replying.submit,
            may_come_back=restoring.state.may_come_back,
            ask=call,
            is_connected=lambda: broker.link.connected,
            server=server,
            threads=threads,
            backoff=base.backoff,
            count=base.metrics.file_shared,
        )
    )
    sharing = Sharing(
        base.paths.home,
        stores.files,
        spool,
        limits,
        sending.submitter.check,
        base.clock,
        base.new_id,
        threads.local,
    )
    sharing.on_added = uploads.wake
    fetching = _fetching(base, stores, broker, server, threads)
    received = stores.inbox.files
    lists = FileLists(
        store=stores.files, received=received, spool=spool, uploads=uploads, threads=threads, ask=call
    )
    side = FileSide(
        sharing=sharing,
        uploads=uploads,
        fetching=fetching,
        lists=lists,
        texts=LongTexts(sending.replying.submit, sharing, lambda: sending.body_limit.last),
        whole=WholeTexts(base.paths.texts, stores.inbox.files, fetching),
        threads=threads,
        connections=connections,
        blob_bytes=startup.load_blob_bytes(base.paths.broker_features),
    )
    return side


def _fetching(
    base: Base, stores: Stores, broker: BrokerSide, server: Callable[[], BlobServer], threads: Threads
) -> Fetching:
    return Fetching(
        FetchParts(
            home=base.paths.home,
            files=stores.inbox.files,
            ask=broker.link.call,
            server=server,
            threads=threads,
            tasks=base.tasks,
            clock=base.clock,
            backoff=base.backoff,
            count=base.metrics.file_fetched,
        )
    )
