"""Chooses a broker by its URL."""

from __future__ import annotations

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra
from rm_voucher.worker.broker import Broker, QueueNames
from rm_voucher.worker.settings import WorkerSettings


def open_broker(
    url: str, *, names: QueueNames | None = None, settings: WorkerSettings | None = None
) -> Broker:
    """Return the broker at a URL. It connects when a worker starts with it.

    ``amqp://`` and ``amqps://`` are RabbitMQ, ``nats://`` and ``tls://`` NATS JetStream,
    ``redis://`` and ``rediss://`` Redis streams. ``settings`` are the worker's. Needs the extra
    ``worker``. Raises `ConfigurationError`.
    """
    names, settings = names or QueueNames(), settings or WorkerSettings()
    scheme, separator, _ = url.partition("://")
    with extra("worker", "A broker", ConfigurationError):
        match scheme if separator else None:
            case "amqp" | "amqps":
                from rm_voucher.worker.rabbitmq import RabbitMQ

                return RabbitMQ(url, names, settings)
            case "nats" | "tls":
                from rm_voucher.worker.nats import NatsJetStream

                return NatsJetStream(url, names, settings)
            case "redis" | "rediss":
                from rm_voucher.worker.redis import RedisStreams

                return RedisStreams(url, names, settings)
    raise ConfigurationError(
        "A broker's URL begins with amqp://, amqps://, nats://, tls://, redis:// or rediss://."
    )
