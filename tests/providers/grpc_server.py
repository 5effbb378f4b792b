"""A gRPC server on loopback that answers as a test wants."""

from contextlib import asynccontextmanager

import grpc
import grpc.aio


@asynccontextmanager
async def grpc_serving(handler, target="127.0.0.1:0", credentials=None):
    """Serve until the end of the block, over TLS where there are credentials; yield the port."""
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((handler,))
    if credentials is None:
        port = server.add_insecure_port(target)
    else:
        port = server.add_secure_port(target, credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
