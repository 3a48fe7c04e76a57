"""Assembly of the parts that share and fetch files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from claudemesh.daemon import startup
from claudemesh.daemon.files.blob_server import BlobServer, OpenConnections
from claudemesh.daemon.files.fetching import Fetching, FetchParts
from claudemesh.daemon.files.listing import FileLists
from claudemesh.daemon.files.sharing import Sharing
from claudemesh.daemon.files.side import FileSide
from claudemesh.daemon.files.spool import Spool, SpoolLimits
from claudemesh.daemon.files.texts import LongTexts, WholeTexts
from claudemesh.daemon.files.uploads import UploadParts, Uploads
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.parts import Base, BrokerSide, Sending, Stores

# Encryption, an upload and some downloads at a time; each holds a few chunks of 1 MiB.
_THREADS = 4


def file_side(
    base: Base, stores: Stores, broker: BrokerSide, sending: Sending, config: LiveConfig
) -> FileSide:
    """Return the parts, with the parts of the daemon that they need."""
    executor, spool, call = ThreadPoolExecutor(_THREADS, "files"), Spool(base.paths.spool), broker.link.call

    connections = OpenConnections()

    def server() -> BlobServer:
        return BlobServer(base.address.url, base.address.ca_file, connections)

    def limits() -> SpoolLimits:
        return SpoolLimits(side.blob_bytes, config.settings.spool_bytes)

    uploads = Uploads(
        UploadParts(
            store=stores.files,
            spool=spool,
            outbox=stores.outbox,
            callers=stores.callers,
            submit=sending.submitter.submit,
            ask=call,
            is_connected=lambda: broker.link.connected,
            server=server,
            executor=executor,
            backoff=base.backoff,
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
        executor,
    )
    sharing.on_added = uploads.wake
    fetching = Fetching(
        FetchParts(
            home=base.paths.home,
            files=stores.inbox.files,
            ask=call,
            server=server,
            executor=executor,
            tasks=base.tasks,
            clock=base.clock,
            backoff=base.backoff,
        )
    )
    lists = FileLists(store=stores.files, received=stores.inbox.files, spool=spool, uploads=uploads, ask=call)
    side = FileSide(
        sharing=sharing,
        uploads=uploads,
        fetching=fetching,
        lists=lists,
        texts=LongTexts(sending.submitter.submit, sharing, stores.files, lambda: sending.body_limit.last),
        whole=WholeTexts(base.paths.texts, stores.inbox.files, fetching),
        executor=executor,
        connections=connections,
        blob_bytes=startup.load_blob_bytes(base.paths.broker_features),
    )
    return side
