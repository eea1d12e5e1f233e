"""The OpenAPI document of the receiver: what is served where, with an example of each."""
