"""A vector without meaning, texts that are embedded, and a search by text, through the gateway.

GATEWAY_URL is its address, GATEWAY_TOKEN a token of `plinth gateway token`.
"""

from __future__ import annotations

import os

from plinth.gateway.client import ApiError, Client, JobFailedError

TEXTS = [
    {"id": "cat", "text": "A kitten sleeps on the warm windowsill", "payload": {"source": "web"}},
    {"id": "car", "text": "The engine of the old lorry needs new oil", "payload": {"source": "book"}},
]


def main() -> None:
    """Each step of the quick start."""
    url = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000")
    with Client(url, os.environ["GATEWAY_TOKEN"]) as client:
        # A job: it is asked for at once, and done by a worker. The same segment is the same job.
        job = client.wait(client.mock("doc-123", "chunk-0"), timeout_s=60)
        print(f"point {(job.result or {})['point_id']}")

        # Texts, embedded in batches and written with their payload.
        client.wait(client.embed("embeddings", TEXTS), timeout_s=60)
        for hit in client.text_search("embeddings", "a sleeping cat", top_k=1, filter={"match": {"source": "web"}}):
            print(f"{hit.id} {hit.score:.2f}")


if __name__ == "__main__":
    try:
        main()
    except (ApiError, JobFailedError, TimeoutError) as error:
        raise SystemExit(f"{error}") from None
