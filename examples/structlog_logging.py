"""Write the log of an application and of rm_voucher as JSON lines with structlog, without codes.

Our records come through the standard library's logging. They never hold a code, and what you log of
ours is masked: a voucher becomes its `to_dict()`.
"""

import logging

import structlog

from rm_voucher.travel import Shown


def in_words(value: object) -> object:
    """Return a voucher, a batch, an event or a result as a masked dict; of all else its repr."""
    return value.to_dict() if isinstance(value, Shown) else repr(value)


def set_up() -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),  # the fields of a record
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=in_words),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO)
