"""The gateway: what applications ask instead of Qdrant. It keeps organisations apart, in REST and gRPC.

One core (:mod:`plinth.gateway.operations`) knows neither protocol. A caller is known by a signed token alone
(:mod:`plinth.gateway.tokens`), and what a caller names becomes a collection and a point of Qdrant in one place
(:mod:`plinth.gateway.tenancy`).
"""
