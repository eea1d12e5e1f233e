"""`hookmirror sign`: the handshake signature, for trying a registration by hand."""

import click

from receiver import handshake


@click.command()
@click.option("--url", required=True, help="Give the URL exactly as it was registered.")
@click.option("--topic", required=True, help='Give the TopicArn, like "project|bucket|events".')
@click.option("--timestamp", required=True, help="Give the Timestamp, as sent.")
@click.option("--token", required=True, help="Give the Token, as sent.")
def sign(url: str, topic: str, timestamp: str, token: str) -> None:
    """Print the signature that confirms a subscription at MCS.

    \b
    Two published examples. The first prints ea3fce4bb15c6de4fec365d36bcebbc34ccddf54616d5ca12e1972f82b6d37af:
      hookmirror sign --url http://test.com \\
        --topic 'mcs2883541269|bucketA|s3:ObjectCreated:Put' \\
        --timestamp 2019-12-26T19:29:12+03:00 \\
        --token RPE5UuG94rGgBH6kHXN9FUPugFxj1hs2aUQc99btJp3E49tA

    \b
    The second prints 3754ce36636f80dfd606c5254d64ecb2fd8d555c27962b70b4f759f32c76b66d:
      hookmirror sign --url http://89.208.199.220/webhook \\
        --topic 'mcs5259999770|myfiles-ash|s3:ObjectCreated:*,s3:ObjectRemoved:*' \\
        --timestamp 2020-06-15T15:01:13+03:00 \\
        --token E2itMqAMUVVZc51pUhFWSp13DoxezvRxkUh5P7LEuk1dEe9y
    """
    click.echo(handshake.sign(url, topic, timestamp, token))
