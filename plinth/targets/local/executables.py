"""Finding the executables of services on this machine."""

from __future__ import annotations

from plinth.errors import UserError
from plinth.programs.executables import Found, find
from plinth.services.spec import Service


def locate(services: list[Service]) -> tuple[dict[str, Found], dict[str, str]]:
    """Executables by service, and the reasons for the optional services that are left out."""
    programs: dict[str, Found] = {}
    left_out: dict[str, str] = {}
    missing: list[Service] = []
    for service in services:
        found = find(service.program)
        if found:
            programs[service.name] = found
        elif service.optional:
            left_out[service.name] = (
                f"no {service.program.binaries[0]} binary on this machine; put one on PATH"
                + (f" or set {service.program.variable}" if service.program.variable else "")
                + " and run up again"
            )
        else:
            missing.append(service)
    if missing:
        raise UserError(_missing_sentence(missing))
    return programs, left_out


def _missing_sentence(missing: list[Service]) -> str:
    names = ", ".join(f"{service.name} (`{service.program.binaries[0]}`)" for service in missing)
    packages = " ".join(sorted({service.program.package for service in missing if service.program.package}))
    install = f"`apt-get install {packages}`" if packages else "put it on PATH"
    variables = [service.program.variable for service in missing if service.program.variable]
    named = f", or name it in {' and '.join(variables)}" if variables else ""
    return f"There is no program on this machine for {names}; {install}{named}, or switch it off in the settings."
