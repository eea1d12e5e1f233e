"""The queue on RabbitMQ. The only package that knows aio-pika."""

from common.queue.rabbitmq.queue import RabbitQueue

__all__ = ["RabbitQueue"]
