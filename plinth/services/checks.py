"""Health commands for containers, by what the images have: bash, busybox' wget, or the service's own client.

Templates; a target fills the port in. The words are an argument vector, so no shell reads them unless one is named.
"""

from __future__ import annotations


def bash_http(port: str, path: str) -> tuple[str, ...]:
    """GET over bash's /dev/tcp, for an image without curl or wget: healthy when the first line says 200."""
    request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
    return (
        "bash",
        "-c",
        "exec 3<>/dev/tcp/127.0.0.1/{{ port('" + port + "') }} && printf '" + request + "' >&3"
        ' && read -r line <&3 && [[ $line == *" 200 "* ]]',
    )


def bash_tcp(port: str) -> tuple[str, ...]:
    """A connection over bash's /dev/tcp, where the port speaks TLS and bash does not."""
    return ("bash", "-c", ": >/dev/tcp/127.0.0.1/{{ port('" + port + "') }}")


def wget(port: str, path: str) -> tuple[str, ...]:
    """GET by busybox' wget."""
    return ("wget", "-q", "-O", "/dev/null", "http://127.0.0.1:{{ port('" + port + "') }}" + path)
