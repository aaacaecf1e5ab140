"""Health commands for containers, by what the images have: bash, busybox' wget, or the service's own client.

They are templates; a target fills in the port. Each is an argument vector, so no shell reads it unless one is named.
"""

from __future__ import annotations


def bash_http(port: str, path: str) -> tuple[str, ...]:
    """Return a GET over bash's /dev/tcp, for an image without curl or wget: healthy when the first line says 200."""
    request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
    return (
        "bash",
        "-c",
        "exec 3<>/dev/tcp/127.0.0.1/{{ port('" + port + "') }} && printf '" + request + "' >&3"
        ' && read -r line <&3 && [[ $line == *" 200 "* ]]',
    )


def bash_tcp(port: str) -> tuple[str, ...]:
    """Return a connection over bash's /dev/tcp, for a port that speaks TLS, which bash does not."""
    return ("bash", "-c", ": >/dev/tcp/127.0.0.1/{{ port('" + port + "') }}")


def nc_tcp(port: str) -> tuple[str, ...]:
    """Return a connection by busybox' nc, for a port that speaks TLS and requires a certificate."""
    return ("sh", "-c", 'nc -w 4 127.0.0.1 "$1" </dev/null', "nc", "{{ port('" + port + "') }}")


# A client would have the password in its arguments, which are everybody's to read: the shell's own printf has not.
_LOGIN = (
    'login=$(printf %s:%s "$1" "$(cat "$2")" | base64 | tr -d "\\n"); '
    'printf "GET %s HTTP/1.0\\r\\nAuthorization: Basic %s\\r\\n\\r\\n" "$4" "$login" '
    '| nc -w 4 127.0.0.1 "$3" | head -n 1 | grep -q " 200 "'
)


def login(port: str, path: str, user: str, password_file: str) -> tuple[str, ...]:
    """Return a GET as a user whose password is in a file, by busybox' shell and nc."""
    return ("sh", "-c", _LOGIN, "login", user, password_file, "{{ port('" + port + "') }}", path)


def wget(port: str, path: str) -> tuple[str, ...]:
    """Return a GET by busybox' wget."""
    return ("wget", "-q", "-O", "/dev/null", "http://127.0.0.1:{{ port('" + port + "') }}" + path)
